"""One pass over each kind of table: counting what the gates judge, with memory that stays flat as users grow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from artifacts.schemas import SOURCE_RANKED
from release.content import batches_of, schema_of

Counts = npt.NDArray[np.int64]

UNKNOWN_ROW = 1  # of every vocabulary; part of the bundle's contract
QUARTER = 21_600  # seconds of a quarter of a day: a shift by one hour moves a sixth of what lies in it
RECENT_QUARTERS = 28 * 4
_WORDS = 1 << 32
_HASHED = 200_000  # items
_VECTOR_ROWS = 8192  # users or items whose vectors are looked at together


@dataclass(slots=True)
class ScoresMeasure:
    """What was counted in the recommendations.

    Attributes:
        exposure: Recommendations of each catalogue item, by its place among the ids.
        bins: Ranked rows by score, between fixed edges.
        rows: Rows.
        users: Runs of rows with one user id.
        ranked: Rows that the ranker scored.
        unsorted: Rows whose user or rank does not follow from the row before.
        repeated: Rows that repeat an item of the same user.
        foreign: Rows whose item may not be recommended.
        not_finite: Rows with NaN or Inf, or ranked rows without a score.
        listed: Users with at least two ranked rows.
        constant: Those among them whose ranked rows all have the same score.
    """

    exposure: Counts
    bins: Counts
    rows: int = 0
    users: int = 0
    ranked: int = 0
    unsorted: int = 0
    repeated: int = 0
    foreign: int = 0
    not_finite: int = 0
    listed: int = 0
    constant: int = 0


def measure_scores(
    shards: Sequence[Path], items: pa.Array, allowed: npt.NDArray[np.bool_], edges: npt.NDArray[np.float64]
) -> ScoresMeasure:
    """Count rows, users, faults, exposure and the score distribution of the recommendations.

    Args:
        shards: Verified score tables, one a shard.
        items: Ids of the catalogue [items], ascending, each once.
        allowed: Whether each may be recommended [items].
        edges: Ascending edges of the score bins; there is one bin more than edges.
    """
    total = ScoresMeasure(np.zeros(len(items), np.int64), np.zeros(len(edges) + 1, np.int64))
    for shard in shards:
        before: pa.Scalar | None = None
        for block in _whole_users(batches_of([shard])):
            _count_block(total, block, before, items, allowed)
            _count_scores(total, block, edges)
            before = block["user_id"][-1]
    return total


def _whole_users(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Cut a stream that is sorted by user between users, so that all rows of a user come together."""
    carried: pa.Table | None = None
    for batch in batches:
        table = pa.Table.from_batches([batch])
        table = table if carried is None else pa.concat_tables([carried, table])
        starts = np.flatnonzero(_changes(table["user_id"].combine_chunks()))
        cut = int(starts[-1])
        if cut:
            yield table.slice(0, cut).combine_chunks()
        carried = table.slice(cut)
    if carried is not None:
        yield carried.combine_chunks()


def runs_of(ids: pa.Array) -> Counts:
    """Give the place of the first row of each run of one id."""
    return np.flatnonzero(_changes(ids))


def _changes(ids: pa.Array) -> npt.NDArray[np.bool_]:
    """Mark each row whose id differs from the one before; the first row always."""
    changed = np.ones(len(ids), bool)
    changed[1:] = pc.not_equal(ids.slice(0, len(ids) - 1), ids.slice(1)).to_numpy(zero_copy_only=False)
    return changed


