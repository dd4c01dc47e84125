"""The step ``score``: each user's interests to a list of items - retrieve, rank, apply the shop's rules, fill up."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from artifacts import schemas
from artifacts.bundle import Bundle, Role
from artifacts.digest import document_digest
from artifacts.errors import CorruptError, InputError, StaleRunError, UsageError
from artifacts.run import Run, StepResult, seen_within
from artifacts.tables import TableWriter, read_table, reading_table, writing_table
from batch.overlap import reading_ahead, working_side_by_side, writing_behind
from batch.profile import require_profile
from batch.retrieve import (
    Candidates,
    Index,
    Lists,
    open_index,
    require_packable,
    require_searchable,
    retrieve,
    seen_lists,
)
from batch.rules import Rule, choose, fill, order_by_score
from batch.session import Session, open_session
from batch.shards import Task, do_shards, inputs_digest, nothing, require_bundle
from features.cross import cross_features, match_seen
from features.encode import NO_ITEM, item_features, list_parts, take_items, user_inputs

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
class _Shop:
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
class _Part:
    """Some users, at most a batch: their rows of the three tables."""

    interests: pa.RecordBatch
    seen: pa.RecordBatch
    inputs: dict[str, np.ndarray]  # the ranker's that need no candidates


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Rows of some users' lists, by user, then rank."""

    user_ids: pa.Array
    users: np.ndarray
    rows: np.ndarray
    fallback: np.ndarray
    scores: np.ndarray
    retrieval_scores: np.ndarray
    interests: np.ndarray


def score(
    run: Run,
    ranker: Bundle | None,
    shards: Sequence[int],
    options: ScoreOptions,
    *,
    device: str = "cpu",
    threads: int = 0,
    advance: Callable[[int], None] = nothing,
) -> StepResult:
    """Make the lists of all users of some shards; a shard file in, a shard file out.

    Args:
        run: Its steps ``index`` and ``interests`` (of these shards) are done.
        ranker: The ranker bundle, verified; without one the retrieval score is the score.
        shards: Numbers out of ``range(run.shards)``.
        options: What the lists depend on.
        device: ``cpu``, ``gpu`` or ``auto``; must be what the run was prepared for.
        threads: Batches searched and ranked side by side; 0 takes all cores. The bytes don't depend on it.
        advance: Told how many users were done, from time to time.

    Returns:
        Counts: ``users``; ``cold`` users; ``ranked_rows`` and ``fallback_rows``; ``short_lists``, users who are not
        cold and have fewer than C candidates; ``seen_dropped``, items found and left out since the user had them;
        ``unfilled``, users with fewer than ``top_n`` rows.

    Raises:
        UsageError: If an option cannot be.
        StaleRunError: If the run belongs to another bundle or profile, or an earlier step is not finished.
        CorruptError: If a file is changed, or the tables of a shard are not of the same users.
        InputError: If a score is NaN or Inf; the message names the user.
    """
    chosen = require_profile(run, device=device)
    _require_options(options)
    require_searchable(chosen.name, k=options.fetch)
    if ranker is not None:
        require_bundle(run, ranker)
    elif str(Role.RANKER) in run.bundles:
        raise StaleRunError(
            f"{run.folder}: prepared for a ranker, but none is given; run `nightrec prepare` without it"
        )
    layout, index, bundles = run.layout, run.layout.index, [ranker] if ranker else []
    items = [layout.items(shard, run.item_shards) for shard in range(run.item_shards)]
    common = [layout.catalogue, layout.popular, index.ivf, index.items, *items]
    digest = document_digest(asdict(options))

    def start() -> Callable[[Task, ExitStack], Mapping[str, int]]:
        shop = _open_shop(run, options, ranker, chosen.name)
        session = None
        if ranker is not None:
            session = open_session(ranker, rows=run.profile["batch_lists"], device=chosen.name, threads=threads)
        workers = session.workers if session else 1 if chosen.name == "gpu" else threads or len(os.sched_getaffinity(0))
        return partial(_one_shard, run, shop, session, workers, advance)

    return do_shards(
        "score",
        shards,
        output=lambda shard: layout.scores(shard, run.shards),
        inputs=lambda shard: inputs_digest(run, bundles, [*common, *_tables(run, ranker, shard)], options=digest),
        start=start,
    )


