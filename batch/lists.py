"""From interests to lists: retrieve, rank, apply the shop's rules, fill up; for the step and for who asks why."""

from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import pyarrow as pa

from artifacts.bundle import Bundle
from artifacts.errors import InputError, UsageError
from artifacts.run import Run, seen_within
from artifacts.tables import read_table
from batch.indexed import open_index, recent_events
from batch.merge import Candidates, Lists, require_packable
from batch.retrieve import Index, retrieve, seen_lists
from batch.rules import Rule, choose, fill, order_by_score
from batch.session import Session
from features.cross import cross_features, match_seen
from features.encode import NO_ITEM, item_features, list_parts, take_items

POOL_LISTS = 20  # how many lists' worth of popular items are tried for a list that stays short


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """What a night's lists depend on besides models, index and users.

    Attributes:
        candidates: C, how many items of a user are ranked.
        overfetch: How many times as many neighbours of each interest are looked at first.
        exclude_seen: ``"all"``: nothing the user ever had; ``"days"``: nothing they had in the last ``exclude_days``;
            ``"none"``: people buy again.
        exclude_days: For ``"days"``.
        top_n: The length of a list.
        rules: The shop's rules; they hold for the whole list, fallback rows included.
    """

    candidates: int = 100
    overfetch: float = 2.0
    exclude_seen: str = "all"
    exclude_days: int = 30
    top_n: int = 50
    rules: tuple[Rule, ...] = ()

    @property
    def fetch(self) -> int:
        """How many neighbours of each interest are looked at first."""
        return ceil(self.candidates * self.overfetch)

    @property
    def seen_within(self) -> int | None:
        """Seconds for :func:`batch.retrieve.seen_lists`; negative for ``"none"``."""
        return seen_within(self.exclude_seen, self.exclude_days)


@dataclass(frozen=True, slots=True)
class Shop:
    """What is loaded once for a group of shards; all arrays but ``index_rows`` go by index row."""

    options: ScoreOptions
    index: Index
    item_ids: pa.Array
    index_rows: np.ndarray
    features: dict[str, np.ndarray]
    groups: list[np.ndarray]
    events: np.ndarray
    pool: np.ndarray


@dataclass(frozen=True, slots=True)
class Part:
    """Some users, at most a batch: their rows of the three tables."""

    interests: pa.RecordBatch
    seen: pa.RecordBatch
    inputs: dict[str, np.ndarray]  # the ranker's that need no candidates


@dataclass(frozen=True, slots=True)
class Ranked:
    """Rows of some users' lists, by user, then rank."""

    user_ids: pa.Array
    users: np.ndarray
    rows: np.ndarray
    fallback: np.ndarray
    scores: np.ndarray
    retrieval_scores: np.ndarray
    interests: np.ndarray


@dataclass(frozen=True, slots=True)
class Ordered:
    """The candidates of some users by score, before and after the shop's rules.

    Attributes:
        found: As they were retrieved, in the order of retrieval.
        seen: What each user must not get.
        rows: int64 [users, C], index rows, best score first; ``NO_ITEM`` where there are fewer.
        scores: float32 [users, C], aligned with *rows*, as the next two are.
        retrieval_scores: float32 [users, C].
        interests: uint8 [users, C].
        kept: bool [users, C], which of them the list holds.
    """

    found: Candidates
    seen: Lists
    rows: np.ndarray
    scores: np.ndarray
    retrieval_scores: np.ndarray
    interests: np.ndarray
    kept: np.ndarray


def require_options(options: ScoreOptions) -> None:
    """Refuse options that cannot be.

    Raises:
        UsageError: Naming the key, what was expected and what was found.
    """
    for name, value, least, most in (
        ("[retrieve] candidates", options.candidates, 1, 65_535),
        ("[retrieve] overfetch", options.overfetch, 1, 100),
        ("[retrieve] exclude_days", options.exclude_days, 1, 36_525),
        ("[score] top_n", options.top_n, 1, 65_535),
        *((f"[score] rules, at_most of {rule.group}", rule.at_most, 1, 65_535) for rule in options.rules),
    ):
        if not least <= value <= most:
            raise UsageError(f"{name}: expected {least} to {most}, found {value}")
    if options.exclude_seen not in {"all", "days", "none"}:
        raise UsageError(f"[retrieve] exclude_seen: expected all, days or none, found {options.exclude_seen!r}")


