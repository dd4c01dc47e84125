"""The step ``interests``: each user's history and profile to their active interest vectors."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import pyarrow as pa

from artifacts import schemas
from artifacts.bundle import Bundle
from artifacts.run import Run, StepResult
from artifacts.tables import BATCH_ROWS, TableWriter, opening_arrow, verify_file, writing_table
from batch.earlier import EarlierRows, NotRepeatedError, Span, joined, opening_earlier, spans_of
from batch.overlap import reading_ahead, working_side_by_side, writing_behind
from batch.profile import require_profile
from batch.session import Session, open_session
from batch.shards import Advance, OneShard, Task, Work, inputs_digest, nothing, over_shards, require_bundle
from batch.stages import stage
from batch.towers import UserVectors, user_columns, user_vectors

WAITING = 16_384  # users that wait while a record batch is digested and written, so that nobody waits for that


def compute_interests(
    run: Run,
    bundle: Bundle,
    shards: Sequence[int],
    *,
    earlier: Sequence[Run] = (),
    device: str = "cpu",
    threads: int = 0,
    advance: Advance = nothing,
) -> StepResult:
    """Compute the interests of all users of some shards, as :func:`open_interests` does."""
    return open_interests(run, bundle, earlier=earlier, device=device, threads=threads)(shards, advance)


def open_interests(
    run: Run, bundle: Bundle, *, earlier: Sequence[Run] = (), device: str = "cpu", threads: int = 0
) -> Work:
    """Open the step: it computes the interests of all users of a shard; a shard file in, a shard file out.

    Whose encoded input is what it was in an earlier run keeps the vectors of that run: no byte depends on it.

    Args:
        run: From ``prepare``.
        bundle: The user bundle, verified.
        earlier: From :func:`batch.earlier.earlier_runs`; without them all users are computed.
        device: ``cpu``, ``gpu`` or ``auto``; must be what the run was prepared for.
        threads: Batches computed side by side; 0 takes all cores.

    Returns:
        For shards out of ``range(run.shards)``. Counts: ``cold`` users, who have no vectors, ``vectors``, users whose
        vectors were ``kept``, and shards ``not_repeated``: a kept user came out otherwise, so all were computed.

    Raises:
        StaleRunError: If the run belongs to another bundle or profile.
        DeviceError, ParityError: If the device is not there, or computes something else than the exporter saw.
        InputError: If an id lies outside its vocabulary, or a vector holds NaN or Inf; the message names the user.
    """
    chosen = require_profile(run, device=device)
    require_bundle(run, bundle)
    layout = run.layout

    def start() -> OneShard:
        session = open_session(bundle, rows=run.profile["batch_users"], device=chosen.name, threads=threads)
        return partial(_one_shard, run, session, earlier)

    return over_shards(
        "interests",
        output=lambda shard: layout.interests(shard, run.shards),
        inputs=lambda shard: inputs_digest(run, [bundle], [layout.histories(shard, run.shards)]),
        start=start,
    )


def _one_shard(
    run: Run,
    session: Session,
    earlier: Sequence[Run],
    task: Task,
    finishing: ExitStack,
    advance: Advance,
) -> Mapping[str, int]:
    """Write a shard with what an earlier run has of it; if that is not repeated here, once more without."""
    try:
        with opening_earlier(session, earlier, task.shard) as before:
            return _write_shard(run, session, before, task, finishing, advance)
    except NotRepeatedError:
        return {**_write_shard(run, session, None, task, finishing, advance), "not_repeated": 1}


def _write_shard(
    run: Run,
    session: Session,
    earlier: EarlierRows | None,
    task: Task,
    finishing: ExitStack,
    advance: Advance,
) -> Mapping[str, int]:
    schema = schemas.interests(run.user_type, session.bundle.width)
    histories = run.layout.histories(task.shard, run.shards)
    with stage("read"):
        verify_file(histories)
    cold = vectors = kept = 0
    with ExitStack() as attempt:
        writer = attempt.enter_context(writing_table(task.path, schema, metadata=run.metadata(), inputs=task.inputs))
        gathering = _Gathering(writer, schema, session.bundle.interests)
        with (
            opening_arrow(histories, columns=user_columns(session)) as reader,
            reading_ahead(spans_of(session, _batches(reader), earlier)) as spans,
            working_side_by_side(partial(_compute, session), spans, workers=session.workers) as results,
            writing_behind(gathering.add, depth=max(2, WAITING // session.rows)) as write,
        ):
            for span, found in results:
                cold += int((found.counts == 0).sum())
                vectors += len(found.vectors)
                kept += int((span.source >= 0).sum())
                write((span.rows, found))
                advance(span.rows.num_rows)
        with stage("write"):
            gathering.write()
        finishing.enter_context(attempt.pop_all())
    return {"rows": writer.rows, "cold": cold, "vectors": vectors, "kept": kept}


def _compute(session: Session, span: Span) -> tuple[Span, UserVectors]:
    nobodys = UserVectors(np.empty((0, session.bundle.width), np.float32), np.empty(0, np.int32))
    return span, joined(span, user_vectors(session, span.batch) if span.batch else nobodys)


def _batches(reader: pa.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


class _Gathering:
    """Users on their way into a table, a record batch of it at a time: vectors are laid in their place as they come.

    Kept as they come, they would be copied together when the record batch is full, out of no cache any more.
    """

    def __init__(self, writer: TableWriter, schema: pa.Schema, interests: int) -> None:
        """Write to *writer*, whose schema is *schema*, users of at most so many *interests*."""
        self._writer, self._schema, self._interests = writer, schema, interests
        self._begin()

    def _begin(self) -> None:
        width = self._schema.field("vectors").type.value_type.list_size
        self._vectors = np.empty((BATCH_ROWS * self._interests, width), np.float32)  # memory as far as it is filled
        self._used, self._room = 0, BATCH_ROWS
        self._rows: list[pa.RecordBatch] = []
        self._counts: list[np.ndarray] = []

    def add(self, part: tuple[pa.RecordBatch, UserVectors]) -> None:
        """Add users; each record batch is written when it is full."""
        rows, found = part
        while rows.num_rows > self._room:
            here = self._room
            vectors = int(found.counts[:here].sum())
            self._take(rows.slice(0, here), UserVectors(found.vectors[:vectors], found.counts[:here]))
            self.write()
            rows, found = rows.slice(here), UserVectors(found.vectors[vectors:], found.counts[here:])
        self._take(rows, found)

    def _take(self, rows: pa.RecordBatch, found: UserVectors) -> None:
        end = self._used + len(found.vectors)
        self._vectors[self._used : end] = found.vectors
        self._used, self._room = end, self._room - rows.num_rows
        self._rows.append(rows.select(["user_id", "history_length"]))
        self._counts.append(found.counts)

    def write(self) -> None:
        """Write what was added since the last time."""
        if not self._rows:
            return
        rows, counts = pa.Table.from_batches(self._rows), np.concatenate(self._counts)
        kind = self._schema.field("vectors").type
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(self._vectors[: self._used].ravel()), type=kind.value_type)
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
        columns = [
            rows["user_id"].combine_chunks(),
            pa.ListArray.from_arrays(offsets, vectors, type=kind),
            rows["history_length"].combine_chunks(),
            pa.array(counts == 0),
        ]
        self._begin()
        self._writer.write(pa.RecordBatch.from_arrays(columns, schema=self._schema))
