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
from batch.earlier import EarlierRows, NotRepeatedError, Span, earlier_catalogue, earlier_items, joined, spans_of
from batch.overlap import reading_ahead, working_side_by_side, writing_behind
from batch.profile import require_profile
from batch.session import Session, open_session
from batch.shards import Advance, OneShard, Task, Work, inputs_digest, nothing, over_shards, require_bundle
from batch.towers import UserVectors, item_columns, item_vectors


def embed_items(
    run: Run,
    bundle: Bundle,
    shards: Sequence[int],
    *,
    earlier: Sequence[Run] = (),
    device: str = "cpu",
    threads: int = 0,
    advance: Advance = nothing,
) -> StepResult:
    """Embed some ranges of the catalogue, as :func:`open_items` does."""
    return open_items(run, bundle, earlier=earlier, device=device, threads=threads)(shards, advance)


def open_items(run: Run, bundle: Bundle, *, earlier: Sequence[Run] = (), device: str = "cpu", threads: int = 0) -> Work:
    """Open the step: it embeds ranges of the catalogue, every item, eligible or not, since histories need them all.

    An item of which the graph is told what it was told in an earlier run keeps its vector: no byte depends on it.

    Args:
        run: From ``prepare``.
        bundle: The item bundle, verified.
        earlier: From :func:`batch.earlier.earlier_runs`; without them all items are computed.
        device: ``cpu``, ``gpu`` or ``auto``; must be what the run was prepared for.
        threads: Batches computed side by side; 0 takes all cores.

    Returns:
        For shards out of ``range(run.item_shards)``. Counts: ``not_finite`` and ``zero`` vectors, which are written,
        but which the index must leave out; items that were ``kept``, and ranges ``not_repeated``: a kept item came
        out otherwise, so all were computed.

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
        return partial(_one_range, run, session, earlier_catalogue(session, earlier))

    return over_shards(
        "items",
        output=lambda shard: layout.items(shard, run.item_shards),
        inputs=lambda _shard: inputs_digest(run, [bundle], [layout.catalogue]),
        start=start,
    )


def _one_range(
    run: Run,
    session: Session,
    earlier: tuple[Run, pa.Table] | None,
    task: Task,
    finishing: ExitStack,
    advance: Advance,
) -> Mapping[str, int]:
    """Write a range with what an earlier run has of it; if that is not repeated here, once more without."""
    embed = partial(_embed_range, run, session, task, finishing, advance)
    try:
        return embed(earlier_items(session, *earlier) if earlier else None)
    except NotRepeatedError:
        return {**embed(None), "not_repeated": 1}


def _embed_range(
    run: Run, session: Session, task: Task, finishing: ExitStack, advance: Advance, earlier: EarlierRows | None
) -> Mapping[str, int]:
    schema = schemas.items(run.item_type, session.bundle.width)
    not_finite = zero = kept = 0
    with ExitStack() as attempt:
        writer = attempt.enter_context(writing_table(task.path, schema, metadata=run.metadata(), inputs=task.inputs))
        with (
            opening_arrow(run.layout.catalogue, columns=item_columns(session)) as reader,
            reading_ahead(spans_of(session, _range(reader, task.shard, run.item_shards), earlier)) as spans,
            working_side_by_side(partial(_embed, session), spans, workers=session.workers) as results,
            writing_behind(partial(_write, writer, schema)) as write,
        ):
            for span, vectors in results:
                not_finite += int((~np.isfinite(vectors).all(axis=1)).sum())
                zero += int((~vectors.any(axis=1)).sum())
                kept += int((span.source >= 0).sum())
                write((span.rows.column("item_id"), vectors))
                advance(span.rows.num_rows)
        finishing.enter_context(attempt.pop_all())
    return {"rows": writer.rows, "not_finite": not_finite, "zero": zero, "kept": kept}


def _embed(session: Session, span: Span) -> tuple[Span, np.ndarray]:
    nothing_new = np.empty((0, session.bundle.width), np.float32)
    found = item_vectors(session, span.batch) if span.batch else nothing_new
    return span, joined(span, UserVectors(found, np.ones(len(found), np.int32))).vectors


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