def _require_options(options: ScoreOptions) -> None:
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


def _tables(run: Run, ranker: Bundle | None, shard: int) -> list[Path]:
    layout = run.layout
    tables = [layout.interests(shard, run.shards), layout.seen(shard, run.shards)]
    return [*tables, layout.histories(shard, run.shards)] if ranker else tables


def _open_shop(run: Run, options: ScoreOptions, ranker: Bundle | None, device: str) -> _Shop:
    catalogue = read_table(run.layout.catalogue).combine_chunks()
    item_ids = catalogue["item_id"].combine_chunks()
    index = replace(open_index(run, item_ids, device=device), threads=1)  # batches run side by side already
    index_rows = np.full(len(item_ids), NO_ITEM, dtype=np.int64)
    index_rows[index.items] = np.arange(len(index.items))
    popular = read_table(run.layout.popular)
    events = np.zeros(len(item_ids), dtype=np.int64)
    events[popular["item"].to_numpy()] = popular["events"].to_numpy()
    events = events[index.items]
    features = item_features(catalogue, ranker.spec) if ranker else {}
    return _Shop(
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


def _one_shard(
    run: Run,
    shop: _Shop,
    session: Session | None,
    workers: int,
    advance: Callable[[int], None],
    task: Task,
    finishing: ExitStack,
) -> Mapping[str, int]:
    tables = _tables(run, session.bundle if session else None, task.shard)
    schema = schemas.scores(run.user_type, run.item_type)
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        readers = [stack.enter_context(reading_table(path)) for path in tables]
        writing = writing_table(task.path, schema, metadata=run.metadata(), inputs=task.inputs)
        writer = finishing.enter_context(writing)
        source = _parts(tables, readers, session, run.profile["batch_lists"])
        parts = stack.enter_context(reading_ahead(source))
        write = stack.enter_context(writing_behind(partial(_write, writer, schema, shop)))
        work = working_side_by_side(partial(_rank, shop, session), parts, workers=workers)
        for ranked, counted in stack.enter_context(work):
            write(ranked)
            counts.update(counted)
            advance(counted["users"])
    return {"rows": writer.rows, **counts}


def _parts(
    paths: Sequence[Path], readers: Sequence[pa.RecordBatchFileReader], session: Session | None, rows: int
) -> Iterator[_Part]:
    for batches in _aligned(paths, readers):
        for start in range(0, batches[0].num_rows, rows):
            cut = [batch.slice(start, rows) for batch in batches]
            inputs = user_inputs(cut[2], session.bundle.spec, Role.RANKER, session.rows) if session else {}
            yield _Part(cut[0], cut[1], dict(inputs))


def _aligned(paths: Sequence[Path], readers: Sequence[pa.RecordBatchFileReader]) -> Iterator[list[pa.RecordBatch]]:
    """Read tables of one shard side by side: the same users in the same order, or an error."""
    sizes = [reader.num_record_batches for reader in readers]
    for number in range(max(sizes)):
        batches = [reader.get_batch(number) for reader, size in zip(readers, sizes, strict=True) if number < size]
        for path, batch in zip(paths, batches, strict=False):
            if len(batches) < len(paths) or not batch.column("user_id").equals(batches[0].column("user_id")):
                raise CorruptError(f"{path}: expected the users of {paths[0]}, in its order; run `prepare` anew")
        yield batches


def _rank(shop: _Shop, session: Session | None, part: _Part) -> tuple[_Ranked, dict[str, int]]:
    options, users = shop.options, part.interests.num_rows
    lengths, lists = list_parts(part.interests.column("vectors"))
    vectors = lists.flatten().to_numpy().reshape(len(lists), shop.index.vectors.shape[1])
    require_packable(len(shop.index.items), int(lengths.max(initial=1)))
    seen = seen_lists(part.seen, shop.index_rows, within=options.seen_within)
    found = retrieve(shop.index, vectors, lengths, seen, limit=options.candidates, fetch=options.fetch)
    _require_finite(part, "retrieval_score", found.scores, found.rows)
    scores = _ranker_scores(shop, session, part, found) if session else found.scores
    order = order_by_score(found.rows, scores)
    rows, scores, retrieval_scores, interests = (
        np.take_along_axis(array, order, axis=1) for array in (found.rows, scores, found.scores, found.interests)
    )
    kept = _choose(shop, rows, rows != NO_ITEM)
    owners, places = np.nonzero(kept)
    fill_owners, fill_rows = _fill(shop, np.where(kept, rows, NO_ITEM), seen)
    fallback = np.repeat([False, True], [len(owners), len(fill_owners)])
    by_user = np.argsort(np.concatenate([owners, fill_owners]), kind="stable")  # ranked rows stay first

    def column(array: np.ndarray, rest: np.ndarray | None = None) -> np.ndarray:
        rest = np.zeros(len(fill_owners), array.dtype) if rest is None else rest
        return np.concatenate([array[owners, places], rest])[by_user]

    ranked = _Ranked(
        part.interests.column("user_id"),
        np.concatenate([owners, fill_owners])[by_user],
        column(rows, fill_rows),
        fallback[by_user],
        column(scores),
        column(retrieval_scores),
        column(interests),
    )
    lists_made = np.bincount(ranked.users, minlength=users)
    return ranked, {
        "users": users,
        "cold": int((lengths == 0).sum()),
        "ranked_rows": len(owners),
        "fallback_rows": len(fill_owners),
        "short_lists": int((((rows != NO_ITEM).sum(axis=1) < options.candidates) & (lengths > 0)).sum()),
        "seen_dropped": int(found.dropped.sum()),
        "unfilled": int((lists_made < options.top_n).sum()),
    }


def _ranker_scores(shop: _Shop, session: Session, part: _Part, found: Candidates) -> np.ndarray:
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


def _ranker_inputs(shop: _Shop, session: Session, part: _Part, found: Candidates) -> dict[str, np.ndarray]:
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


def _choose(shop: _Shop, rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    groups = [numbers[rows] for numbers in shop.groups]  # what stands at NO_ITEM is not wanted
    return choose(wanted, groups, [rule.at_most for rule in shop.options.rules], limit=shop.options.top_n)


def _fill(shop: _Shop, chosen: np.ndarray, seen: Lists) -> tuple[np.ndarray, np.ndarray]:
    """Give the fallback rows of all lists that are short, as user and index row, in order."""
    top_n = shop.options.top_n
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


def _require_finite(part: _Part, name: str, scores: np.ndarray, rows: np.ndarray) -> None:
    bad = ((rows != NO_ITEM) & ~np.isfinite(scores)).any(axis=1)
    if bad.any():
        user = part.interests.column("user_id")[int(bad.argmax())].as_py()
        raise InputError(f"user_id {user!r}: {name} is NaN or Inf; the model cannot be used for this user")


def _write(writer: TableWriter, schema: pa.Schema, shop: _Shop, ranked: _Ranked) -> None:
    starts = np.searchsorted(ranked.users, ranked.users)
    ranks = np.arange(len(ranked.users)) - starts + 1
    values: list[Any] = [
        ranked.user_ids.take(pa.array(ranked.users)),
        shop.item_ids.take(pa.array(shop.index.items[ranked.rows])),
        pa.array(ranks.astype(np.uint16)),
        pa.array(np.where(ranked.fallback, schemas.SOURCE_FALLBACK, schemas.SOURCE_RANKED).astype(np.uint8)),
        *(
            pa.array(array, mask=ranked.fallback)
            for array in (ranked.scores, ranked.retrieval_scores, ranked.interests)
        ),
    ]
    writer.write(pa.RecordBatch.from_arrays(values, schema=schema))
