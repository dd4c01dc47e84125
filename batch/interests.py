"""The step ``interests``: each user's history and profile to their active interest vectors."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import pyarrow as pa

from artifacts import schemas
from artifacts.bundle import Bundle
from artifacts.run import Run, StepResult
from artifacts.tables import TableWriter, opening_arrow, verify_file, writing_table
from batch.overlap import reading_ahead, working_side_by_side, writing_behind
from batch.profile import require_profile
from batch.session import Session, open_session
from batch.shards import Advance, OneShard, Task, Work, inputs_digest, nothing, over_shards, require_bundle
from batch.towers import Batch, UserVectors, encode_users, user_columns, user_vectors


def compute_interests(
    run: Run,
    bundle: Bundle,
    shards: Sequence[int],
    *,
    device: str = "cpu",
    threads: int = 0,
    advance: Advance = nothing,
) -> StepResult:
    """Compute the interests of all users of some shards, as :func:`open_interests` does."""
    return open_interests(run, bundle, device=device, threads=threads)(shards, advance)


def open_interests(run: Run, bundle: Bundle, *, device: str = "cpu", threads: int = 0) -> Work:
    """Open the step: it computes the interests of all users of a shard; a shard file in, a shard file out.

    Args:
        run: From ``prepare``.
        bundle: The user bundle, verified.
        device: ``cpu``, ``gpu`` or ``auto``; must be what the run was prepared for.
        threads: Batches computed side by side; 0 takes all cores.

    Returns:
        For shards out of ``range(run.shards)``. Counts: ``cold`` users, who have no vectors, and ``vectors``.

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
        return partial(_one_shard, run, session)

    return over_shards(
        "interests",
        output=lambda shard: layout.interests(shard, run.shards),
        inputs=lambda shard: inputs_digest(run, [bundle], [layout.histories(shard, run.shards)]),
        start=start,
    )


def _one_shard(
    run: Run, session: Session, task: Task, finishing: ExitStack, advance: Advance
) -> Mapping[str, int]:
    schema = schemas.interests(run.user_type, session.bundle.width)
    histories = run.layout.histories(task.shard, run.shards)
    verify_file(histories)
    writing = writing_table(task.path, schema, metadata=run.metadata(), inputs=task.inputs)
    writer = finishing.enter_context(writing)
    cold = vectors = 0
    with (
        opening_arrow(histories, columns=user_columns(session)) as reader,
        reading_ahead(encode_users(session, _batches(reader))) as batches,
        working_side_by_side(partial(_compute, session), batches, workers=session.workers) as results,
        writing_behind(partial(_write, writer, schema)) as write,
    ):
        for batch, found in results:
            cold += int((found.counts == 0).sum())
            vectors += len(found.vectors)
            write((batch.rows, found))
            advance(batch.rows.num_rows)
    return {"rows": writer.rows, "cold": cold, "vectors": vectors}


def _compute(session: Session, batch: Batch) -> tuple[Batch, UserVectors]:
    return batch, user_vectors(session, batch)


def _batches(reader: pa.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _write(writer: TableWriter, schema: pa.Schema, part: tuple[pa.RecordBatch, UserVectors]) -> None:
    rows, found = part
    kind = schema.field("vectors").type
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(found.vectors.reshape(-1)), type=kind.value_type)
    offsets = pa.array(np.concatenate([[0], np.cumsum(found.counts)]).astype(np.int32))
    columns = [
        rows.column("user_id"),
        pa.ListArray.from_arrays(offsets, vectors, type=kind),
        rows.column("history_length"),
        pa.array(found.counts == 0),
    ]
    writer.write(pa.RecordBatch.from_arrays(columns, schema=schema))
