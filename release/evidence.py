"""What the report reads of the tables of a night: whole for items, a chance part of the users, in bounded memory.

Users are dealt to shards by a hash, so that whole shards are a chance part of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from artifacts.release import verify_content_file
from artifacts.run import Run, replay_of
from artifacts.schemas import SOURCE_RANKED
from artifacts.tables import opening_arrow, sidecar_within, verify_file
from release.content import batches_of
from release.figures import PROBABILITY_EDGES, PRODUCT_EDGES
from release.measure import Counts, bins_of
from release.pointer import Release

SAMPLE_ROWS = 2_000_000  # recommendations that are looked at
RANKS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500, 1000)
QUANTILES = (0.1, 0.5, 0.9)
_LEAST_AT_RANK = 20  # scores that quantiles are taken of
_INTERESTS = 256  # more than a uint8 tells apart


@dataclass(frozen=True, slots=True)
class Sampled:
    """Verified tables that are looked at, every ``step``-th record batch of them.

    Attributes:
        paths: The tables.
        step: 1 is every batch.
        rows: Of all tables, those that are not looked at too.
        shards: How many tables there are.
    """

    paths: tuple[Path, ...]
    step: int
    rows: int
    shards: int

    def words(self) -> str:
        """Say what was looked at."""
        if self.step == 1 and len(self.paths) == self.shards:
            return f"all {self.rows:,} recommendations"
        every = f", every {self.step}-th batch" if self.step > 1 else ""
        return f"{len(self.paths)} of {self.shards} shards{every}; users are dealt to shards by a hash"

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Give some columns of what is looked at."""
        for path in self.paths:
            with opening_arrow(path, columns=columns) as reader:
                for number in range(0, reader.num_record_batches, self.step):
                    yield reader.get_batch(number)


def scores_of_run(run: Run) -> Sampled:
    """Choose what is looked at of the recommendations of *run*, and verify it.

    Raises:
        StaleRunError, CorruptError: If a table is not finished, missing or changed.
    """
    paths = [run.layout.scores(shard, run.shards) for shard in range(run.shards)]
    chosen = _choose(paths, [sidecar_within(path, run.run_key).rows for path in paths])
    for path in chosen.paths:
        verify_file(path)
    return chosen


def scores_of_release(release: Release) -> Sampled:
    """Choose what is looked at of the recommendations of *release*, and verify it.

    Raises:
        CorruptError: If a table is missing or changed.
    """
    layout, manifest = release.layout, release.manifest
    names = [name for name in sorted(manifest.files) if (layout.folder / name).parent == layout.scores]
    chosen = _choose([layout.folder / name for name in names], [manifest.files[name].rows for name in names])
    for name in names[: len(chosen.paths)]:
        verify_content_file(layout, manifest, name)
    return chosen


