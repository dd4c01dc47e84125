"""The step ``score``: each user's interests to a list of items, shard file by shard file."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from artifacts import schemas
from artifacts.bundle import Bundle, Role
from artifacts.digest import document_digest
from artifacts.errors import CorruptError, StaleRunError
from artifacts.run import Run, StepResult
from artifacts.tables import TableWriter, copied, reading_table, writing_table
from batch.lists import Part, Ranked, ScoreOptions, Shop, make_lists, open_shop, require_options
from batch.machine import usable_cores
from batch.overlap import reading_ahead, working_side_by_side, writing_behind
from batch.profile import require_profile
from batch.retrieve import require_searchable
from batch.session import Session, open_session
from batch.shards import Advance, OneShard, Task, Work, inputs_digest, nothing, over_shards, require_bundle
from batch.stages import stage
from features.encode import user_inputs


def score(
    run: Run,
    ranker: Bundle | None,
    shards: Sequence[int],
    options: ScoreOptions,
    *,
    device: str = "cpu",
    threads: int = 0,
    advance: Advance = nothing,
) -> StepResult:
    """Make the lists of all users of some shards, as :func:`open_score` does."""
    return open_score(run, ranker, options, device=device, threads=threads)(shards, advance)


def open_score(
    run: Run, ranker: Bundle | None, options: ScoreOptions, *, device: str = "cpu", threads: int = 0
) -> Work:
    """Open the step: it makes the lists of all users of a shard; a shard file in, a shard file out.

    Args:
        run: Its steps ``index`` and ``interests`` (of these shards) are done.
        ranker: The ranker bundle, verified; without one the retrieval score is the score.
        options: What the lists depend on.
        device: ``cpu``, ``gpu`` or ``auto``; must be what the run was prepared for.
        threads: Batches searched and ranked side by side; 0 takes all cores. The bytes don't depend on it.

    Returns:
        For shards out of ``range(run.shards)``. Counts: ``users``; ``cold`` users; ``ranked_rows`` and
        ``fallback_rows``; ``short_lists``, users who are not cold and have fewer than C candidates; ``seen_dropped``,
        items that would be candidates, had the user not had them; ``unfilled``, users with fewer than ``top_n`` rows.

    Raises:
        UsageError: If an option cannot be.
        StaleRunError: If the run belongs to another bundle or profile, or an earlier step is not finished.
        CorruptError: If a file is changed, or the tables of a shard are not of the same users.
        InputError: If a score is NaN or Inf; the message names the user.
    """
    chosen = require_profile(run, device=device)
    require_options(options)
    require_searchable(chosen.name, k=options.fetch)
    if ranker is not None:
        require_bundle(run, ranker)
    elif str(Role.RANKER) in run.bundles:
        raise StaleRunError(
            f"{run.folder}: prepared for a ranker, but none is given; run `nightrec prepare` without it"
        )
    layout, index, bundles = run.layout, run.layout.index, [ranker] if ranker else []
    items = [layout.items(shard, run.item_shards) for shard in range(run.item_shards)]
    common = [layout.catalogue, layout.popular, index.ivf, index.items, index.parameters, *items]
    digest = document_digest(asdict(options))

    def start() -> OneShard:
        shop = open_shop(run, options, ranker, chosen.name)
        session = None
        if ranker is not None:
            session = open_session(ranker, rows=run.profile["batch_lists"], device=chosen.name, threads=threads)
        workers = session.workers if session else threads or usable_cores()
        return partial(_one_shard, run, shop, session, workers)

    return over_shards(
        "score",
        output=lambda shard: layout.scores(shard, run.shards),
        inputs=lambda shard: inputs_digest(run, bundles, [*common, *_tables(run, ranker, shard)], options=digest),
        start=start,
    )


def _tables(run: Run, ranker: Bundle | None, shard: int) -> list[Path]:
    layout = run.layout
    tables = [layout.interests(shard, run.shards), layout.seen(shard, run.shards)]
    return [*tables, layout.histories(shard, run.shards)] if ranker else tables


def _one_shard(
    run: Run,
    shop: Shop,
    session: Session | None,
    workers: int,
    task: Task,
    finishing: ExitStack,
    advance: Advance,
) -> Mapping[str, int]:
    tables = _tables(run, session.bundle if session else None, task.shard)
    schema = schemas.scores(run.user_type, run.item_type)
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        with stage("read"):
            readers = [stack.enter_context(reading_table(path)) for path in tables]
        writing = writing_table(task.path, schema, metadata=run.metadata(), inputs=task.inputs)
        writer = finishing.enter_context(writing)
        source = _parts(tables, readers, session, run.profile["batch_lists"])
        parts = stack.enter_context(reading_ahead(source))
        write = stack.enter_context(writing_behind(partial(_write, writer, schema, shop)))
        work = working_side_by_side(partial(make_lists, shop, session), parts, workers=workers)
        for ranked, counted in stack.enter_context(work):
            write(ranked)
            counts.update(counted)
            advance(counted["users"])
    return {"rows": writer.rows, **counts}


def _parts(
    paths: Sequence[Path], readers: Sequence[pa.RecordBatchFileReader], session: Session | None, rows: int
) -> Iterator[Part]:
    """Cut the tables of one shard into batches of users.

    A part holds a copy of its rows: a record batch of interests is 64 MB, and is gone before the next one is read
    although some of its users are still in work.
    """
    for number in range(max(reader.num_record_batches for reader in readers)):
        batches = _aligned(paths, readers, number)
        for start in range(0, batches[0].num_rows, rows):
            cut = [copied(batch.slice(start, rows)) for batch in batches]
            with stage("encode"):
                inputs = user_inputs(cut[2], session.bundle.spec, Role.RANKER, session.rows) if session else {}
            yield Part(cut[0], cut[1], dict(inputs))
        del batches


def _aligned(paths: Sequence[Path], readers: Sequence[pa.RecordBatchFileReader], number: int) -> list[pa.RecordBatch]:
    """Read a record batch of each table of one shard: the same users in the same order, or an error."""
    batches = [reader.get_batch(number) for reader in readers if number < reader.num_record_batches]
    for path, batch in zip(paths, batches, strict=False):
        if len(batches) < len(paths) or not batch.column("user_id").equals(batches[0].column("user_id")):
            raise CorruptError(f"{path}: expected the users of {paths[0]}, in its order; run `prepare` anew")
    return batches


def _write(writer: TableWriter, schema: pa.Schema, shop: Shop, ranked: Ranked) -> None:
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
