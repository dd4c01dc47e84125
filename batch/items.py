"""The step ``items``: tonight's catalogue to one vector an item, in contiguous ranges of catalogue rows."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import pyarrow as pa

from artifacts import schemas
from artifacts.bundle import Bundle
from artifacts.run import Run, StepResult
from artifacts.tables import BATCH_ROWS, TableWriter, opening_arrow, verify_file, writing_table
from batch.overlap import reading_ahead, working_side_by_side, writing_behind
from batch.profile import require_profile
from batch.session import Session, open_session
from batch.shards import Advance, OneShard, Task, Work, inputs_digest, nothing, over_shards, require_bundle
from batch.towers import Batch, encode_items, item_columns, item_vectors


def embed_items(
    run: Run,
    bundle: Bundle,
    shards: Sequence[int],
    *,
    device: str = "cpu",
    threads: int = 0,
    advance: Advance = nothing,
) -> StepResult:
    """Embed some ranges of the catalogue, as :func:`open_items` does."""
    return open_items(run, bundle, device=device, threads=threads)(shards, advance)


def open_items(run: Run, bundle: Bundle, *, device: str = "cpu", threads: int = 0) -> Work:
    """Open the step: it embeds ranges of the catalogue, every item, eligible or not, since histories need them all.

    Args:
        run: From ``prepare``.
        bundle: The item bundle, verified.
        device: ``cpu``, ``gpu`` or ``auto``; must be what the run was prepared for.
        threads: Batches computed side by side; 0 takes all cores.

    Returns:
        For shards out of ``range(run.item_shards)``. Counts: ``not_finite`` and ``zero`` vectors, which are written,
        but which the index must leave out.

    Raises:
        StaleRunError: If the run belongs to another bundle or profile.
        DeviceError, ParityError: If the device is not there, or computes something else than the exporter saw.
        InputError: If an id lies outside its vocabulary.
    """
    chosen = require_profile(run, device=device)
    require_bundle(run, bundle)
    layout = run.layout

    def start() -> OneShard:
        session = open_session(bundle, rows=run.profile["batch_items"], device=chosen.name, threads=threads)
        verify_file(layout.catalogue)  # once for the group; each shard then reads its own range only
        return partial(_embed_range, run, session)

    return over_shards(
        "items",
        output=lambda shard: layout.items(shard, run.item_shards),
        inputs=lambda _shard: inputs_digest(run, [bundle], [layout.catalogue]),
        start=start,
    )


def _embed_range(run: Run, session: Session, task: Task, finishing: ExitStack, advance: Advance) -> Mapping[str, int]:
    schema = schemas.items(run.item_type, session.bundle.width)
    writing = writing_table(task.path, schema, metadata=run.metadata(), inputs=task.inputs)
    writer = finishing.enter_context(writing)
    not_finite = zero = 0
    with (
        opening_arrow(run.layout.catalogue, columns=item_columns(session)) as reader,
        reading_ahead(encode_items(session, _range(reader, task.shard, run.item_shards))) as batches,
        working_side_by_side(partial(_embed, session), batches, workers=session.workers) as results,
        writing_behind(partial(_write, writer, schema)) as write,
    ):
        for batch, vectors in results:
            not_finite += int((~np.isfinite(vectors).all(axis=1)).sum())
            zero += int((~vectors.any(axis=1)).sum())
            write((batch.rows.column("item_id"), vectors))
            advance(batch.rows.num_rows)
    return {"rows": writer.rows, "not_finite": not_finite, "zero": zero}


def _embed(session: Session, batch: Batch) -> tuple[Batch, np.ndarray]:
    return batch, item_vectors(session, batch)


def _write(writer: TableWriter, schema: pa.Schema, part: tuple[pa.Array, np.ndarray]) -> None:
    item_ids, vectors = part
    kind = schema.field("vector").type
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=kind)
    writer.write(pa.RecordBatch.from_arrays([item_ids, lists], schema=schema))


def _range(reader: pa.RecordBatchFileReader, shard: int, shards: int) -> Iterator[pa.RecordBatch]:
    """Read one of *shards* contiguous ranges of rows, in slices of the file's record batches."""
    last = reader.num_record_batches - 1
    rows = 0 if last < 0 else last * BATCH_ROWS + reader.get_batch(last).num_rows
    start, stop = shard * rows // shards, (shard + 1) * rows // shards
    for number in range(start // BATCH_ROWS, -(-stop // BATCH_ROWS)):
        first = number * BATCH_ROWS
        begin, end = max(start - first, 0), min(stop - first, BATCH_ROWS)
        yield reader.get_batch(number).slice(begin, end - begin)