def _choose(paths: Sequence[Path], rows: Sequence[int]) -> Sampled:
    """Take the first tables, until they have enough rows; of too large ones every so-many-th batch is enough."""
    taken = 0
    while taken < len(paths) and (taken == 0 or sum(rows[:taken]) < SAMPLE_ROWS):
        taken += 1
    step = max(1, sum(rows[:taken]) // SAMPLE_ROWS)
    return Sampled(tuple(paths[:taken]), step, sum(rows), len(paths))


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Tonight's items, by catalogue row.

    Attributes:
        ids: Ascending.
        eligible: Whether each may be recommended.
        events: Of each in the last days.
    """

    ids: pa.Array
    eligible: npt.NDArray[np.bool_]
    events: Counts


def read_catalogue(run: Run) -> Catalogue:
    """Read the items of *run*, and how popular they are.

    Raises:
        StaleRunError, CorruptError: If a table is not finished, missing or changed.
    """
    layout = run.layout
    for path in (layout.catalogue, layout.popular):
        verify_file(path)
    with opening_arrow(layout.catalogue, columns=["item_id", "eligible"]) as reader:
        items = reader.read_all().combine_chunks()
    events = np.zeros(len(items), np.int64)
    for batch in batches_of([layout.popular], ["item", "events"]):
        events[batch.column("item").to_numpy()] = batch.column("events").to_numpy()
    return Catalogue(items["item_id"].combine_chunks(), items["eligible"].to_numpy(), events)


def titles_of(run: Run, rows: Sequence[int], columns: Sequence[str] = ()) -> dict[int, dict[str, object]]:
    """Give ``title`` (the id where there is none), ``item_id`` and other *columns* of some catalogue *rows*.

    The catalogue must be verified; the batches that the rows lie in are read one after the other.
    """
    wanted = sorted(set(rows))
    found: dict[int, dict[str, object]] = {}
    start = 0
    for batch in batches_of([run.layout.catalogue], ["item_id", "title", *columns]):
        mine = [row for row in wanted if start <= row < start + batch.num_rows]
        told = batch.take(pa.array([row - start for row in mine], pa.int64())).to_pylist()
        for row, said in zip(mine, told, strict=True):
            found[row] = {**said, "title": said["title"] or f"item {said['item_id']}"}
        start += batch.num_rows
    return found


def rows_of(ids: pa.Array, wanted: pa.Array) -> npt.NDArray[np.int64]:
    """Give the catalogue row of each *wanted* id; -1 where tonight's catalogue does not have it."""
    if wanted.type != ids.type:
        return np.full(len(wanted), -1)
    codes = pc.dictionary_encode(wanted)
    places = pc.fill_null(pc.index_in(codes.dictionary, value_set=ids), -1).to_numpy()
    return np.asarray(places[codes.indices.to_numpy()], np.int64)


@dataclass(frozen=True, slots=True)
class Lists:
    """What was counted in the recommendations that were looked at.

    Attributes:
        sampled: Which.
        rows: Of them.
        fallback: Rows that no model ranked.
        by_interest: Ranked rows by the interest that found them.
        edges: Ascending edges of the score bins.
        bins: Ranked rows by score; there is one bin more than edges.
        by_rank: Rank to the ``QUANTILES`` of the scores that stand there.
        exposure: Rows of each catalogue row; those of items that are not in the catalogue are in no count.
    """

    sampled: Sampled
    rows: int
    fallback: int
    by_interest: Counts
    edges: npt.NDArray[np.float64]
    bins: Counts
    by_rank: dict[int, tuple[float, ...]]
    exposure: Counts


def measure_lists(sampled: Sampled, ids: pa.Array, *, ranked: bool) -> Lists:
    """Count the recommendations of *sampled* by item, interest, rank and score.

    Args:
        sampled: What is looked at.
        ids: Of tonight's catalogue.
        ranked: Whether scores are a ranker's probabilities; else they are inner products.
    """
    edges = PROBABILITY_EDGES if ranked else PRODUCT_EDGES
    by_interest, bins = np.zeros(_INTERESTS, np.int64), np.zeros(len(edges) + 1, np.int64)
    shown: list[pa.StructArray] = []
    at_rank: dict[int, list[npt.NDArray[np.float32]]] = {rank: [] for rank in RANKS}
    rows = fallback = 0
    for batch in sampled.batches(["item_id", "rank", "source", "score", "interest"]):
        rows += batch.num_rows
        shown.append(pc.value_counts(batch.column("item_id")))
        mine = batch.filter(pc.equal(batch.column("source"), SOURCE_RANKED))
        fallback += batch.num_rows - mine.num_rows
        scores, ranks = mine.column("score").to_numpy(zero_copy_only=False), mine.column("rank").to_numpy()
        by_interest += np.bincount(mine.column("interest").to_numpy(zero_copy_only=False), minlength=_INTERESTS)
        bins += bins_of(scores, edges)
        for rank, found in at_rank.items():
            found.append(scores[ranks == rank])
    by_rank = {
        rank: tuple(float(one) for one in np.quantile(scores, QUANTILES))
        for rank, parts in at_rank.items()
        if len(scores := np.concatenate([np.empty(0, np.float32), *parts])) >= _LEAST_AT_RANK
    }
    return Lists(sampled, rows, fallback, np.trim_zeros(by_interest, "b"), edges, bins, by_rank, _exposure(ids, shown))


def _exposure(ids: pa.Array, shown: Sequence[pa.StructArray]) -> Counts:
    """Add up how often each catalogue row was *shown*; ids are looked up once, since that builds a table of them."""
    exposure = np.zeros(len(ids), np.int64)
    if shown:
        rows = rows_of(ids, pa.concat_arrays([counts.field("values") for counts in shown]))
        counts = np.concatenate([counts.field("counts").to_numpy() for counts in shown])
        np.add.at(exposure, rows[rows >= 0], counts[rows >= 0])
    return exposure


def interests_by_user(run: Run, shards: int) -> Counts:
    """Count the users of the first *shards* by how many interests they have, from 0.

    Raises:
        StaleRunError, CorruptError: If a table is not finished, missing or changed.
    """
    paths = [run.layout.interests(shard, run.shards) for shard in range(shards)]
    counts = np.zeros(_INTERESTS, np.int64)
    for path in paths:
        verify_file(path)
    for batch in batches_of(paths, ["vectors"]):
        counts += np.bincount(batch.column(0).value_lengths().to_numpy(), minlength=_INTERESTS)
    return np.trim_zeros(counts, "b")


@dataclass(frozen=True, slots=True)
class Calibration:
    """The replay's ranked rows in groups of about equal size, by score.

    Attributes:
        rows: Of each group.
        predicted: Mean score of each.
        happened: Those whose user had the item on the data date.
    """

    rows: Counts
    predicted: npt.NDArray[np.float64]
    happened: Counts


def calibrate(run: Run, ids: pa.Array, *, groups: int = 10) -> Calibration:
    """Compare the scores of the replay's lists with what its users did on the data date.

    Raises:
        StaleRunError, CorruptError: If a table is not finished, missing or changed.
    """
    layout = replay_of(run).layout
    for path in (layout.happened, layout.scores(0, 1)):
        verify_file(path)
    with opening_arrow(layout.happened) as reader:
        happened = reader.read_all().combine_chunks()
    with opening_arrow(layout.scores(0, 1), columns=["user_id", "item_id", "source", "score"]) as reader:
        listed = reader.read_all()
    listed = listed.filter(pc.equal(listed["source"], SOURCE_RANKED)).combine_chunks()
    users = happened["user_id"].combine_chunks()
    lists = happened["items"].combine_chunks()
    owners = np.repeat(np.arange(len(users)), lists.value_lengths().to_numpy())
    true = owners * len(ids) + lists.flatten().to_numpy()
    place = pc.fill_null(pc.index_in(listed["user_id"].combine_chunks(), value_set=users), -1).to_numpy()
    items = rows_of(ids, listed["item_id"].combine_chunks())
    came = (place >= 0) & (items >= 0) & np.isin(place.astype(np.int64) * len(ids) + items, true)
    scores = listed["score"].to_numpy().astype(np.float64)
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, groups) if len(part)]
    return Calibration(
        np.array([len(part) for part in parts], np.int64),
        np.array([scores[part].mean() for part in parts]),
        np.array([np.count_nonzero(came[part]) for part in parts], np.int64),
    )
