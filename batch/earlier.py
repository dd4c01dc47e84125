"""An earlier night as a cache: a user or item whose encoded input is unchanged keeps the vectors computed from it.

A vector depends on its row's encoded input, the bundle and the execution profile, and on nothing else. All three lie
beside it in a run, so a run is asked and not a release: rows are compared number for number, and a night that was
refused, withdrawn or never published serves as well. No file says whether a row was kept or computed.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artifacts.bundle import Bundle, Role
from artifacts.errors import CorruptError, NightrecError, StaleRunError
from artifacts.fields import DAY
from artifacts.layout import RootLayout
from artifacts.run import RUN_KEY, Run
from artifacts.store import names_in
from artifacts.tables import is_done, opening_arrow, verify_file
from batch.session import Arrays, Session
from batch.shards import inputs_digest
from batch.stages import stage
from batch.towers import Batch, UserVectors, encode_items, encode_users, item_columns, user_columns
from features.encode import item_features, places, user_inputs

UNUSABLE = (StaleRunError, CorruptError, FileNotFoundError)  # of an earlier run; it may be pruned meanwhile
LOOKS = 7  # runs that are looked at, newest first
SPAN_BATCHES = 16  # a span has at most as many rows as so many batches, however few of them are computed


class NotRepeatedError(NightrecError):
    """A kept row, computed once more, has other bits: nothing of the earlier run can be used here."""


def earlier_runs(root: Path, run: Run) -> tuple[Run, ...]:
    """Find other runs, of the date or before it and newest first, whose rows may be computed as those of *run* are.

    They have its execution profile and its shards; which bundle a file of theirs is from is asked when it is opened.
    """
    return tuple(
        other
        for other in islice(_runs_before(root, run), LOOKS)
        if (other.profile, other.shards, other.item_shards, other.user_id, other.item_id)
        == (run.profile, run.shards, run.item_shards, run.user_id, run.item_id)
    )


def _runs_before(root: Path, run: Run) -> Iterator[Run]:
    layout = RootLayout(root)
    days = [name for name in names_in(layout.runs) if DAY.fullmatch(name) and name <= run.date]
    for day in reversed(days):
        for key in names_in(layout.runs / day):
            if not RUN_KEY.fullmatch(key) or key == run.run_key:
                continue
            try:
                other = Run.read(layout.run(day, key).folder)
            except (StaleRunError, CorruptError):
                continue  # half removed, or damaged: what it would save is computed
            yield other


def keeps_bits(bundle: Bundle) -> bool:
    """Whether a row of *bundle*'s graph has the same bits at every place of a batch, as its exporter found.

    Kept rows leave their places to others: where a bit depends on the place, every row is computed.
    """
    figures = bundle.about.get("parity", {})
    return "positions" not in figures.get("bits_depend_on", ["positions"])


@dataclass(frozen=True, slots=True)
class Told:
    """A record batch of an earlier shard: what the graph was told of each user or item, and what it gave.

    Attributes:
        ids: [n], ascending.
        inputs: The graph's inputs and a user's ``history_length``, each with n rows.
        vectors: float32 [sum of counts, d], row after row.
        counts: int64 [n]; an item has one vector.
        starts: int64 [n], the row of each one's first vector.
    """

    ids: pa.Array
    inputs: Arrays
    vectors: np.ndarray
    counts: np.ndarray
    starts: np.ndarray


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring rows of ``histories`` or ``catalogue``: some are computed, in one batch, the others are kept.

    Attributes:
        rows: All of them.
        batch: The rows to compute and, behind them, *checked* kept ones; None if there are none.
        sources: Where kept rows are kept.
        source: int [n], which of *sources*; -1 for a row that is computed.
        place: int [n], the row in its source.
        checked: Rows of the span that are kept and computed nevertheless, to be compared.
    """

    rows: pa.RecordBatch
    batch: Batch | None
    sources: tuple[Told, ...]
    source: np.ndarray
    place: np.ndarray
    checked: np.ndarray


def computed(batch: Batch) -> Span:
    """A span that keeps nothing."""
    nowhere = np.full(batch.rows.num_rows, -1)
    return Span(batch.rows, batch, (), nowhere, nowhere, np.empty(0, np.int64))


def spans_of(session: Session, batches: Iterator[pa.RecordBatch], earlier: "EarlierRows | None") -> Iterator[Span]:
    """Cut rows of a prepared table into spans; without *earlier* rows each is one batch, every row of it computed."""
    if earlier is None:
        encode = encode_items if session.bundle.role is Role.ITEM else encode_users
        yield from map(computed, encode(session, batches))
        return
    for rows in batches:
        yield from earlier.spans(rows)


