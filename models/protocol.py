"""How lists are judged by what people did next: whole days, the whole catalogue, repeats allowed and not; no torch.

A question is a user on the first day of some days on which they did something. What they did on that day is the truth,
all that they did before it the history. Each figure is there twice: ``all``, with repeats allowed, and ``new``, where
what the user already had is removed from lists and truth. Lists are catalogue rows [N, k], best first, -1 for none.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.encode import NO_ITEM
from features.sequences import Sequences
from models.events import DAY_US, Ints, earlier_events
from models.examples import Examples, Window, next_day

KS = (10, 50, 100)
Bools = npt.NDArray[np.bool_]
Lists = dict[str, Ints]  # by ``all`` and ``new``


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked, and what the answers are judged by.

    Attributes:
        asked: One example for each user; its targets are the different items of the day.
        had: For each question the different catalogue rows that its user had before, ascending.
        worth: Beside each of those, the times that they had it, halved for every half-life of age.
    """

    asked: Examples
    had: tuple[Ints, ...]
    worth: tuple[npt.NDArray[np.float64], ...]

    def __len__(self) -> int:
        return len(self.asked)


def questions_of(sequences: Sequences, window: Window, *, zone: str, half_life_days: float = 90.0) -> Questions:
    """Ask every user on their first day of the *window*; who did nothing before it has nothing to be asked by."""
    asked = first_days(sequences, window, zone=zone)
    known = sequences.times_us[sequences.starts[asked.users]] < window.start_us
    return with_history(sequences, asked.take(known), now_us=window.start_us, half_life_days=half_life_days)


def first_days(sequences: Sequences, window: Window, *, zone: str) -> Examples:
    """Ask every user on their first day of the *window* with a history before it."""
    days = next_day(sequences, window, zone=zone)
    _, first = np.unique(days.users, return_index=True)  # a user's days are in order
    return days.take(first)


def with_history(sequences: Sequences, asked: Examples, *, now_us: int, half_life_days: float = 90.0) -> Questions:
    """Say what the users of *asked* had; its worth counts ages from *now_us*."""
    rows, positions = earlier_events(sequences, asked.users, asked.ends)
    items = sequences.items[positions].astype(np.int64)
    known = items >= 0
    rows, items, times = rows[known], items[known], sequences.times_us[positions[known]]
    pairs, inverse = np.unique(np.stack([rows, items], axis=1), axis=0, return_inverse=True)
    halves = (now_us - times) / (half_life_days * DAY_US)
    worth = np.bincount(inverse.ravel(), weights=np.exp2(-halves), minlength=len(pairs))
    cuts = np.searchsorted(pairs[:, 0], np.arange(1, len(asked)))
    if not len(asked):
        return Questions(asked, (), ())
    return Questions(asked, tuple(np.split(pairs[:, 1], cuts)), tuple(np.split(worth, cuts)))


def truths(questions: Questions) -> dict[str, Bools]:
    """Say which targets count, [N, T] by ``all`` and ``new``."""
    every = questions.asked.weights > 0
    own = [np.isin(wanted, had) for wanted, had in zip(questions.asked.targets, questions.had, strict=True)]
    return {"all": every, "new": every & ~np.array(own, dtype=bool).reshape(every.shape)}


def judge(questions: Questions, lists: Lists, ks: tuple[int, ...] = KS) -> dict[str, float]:
    """Measure lists: HitRate (a list holds any of the truth) and NDCG, over questions that have a truth.

    HitRate is that of arXiv 1904.08030, section 5.1, with a day's basket in place of one item. NDCG is over the best
    that a list of k could reach. A k that is longer than the lists is left out; without a truth there is no figure.
    """
    measured = {}
    for kind, counts in truths(questions).items():
        some = counts.any(axis=1)
        if not some.any():
            continue
        found, wanted = lists[kind][some], np.where(counts, questions.asked.targets, NO_ITEM - 1)[some]
        hits = np.zeros(found.shape, dtype=bool)
        for place in range(wanted.shape[1]):
            hits |= found == wanted[:, place, None]
        gains = 1 / np.log2(2.0 + np.arange(found.shape[1]))
        for k in (one for one in ks if one <= found.shape[1]):
            ideal = np.cumsum(gains)[np.minimum(counts[some].sum(axis=1), k) - 1]
            measured[f"{kind}.hr@{k}"] = float(hits[:, :k].any(axis=1).mean())
            measured[f"{kind}.ndcg@{k}"] = float(((hits[:, :k] * gains[:k]).sum(axis=1) / ideal).mean())
    return measured


def without_had(questions: Questions, lists: Ints) -> Ints:
    """Take out of lists what the users had before, and close the gaps."""
    own = np.array([np.isin(found, had) for found, had in zip(lists, questions.had, strict=True)], dtype=bool)
    kept = np.where(own.reshape(lists.shape), NO_ITEM, lists)
    order = np.argsort(kept == NO_ITEM, axis=1, kind="stable")
    return np.take_along_axis(kept, order, axis=1)


def popular_order(sequences: Sequences, window: Window) -> Ints:
    """Order the eligible items by their events in the *window*, the most first; ties by the lower row."""
    inside = (sequences.times_us >= window.start_us) & (sequences.times_us < window.end_us) & (sequences.items >= 0)
    counts = np.bincount(sequences.items[inside], minlength=len(sequences.catalogue))
    order = np.argsort(-counts, kind="stable")
    eligible: Bools = sequences.catalogue["eligible"].to_numpy()
    return order[eligible[order]]


def popular_lists(questions: Questions, order: Ints, k: int = max(KS)) -> Lists:
    """Recommend the same items to everybody, but for what they had."""
    same = np.tile(_cut(order, k), (len(questions), 1))
    return {"all": same, "new": _stacked((_cut(order, k, had) for had in questions.had), k)}


def own_lists(questions: Questions, order: Ints, k: int = max(KS)) -> Lists:
    """Recommend the user's own eligible items by recent frequency, then what is popular."""
    eligible = np.zeros(1 + max((int(rows.max(initial=0)) for rows in (order, *questions.had)), default=0), dtype=bool)
    eligible[order] = True

    def lists() -> Iterator[Ints]:
        for had, worth in zip(questions.had, questions.worth, strict=True):
            own = had[np.argsort(-worth, kind="stable")]
            own = own[eligible[own]]
            yield _cut(np.concatenate([own, _cut(order, k, own)]), k)

    return {"all": _stacked(lists(), k), "new": popular_lists(questions, order, k)["new"]}


def _stacked(lists: Iterator[Ints], k: int) -> Ints:
    return np.array(list(lists), dtype=np.int64).reshape(-1, k)


def _cut(order: Ints, k: int, without: Ints | None = None) -> Ints:
    """Take the first *k* of *order* but for some; -1 where there are no more."""
    if without is not None:
        order = order[: k + len(without)]
        order = order[~np.isin(order, without)]
    return np.concatenate([order[:k], np.full(max(0, k - len(order)), NO_ITEM)])