def open_shop(run: Run, options: ScoreOptions, ranker: Bundle | None, device: str) -> Shop:
    """Load what all users share: catalogue, index and popular items of *run*.

    Raises:
        StaleRunError: If an earlier step is not finished.
        CorruptError: If a file is changed, or files do not belong together.
        UsageError: If a rule names a group that the catalogue does not have.
    """
    catalogue = read_table(run.layout.catalogue).combine_chunks()
    item_ids = catalogue["item_id"].combine_chunks()
    index = replace(open_index(run, item_ids, device=device), threads=1)  # batches run side by side already
    index_rows = np.full(len(item_ids), NO_ITEM, dtype=np.int64)
    index_rows[index.items] = np.arange(len(index.items))
    events = recent_events(run, len(item_ids))[index.items]
    features = item_features(catalogue, ranker.spec) if ranker else {}
    return Shop(
        options=options,
        index=index,
        item_ids=item_ids,
        index_rows=index_rows,
        features={name: rows[index.items] for name, rows in features.items()},
        groups=[_group(run, catalogue, rule)[index.items] for rule in options.rules],
        events=events,
        pool=np.argsort(-events, kind="stable")[: POOL_LISTS * options.top_n],
    )


def _group(run: Run, catalogue: pa.Table, rule: Rule) -> np.ndarray:
    name = f"group_{rule.group}"
    if name not in catalogue.column_names:
        known = ", ".join(n.removeprefix("group_") for n in catalogue.column_names if n.startswith("group_")) or "none"
        raise UsageError(f"{run.layout.catalogue}: [score] rules name the group {rule.group!r}; it has {known}")
    return np.asarray(catalogue[name].to_numpy())


def order_candidates(shop: Shop, session: Session | None, part: Part) -> Ordered:
    """Retrieve the candidates of a batch of users, rank them, and keep what no rule forbids.

    Raises:
        InputError: If a score is NaN or Inf; the message names the user.
    """
    options = shop.options
    lengths, lists = list_parts(part.interests.column("vectors"))
    queries = shop.index.queries(lists.flatten().to_numpy().reshape(len(lists), lists.type.list_size))
    require_packable(len(shop.index.items), int(lengths.max(initial=1)))
    seen = seen_lists(part.seen, shop.index_rows, within=options.seen_within)
    found = retrieve(shop.index, queries, lengths, seen, limit=options.candidates, fetch=options.fetch)
    _require_finite(part, "retrieval_score", found.scores, found.rows)
    columns = [found.rows, found.scores, found.scores, found.interests]  # in order already, if nothing ranks them
    if session:
        columns[1] = _ranker_scores(shop, session, part, found)
        order = order_by_score(found.rows, columns[1])
        columns = [np.take_along_axis(column, order, axis=1) for column in columns]
    rows, scores, retrieval_scores, interests = columns
    kept = _choose(shop, rows, rows != NO_ITEM)
    return Ordered(found, seen, rows, scores, retrieval_scores, interests, kept)