def joined(span: Span, found: UserVectors) -> UserVectors:
    """Lay the vectors *found* for a span's batch among the kept ones, in the order of the span's rows.

    Raises:
        NotRepeatedError: If a row that was checked has other bits than were kept.
    """
    if not span.sources:
        return found
    new = span.source < 0
    fresh = int(new.sum())
    counts = np.zeros(len(new), np.int64)
    counts[new] = found.counts[:fresh]
    starts = np.zeros(len(new), np.int64)
    for number, told in enumerate(span.sources):
        here = span.source == number
        counts[here], starts[here] = told.counts[span.place[here]], told.starts[span.place[here]]
    rows = np.repeat(starts, counts) + places(counts)
    vectors = np.empty((len(rows), found.vectors.shape[1]), np.float32)
    first, *others = span.sources
    if len(first.vectors):  # in one go; what is of others, or new, is put right
        first.vectors.take(rows, axis=0, mode="clip", out=vectors)
    for number, told in enumerate(others, 1):
        here = np.repeat(span.source == number, counts)
        vectors[here] = told.vectors[rows[here]]
    owners = np.repeat(new, counts)
    behind = int(owners.sum())
    vectors[owners] = found.vectors[:behind]
    again = UserVectors(found.vectors[behind:], found.counts[fresh:])
    _require_repeated(span, vectors, counts, again)
    return UserVectors(vectors, counts.astype(np.int32))


def _require_repeated(span: Span, vectors: np.ndarray, counts: np.ndarray, again: UserVectors) -> None:
    lengths = counts[span.checked]
    kept = vectors[np.repeat((np.cumsum(counts) - counts)[span.checked], lengths) + places(lengths)]
    if not np.array_equal(counts[span.checked], again.counts) or kept.tobytes() != again.vectors.tobytes():
        raise NotRepeatedError("a kept row, computed once more, has other vectors")


class EarlierRows:
    """Rows of an earlier run, read once and in order, as tonight's are asked for."""

    def __init__(self, session: Session, read: Callable[[Any], Iterator[Told]]) -> None:
        """Take the batches that *read* gives from an id on, each as late as it can be."""
        self._session = session
        self._read = read
        self._batches: Iterator[Told] | None = None
        self._window: deque[Told] = deque()

    def spans(self, rows: pa.RecordBatch) -> Iterator[Span]:
        """Cut the next record batch of tonight's shard into spans of one batch each.

        The last one's batch is filled up with kept rows, which are computed and compared: where the same profile gave
        other bits, nothing is kept.
        """
        inputs, size = _told_now(self._session, rows), self._session.rows
        with stage("merge"):
            sources, source, place = self._find(rows.column(0), inputs)
        new = np.flatnonzero(source < 0)
        start, done = 0, 0
        while start < rows.num_rows:
            stop = min(start + SPAN_BATCHES * size, rows.num_rows)
            if done + size < len(new):
                stop = min(stop, int(new[done + size]))
            here = new[done : np.searchsorted(new, stop)]
            spare = size - len(here) if stop == rows.num_rows else 0
            checked = start + np.flatnonzero(source[start:stop] >= 0)[:spare]
            batch = self._batch(rows, inputs, np.concatenate([here, checked]))
            part = slice(start, stop)
            yield Span(rows.slice(start, stop - start), batch, sources, source[part], place[part], checked - start)
            start, done = stop, done + len(here)

    def _batch(self, rows: pa.RecordBatch, inputs: Arrays, chosen: np.ndarray) -> Batch | None:
        if not len(chosen):
            return None
        named = [name for name in rows.schema.names if name in {"user_id", "item_id", "history_length"}]
        said = rows.select(named).take(pa.array(chosen))
        return Batch(said, {name: array[chosen] for name, array in inputs.items() if name != "history_length"})

    def _find(self, ids: pa.Array, inputs: Arrays) -> tuple[tuple[Told, ...], np.ndarray, np.ndarray]:
        """Find of which *ids* the same was told before; gives the sources, and for each of them which and where."""
        self._move(ids)
        source, place = np.full(len(ids), -1), np.full(len(ids), -1)
        for number, told in enumerate(self._window):
            where = pc.index_in(ids, value_set=told.ids)
            here = np.flatnonzero(where.is_valid().to_numpy(zero_copy_only=False))
            there = where.drop_null().to_numpy()
            for name, array in inputs.items():
                same = told.inputs[name][there] == array[here]
                same = same.all(axis=1) if same.ndim > 1 else same
                here, there = here[same], there[same]
            source[here], place[here] = number, there
        return tuple(self._window), source, place

    def _move(self, ids: pa.Array) -> None:
        """Let go of what lies before the first of *ids*, and take what reaches to the last."""
        if not len(ids):
            return
        first, last = ids[0].as_py(), ids[-1].as_py()
        self._batches = self._batches or self._read(first)
        while self._window and self._window[0].ids[-1].as_py() < first:
            self._window.popleft()
        while not self._window or self._window[-1].ids[-1].as_py() < last:
            with stage("read"):
                told = next(self._batches, None)
            if told is None:
                return
            if told.ids[-1].as_py() >= first:
                self._window.append(told)