def _count_block(
    total: ScoresMeasure,
    block: pa.Table,
    before: pa.Scalar | None,
    items: pa.Array,
    allowed: npt.NDArray[np.bool_],
) -> None:
    users = block["user_id"].combine_chunks()
    new = _changes(users)
    starts = np.flatnonzero(new)
    ordinal = np.cumsum(new) - 1  # [rows], number of the row's user in this block
    rank = block["rank"].to_numpy()
    firsts = users.take(pa.array(starts))
    if before is not None:
        firsts = pa.concat_arrays([pa.array([before.as_py()], users.type), firsts])
    falls = pc.greater_equal(firsts.slice(0, len(firsts) - 1), firsts.slice(1))
    total.unsorted += int(np.count_nonzero(rank != np.arange(len(rank)) - starts[ordinal] + 1))
    total.unsorted += pc.sum(falls).as_py() or 0
    total.rows += block.num_rows
    total.users += len(starts)

    codes = pc.dictionary_encode(block["item_id"].combine_chunks())
    pairs = ordinal * len(codes.dictionary) + codes.indices.to_numpy()
    if len(starts) * len(codes.dictionary) <= _WORDS:
        pairs = pairs.astype(np.uint32)  # sorted twice as fast
    in_order = np.sort(pairs)  # a sixth of what np.unique takes
    total.repeated += int(np.count_nonzero(in_order[1:] == in_order[:-1]))
    place = places_among(items, codes.dictionary)[codes.indices.to_numpy()]
    known = place >= 0
    total.exposure += np.bincount(place[known], minlength=len(items))
    total.foreign += int(len(place) - np.count_nonzero(known) + np.count_nonzero(~allowed[place[known]]))


def places_among(items: pa.Array, wanted: pa.Array) -> Counts:
    """Give the place of each id of *wanted*, each once, among *items*, which ascend; -1 where it is not there.

    A few items are hashed, which is quickest; of millions that would take longer than all else, each time anew.
    """
    if len(items) <= _HASHED:
        return np.asarray(pc.fill_null(pc.index_in(wanted, value_set=items), -1).to_numpy(), np.int64)
    place = np.minimum(pc.search_sorted(items, wanted).to_numpy(), len(items) - 1).astype(np.int64)
    same = pc.equal(items.take(pa.array(place)), wanted).to_numpy(zero_copy_only=False)
    return np.where(same, place, -1)


def _count_scores(total: ScoresMeasure, block: pa.Table, edges: npt.NDArray[np.float64]) -> None:
    ranked = block["source"].to_numpy() == SOURCE_RANKED
    score = _floats(block["score"])
    faults = ranked & ~np.isfinite(score)  # a missing score reads as NaN
    for name in ("score", "retrieval_score"):
        given = pc.is_valid(block[name]).to_numpy()
        faults |= given & ~np.isfinite(_floats(block[name]))
    total.ranked += int(np.count_nonzero(ranked))
    total.not_finite += int(np.count_nonzero(faults))
    total.bins += bins_of(score[ranked & ~faults], edges)

    starts = np.flatnonzero(_changes(block["user_id"].combine_chunks()))
    several = np.add.reduceat(ranked, starts, dtype=np.int64) > 1
    own = np.where(ranked, score, np.nan)
    least, greatest = np.fmin.reduceat(own, starts), np.fmax.reduceat(own, starts)
    total.listed += int(np.count_nonzero(several))
    total.constant += int(np.count_nonzero(several & (least == greatest)))


def bins_of(scores: npt.NDArray[np.floating], edges: npt.NDArray[np.float64]) -> Counts:
    """Count *scores* between ascending *edges*; there is one bin more than edges."""
    return np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1)


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy(), np.float32)


def compare_users(left: Path, right: Path) -> tuple[int, int]:
    """Count the user ids of *left* that are not in *right*, and of *right* that are not in *left*.

    Both tables ascend by user id; one block of each is held at a time.
    """
    return _compare(_distinct_users(left), _distinct_users(right))


def count_exhausted(seen: Path, scores: Path, indexed: npt.NDArray[np.bool_], *, within: int | None) -> int:
    """Count the users who have had every indexed item and are in no row of *scores*: nothing is left for them.

    Args:
        seen: A verified table of ``schemas.seen``, ascending by user id.
        scores: The verified score table of the same shard.
        indexed: Whether each item can be recommended [catalogue rows].
        within: Only what they had in the last so many seconds counts; ``None``: all.
    """
    return _compare(_exhausted_users(seen, indexed, within), _distinct_users(scores))[0]