def make_lists(shop: Shop, session: Session | None, part: Part) -> tuple[Ranked, dict[str, int]]:
    """Make the lists of a batch of users, and count.

    Raises:
        InputError: If a score is NaN or Inf; the message names the user.
    """
    options, users = shop.options, part.interests.num_rows
    ordered = order_candidates(shop, session, part)
    owners, places = np.nonzero(ordered.kept)
    fill_owners, fill_rows = fill_up(shop, ordered)
    fallback = np.repeat([False, True], [len(owners), len(fill_owners)])
    by_user = np.argsort(np.concatenate([owners, fill_owners]), kind="stable")  # ranked rows stay first

    def column(array: np.ndarray, rest: np.ndarray | None = None) -> np.ndarray:
        rest = np.zeros(len(fill_owners), array.dtype) if rest is None else rest
        return np.concatenate([array[owners, places], rest])[by_user]

    ranked = Ranked(
        part.interests.column("user_id"),
        np.concatenate([owners, fill_owners])[by_user],
        column(ordered.rows, fill_rows),
        fallback[by_user],
        column(ordered.scores),
        column(ordered.retrieval_scores),
        column(ordered.interests),
    )
    lists_made = np.bincount(ranked.users, minlength=users)
    warm = list_parts(part.interests.column("vectors"))[0] > 0
    return ranked, {
        "users": users,
        "cold": int((~warm).sum()),
        "ranked_rows": len(owners),
        "fallback_rows": len(fill_owners),
        "short_lists": int((((ordered.rows != NO_ITEM).sum(axis=1) < options.candidates) & warm).sum()),
        "seen_dropped": int(ordered.found.dropped.sum()),
        "unfilled": int((lists_made < options.top_n).sum()),
    }


def _ranker_scores(shop: Shop, session: Session, part: Part, found: Candidates) -> np.ndarray:
    if (found.rows == NO_ITEM).all():  # all cold
        return found.scores
    scores = session.run(_ranker_inputs(shop, session, part, found))["score"][: len(found.rows)]
    if scores.shape != found.rows.shape:
        raise InputError(
            f"{session.bundle.layout.graph}, output score: expected the shape {list(found.rows.shape)}, "
            f"found {list(scores.shape)}; export it anew"
        )
    _require_finite(part, "score", scores, found.rows)
    return scores


def _ranker_inputs(shop: Shop, session: Session, part: Part, found: Candidates) -> dict[str, np.ndarray]:
    """Complete the inputs of a batch; where there is no candidate, features are padding and its score is ignored."""
    spec, rows = session.bundle.spec, found.rows
    candidates = {f"candidate_{name}": array for name, array in take_items(shop.features, rows).items()}
    inputs = {**part.inputs, **candidates}
    if spec.cross_features:
        there = rows != NO_ITEM
        items = np.where(there, shop.index.items[rows], NO_ITEM)
        times_had, last_gap = match_seen(items, *(part.seen.column(name) for name in ("items", "times", "last_gap")))
        inputs["cross"] = cross_features(
            spec,
            retrieval_score=np.where(there, found.scores, np.float32(0)),
            times_had=times_had,
            last_gap_seconds=last_gap,
            popularity_events=np.where(there, shop.events[rows], 0),
        )
    return inputs


def _choose(shop: Shop, rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    groups = [numbers[rows] for numbers in shop.groups]  # what stands at NO_ITEM is not wanted
    return choose(wanted, groups, [rule.at_most for rule in shop.options.rules], limit=shop.options.top_n)


def fill_up(shop: Shop, ordered: Ordered) -> tuple[np.ndarray, np.ndarray]:
    """Give the fallback rows of all lists that are short, as user and index row, in order."""
    top_n, seen = shop.options.top_n, ordered.seen
    chosen = np.where(ordered.kept, ordered.rows, NO_ITEM)
    short = np.flatnonzero((chosen != NO_ITEM).sum(axis=1) < top_n)
    owners, rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    reach = 2 * top_n
    while len(short):
        asked = np.isin(np.arange(len(chosen)), short)
        lined, wanted = fill(chosen[short], shop.pool[:reach], seen.of(asked))
        kept = _choose(shop, lined, wanted)
        full = (kept.sum(axis=1) == top_n) | (reach >= len(shop.pool))
        kept[:, : chosen.shape[1]] = False
        users, places = np.nonzero(kept & full[:, None])
        owners.append(short[users])
        rows.append(lined[users, places])
        short, reach = short[~full], 2 * reach
    return np.concatenate(owners), np.concatenate(rows)


def _require_finite(part: Part, name: str, scores: np.ndarray, rows: np.ndarray) -> None:
    bad = ((rows != NO_ITEM) & ~np.isfinite(scores)).any(axis=1)
    if bad.any():
        user = part.interests.column("user_id")[int(bad.argmax())].as_py()
        raise InputError(f"user_id {user!r}: {name} is NaN or Inf; the model cannot be used for this user")
