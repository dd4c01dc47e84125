"""What becomes of those of whom nothing is known: users without a history, items that nobody has had yet."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from benchmarks.quality import floors
from benchmarks.quality.protocol import Part, Scorer, judge, lists_of
from models.events import day_starts, users_of
from models.examples import Examples
from models.fit import event_counts

LIST = 50
Bools = npt.NDArray[np.bool_]


def newcomers(part: Part) -> Part:
    """Ask those who did something for the first time in the part, on that day, and nobody else.

    The part is one that asks through the last day there is. What they did on the day is the truth, whole.
    """
    sequences = part.sequences
    owners, times = users_of(sequences), sequences.times_us
    first = np.full(len(sequences.user_ids), np.iinfo(np.int64).max)
    first[owners] = times[sequences.starts[owners]]
    events = np.flatnonzero((first[owners] >= part.cut_us) & (sequences.items >= 0))
    midnights = day_starts(times[events], part.zone)
    day = np.searchsorted(midnights, times[events], side="right") - 1
    began = np.searchsorted(midnights, first[owners[events]], side="right") - 1
    events, day = events[day == began], day[day == began]
    users, question = np.unique(owners[events], return_inverse=True)
    pairs = np.unique(np.stack([question, sequences.items[events]], axis=1), axis=0)
    now_us = np.zeros(len(users), np.int64)
    now_us[question] = midnights[day]
    place = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0], side="left")
    targets = np.zeros((len(users), int(place.max(initial=-1)) + 1), np.int64)
    weights = np.zeros(targets.shape, np.float32)
    targets[pairs[:, 0], place], weights[pairs[:, 0], place] = pairs[:, 1], 1
    return replace(part, questions=Examples(users, now_us, sequences.starts[users], targets, weights))


def by_chance(true: npt.NDArray[np.int64], items: int, k: int = LIST) -> float:
    """Give the HitRate of lists of *k* that are drawn: ``1 - C(items - t, k) / C(items, k)``, mean over questions.

    Args:
        true: How many items of each question are true, t, [N].
        items: How many there are to draw from.
        k: Length of the lists.
    """
    places = np.arange(min(k, items))
    missed = np.maximum(items - true[:, None] - places, 0) / (items - places)
    return float((1 - missed.prod(axis=1)).mean())


def of_users(part: Part, popular_days: int) -> dict[str, dict[str, float]]:
    """Give newcomers what is popular, as a night's fallback does; beside lists of chance."""
    asked = newcomers(part)
    if not len(asked.questions):
        return {}
    judged = judge(asked, lists_of(asked, floors.popular(asked, popular_days)))
    counts = (asked.questions.weights > 0).sum(axis=1)
    items = int(part.sequences.catalogue["eligible"].to_numpy().sum())
    share = len(asked.questions) / (len(asked.questions) + len(part.questions))
    return {
        "new users, what is popular": {"share": share, "hr@50": judged["all.hr@50"]},
        "new users, by chance": {"share": share, "hr@50": by_chance(counts, items)},
    }


def of_items(part: Part, score: Scorer) -> dict[str, float]:
    """Compare items without an event before the cut with each other: which of them did the users take?

    Args:
        part: Its questions are asked.
        score: Of the whole catalogue, without popularity, which such items have none of.

    Returns:
        ``share``: of the truth, such items. ``above``: of the others of them, the share that scores less than one that
        came true, ties half; 0.5 is chance. Nothing where no such item came true.
    """
    never = event_counts(part.sequences, part.split) == 0
    never &= part.sequences.catalogue["eligible"].to_numpy()
    wanted = part.questions.weights > 0
    cold = wanted & never[part.questions.targets]
    rows = np.flatnonzero(cold.any(axis=1))
    if not len(rows):
        return {}
    scores = np.asarray(score(part.questions.take(rows)))[:, never]
    number = np.cumsum(never) - 1
    above = []
    for own, row in zip(scores, rows, strict=True):
        above += [share_below(own, own[number[target]]) for target in part.questions.targets[row][cold[row]]]
    return {"share": float(cold.sum() / wanted.sum()), "above": float(np.mean(above))}


def share_below(scores: npt.NDArray[np.floating], one: float) -> float:
    """Give the share of the other *scores* that are less than *one* of them; equal ones count half."""
    others = len(scores) - 1
    if not others:
        return 0.5
    return float(((scores < one).sum() + ((scores == one).sum() - 1) / 2) / others)