def _exhausted_users(seen: Path, indexed: npt.NDArray[np.bool_], within: int | None) -> Iterator[pa.Array]:
    everything = int(np.count_nonzero(indexed))
    for batch in batches_of([seen], ["user_id", "items", "last_gap"], most=_VECTOR_ROWS):
        items, gaps = batch.column("items"), batch.column("last_gap")
        had = indexed[items.flatten().to_numpy()]  # an item is in a user's list once
        if within is not None:
            had &= gaps.flatten().to_numpy() <= within
        owners = np.repeat(np.arange(batch.num_rows), items.value_lengths().to_numpy())
        exhausted = np.bincount(owners[had], minlength=batch.num_rows) == everything
        if exhausted.any():
            yield batch.column("user_id").filter(pa.array(exhausted))


def _compare(ours: Iterator[pa.Array], theirs: Iterator[pa.Array]) -> tuple[int, int]:
    a, b = next(ours, None), next(theirs, None)
    only_left = only_right = 0
    while a is not None and b is not None:
        last = min(a[-1].as_py(), b[-1].as_py())
        cut_a = pc.sum(pc.less_equal(a, pa.scalar(last, a.type))).as_py()
        cut_b = pc.sum(pc.less_equal(b, pa.scalar(last, b.type))).as_py()
        head_a, head_b = a.slice(0, cut_a), b.slice(0, cut_b)
        only_left += cut_a - (pc.sum(pc.is_in(head_a, value_set=head_b)).as_py() or 0)
        only_right += cut_b - (pc.sum(pc.is_in(head_b, value_set=head_a)).as_py() or 0)
        a = a.slice(cut_a) if cut_a < len(a) else next(ours, None)
        b = b.slice(cut_b) if cut_b < len(b) else next(theirs, None)
    only_left += sum(len(ids) for ids in _rest(a, ours))
    only_right += sum(len(ids) for ids in _rest(b, theirs))
    return only_left, only_right


def _rest(first: pa.Array | None, others: Iterator[pa.Array]) -> Iterator[pa.Array]:
    if first is not None:
        yield first
        yield from others


def _distinct_users(path: Path) -> Iterator[pa.Array]:
    """Give the user ids of a table that ascends by them, each once."""
    before: pa.Scalar | None = None
    for batch in batches_of([path], ["user_id"]):
        ids = batch.column(0)
        new = _changes(ids)
        if before is not None and before == ids[0]:
            new[0] = False
        before = ids[-1]
        if new.any():
            yield ids.filter(pa.array(new))


@dataclass(slots=True)
class VectorsMeasure:
    """What was counted in vectors.

    Attributes:
        vectors: Vectors.
        zero: Those of zeros only.
        not_finite: Those with NaN or Inf.
    """

    vectors: int = 0
    zero: int = 0
    not_finite: int = 0

    def add(self, vectors: npt.NDArray[np.float32]) -> None:
        """Count *vectors* [rows, d]."""
        self.vectors += len(vectors)
        self.zero += int(np.count_nonzero(~vectors.any(axis=1)))
        self.not_finite += int(np.count_nonzero(~np.isfinite(vectors).all(axis=1)))


def measure_items(shards: Sequence[Path], allowed: npt.NDArray[np.bool_]) -> tuple[VectorsMeasure, int]:
    """Count the vectors of the items that are *allowed* [items], by their place in the tables, and all rows."""
    measure, rows = VectorsMeasure(), 0
    for batch in batches_of(shards, ["vector"], most=_VECTOR_ROWS):
        vectors = _matrix(batch.column(0))
        measure.add(vectors[allowed[rows : rows + len(vectors)]] if len(allowed) >= rows + len(vectors) else vectors)
        rows += len(vectors)
    return measure, rows


@dataclass(slots=True)
class InterestsMeasure:
    """What was counted in the interest vectors.

    Attributes:
        vectors: The active ones.
        users: Users.
        cold: Those without a history.
    """

    vectors: VectorsMeasure
    users: int = 0
    cold: int = 0