def _told_now(session: Session, rows: pa.RecordBatch | pa.Table) -> Arrays:
    """What the graph is told of all of *rows*, and of users ``history_length``, by which one is cold."""
    if session.bundle.role is Role.ITEM:
        return dict(item_features(rows, session.bundle.spec))
    with stage("encode"):
        inputs: Arrays = dict(user_inputs(rows, session.bundle.spec, session.bundle.role, rows.num_rows))
    return {**inputs, "history_length": rows.column("history_length").to_numpy()}


@contextmanager
def opening_earlier(session: Session, runs: Sequence[Run], shard: int) -> Iterator[EarlierRows | None]:
    """Open the newest of *runs* that finished this shard with this bundle; None if there is none.

    Every byte is checked first. A file that is changed is as good as none: what it would save is computed.
    """
    for run in runs if keeps_bits(session.bundle) else ():
        histories, interests = run.layout.histories(shard, run.shards), run.layout.interests(shard, run.shards)
        with ExitStack() as stack:
            try:
                if not is_done(interests, inputs_digest(run, [session.bundle], [histories])):
                    continue
                told = stack.enter_context(_opening(histories, user_columns(session)))
                given = stack.enter_context(_opening(interests, ["user_id", "vectors"]))
            except UNUSABLE:
                continue
            yield EarlierRows(session, partial(_users, session, told, given))
            return
    yield None


@contextmanager
def _opening(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatchFileReader]:
    with stage("read"):
        verify_file(path)
    with opening_arrow(path, columns=columns) as reader:
        yield reader


def _users(
    session: Session, told: pa.RecordBatchFileReader, given: pa.RecordBatchFileReader, _first: Any
) -> Iterator[Told]:
    """Read a shard from its begin, wherever tonight's first user is."""
    for number in range(told.num_record_batches):
        rows, results = told.get_batch(number), given.get_batch(number)
        if not rows.column("user_id").equals(results.column("user_id")):
            raise NotRepeatedError("an earlier run's vectors are not of the users of its histories")
        lists = results.column("vectors")
        vectors = lists.flatten().flatten().to_numpy().reshape(-1, session.bundle.width)
        counts = pc.list_value_length(lists).to_numpy().astype(np.int64)
        starts = np.cumsum(counts) - counts
        yield Told(rows.column("user_id"), _told_now(session, rows), vectors, counts, starts)


def earlier_catalogue(session: Session, runs: Sequence[Run]) -> tuple[Run, pa.Table] | None:
    """Find the newest of *runs* that embedded all its items with this bundle, with what the graph was told of them.

    The catalogue's bytes are checked, those of the vectors when they are read.
    """
    for run in runs if keeps_bits(session.bundle) else ():
        catalogue, shards = run.layout.catalogue, range(run.item_shards)
        try:
            inputs = inputs_digest(run, [session.bundle], [catalogue])
            if not all(is_done(run.layout.items(shard, run.item_shards), inputs) for shard in shards):
                continue
            with _opening(catalogue, item_columns(session)) as reader:
                return run, reader.read_all().combine_chunks()
        except UNUSABLE:
            continue
    return None


def earlier_items(session: Session, run: Run, catalogue: pa.Table) -> EarlierRows:
    """Give the items of what :func:`earlier_catalogue` found, from any id on."""
    return EarlierRows(session, partial(_items, session, run, catalogue))


def _items(session: Session, run: Run, catalogue: pa.Table, first: Any) -> Iterator[Told]:
    ids = catalogue.column("item_id")
    place, rows = bisect_left(range(len(ids)), first, key=lambda row: ids[row].as_py()), len(ids)
    for shard in range(run.item_shards):
        start, path = shard * rows // run.item_shards, run.layout.items(shard, run.item_shards)
        if (shard + 1) * rows // run.item_shards <= place:
            continue
        with ExitStack() as stack:
            try:
                reader = stack.enter_context(_opening(path, ["item_id", "vector"]))
            except UNUSABLE as error:
                raise NotRepeatedError(f"an earlier run's item vectors cannot be kept: {error}") from error
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                told = catalogue.slice(start, batch.num_rows)
                start += batch.num_rows
                vectors = batch.column("vector").flatten().to_numpy().reshape(-1, session.bundle.width)
                numbers = np.arange(batch.num_rows)
                yield Told(batch.column("item_id"), _told_now(session, told), vectors, np.ones_like(numbers), numbers)