def measure_interests(shards: Sequence[Path]) -> InterestsMeasure:
    """Count users, cold users, and faults of the active interest vectors."""
    total = InterestsMeasure(VectorsMeasure())
    for batch in batches_of(shards, ["vectors", "cold"], most=_VECTOR_ROWS):
        total.users += batch.num_rows
        total.cold += pc.sum(batch.column("cold")).as_py() or 0
        total.vectors.add(_matrix(batch.column("vectors").flatten()))
    return total


def count_cold(shards: Sequence[Path]) -> tuple[int, int]:
    """Count the users of the interest tables, and the cold ones among them."""
    users = cold = 0
    for batch in batches_of(shards, ["cold"]):
        users += batch.num_rows
        cold += pc.sum(batch.column(0)).as_py() or 0
    return users, cold


@dataclass(slots=True)
class HistoriesMeasure:
    """What was counted in the histories.

    Attributes:
        profiles: Users whose value of a profile feature the model does not know, by feature.
        users: Users.
        behaviours: Theirs.
        unknown: Those among them whose item id the model does not know.
    """

    profiles: dict[str, int]
    users: int = 0
    behaviours: int = 0
    unknown: int = 0


def measure_histories(shards: Sequence[Path], feature: str = "item_id") -> HistoriesMeasure:
    """Count users, their behaviours, and what the model does not know of both."""
    profiles = [name for name in schema_of(shards).names if name.startswith("profile_")]
    total = HistoriesMeasure(dict.fromkeys((name.removeprefix("profile_") for name in profiles), 0))
    for batch in batches_of(shards, [f"history_{feature}", *profiles]):
        rows = batch.column(f"history_{feature}").flatten().to_numpy()
        total.users += batch.num_rows
        total.behaviours += len(rows)
        total.unknown += int(np.count_nonzero(rows == UNKNOWN_ROW))
        for name in profiles:
            unknown = int(np.count_nonzero(batch.column(name).to_numpy() == UNKNOWN_ROW))
            total.profiles[name.removeprefix("profile_")] += unknown
    return total


@dataclass(frozen=True, slots=True)
class RecentMeasure:
    """When users and items last met, in the last four weeks.

    Attributes:
        first: Number of the first quarter of a day, since 1970 UTC.
        counts: Pairs of user and item that last met in it and in each one after it, up to the last whole one.
    """

    first: int
    counts: Counts

    def changed(self, before: "RecentMeasure") -> float | None:
        """Give the pairs that came and went, as a share of those of *before*; None where no quarter is in both.

        A pair that is missing from where it was, and one that is where it was not, count alike.
        """
        first = max(self.first, before.first)
        last = min(self.first + len(self.counts), before.first + len(before.counts))
        ours = self.counts[first - self.first : last - self.first]
        theirs = before.counts[first - before.first : last - before.first]
        if first >= last or not theirs.sum():
            return None
        return float(np.abs(ours - theirs).sum() / theirs.sum())


def measure_recent(shards: Sequence[Path], now: int) -> RecentMeasure:
    """Count the pairs of the tables ``seen`` by the quarter of a day of their last meeting.

    Args:
        shards: Verified tables.
        now: End of the data date, in seconds since 1970.
    """
    last = now // QUARTER
    first = last - RECENT_QUARTERS
    counts = np.zeros(RECENT_QUARTERS, np.int64)
    for batch in batches_of(shards, ["last_gap"], most=_VECTOR_ROWS):
        quarter = (now - batch.column(0).flatten().to_numpy()) // QUARTER
        counts += np.bincount(quarter[(quarter >= first) & (quarter < last)] - first, minlength=RECENT_QUARTERS)
    return RecentMeasure(first, counts)


def _matrix(vectors: pa.FixedSizeListArray) -> npt.NDArray[np.float32]:
    """View *vectors* as [rows, d]; their offsets and slices are respected."""
    return np.asarray(vectors.flatten().to_numpy(), np.float32).reshape(-1, vectors.type.list_size)
