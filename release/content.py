"""One night's tables, of a run or of a release, verified and ready to be measured."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from artifacts.digest import document_digest
from artifacts.documents import read_json
from artifacts.errors import CorruptError
from artifacts.layout import ReleaseLayout
from artifacts.release import Manifest, verify_content_file
from artifacts.run import Run, replay_of
from artifacts.tables import copied, opening_arrow, sidecar_within, verify_file


@dataclass(frozen=True, slots=True)
class Content:
    """What is published of a night: paths of verified tables.

    Attributes:
        date: The data date, ISO.
        models: Role to model id.
        scores: Recommendations, one file a shard.
        interests: Interest vectors, one file a shard.
        items: Item vectors, one file a range of the catalogue, ascending by id.
        index_items: Ids of the indexed items.
        index_parameters: Path of ``index.json``.
        parameters: What it says.
    """

    date: str
    models: dict[str, str]
    scores: tuple[Path, ...]
    interests: tuple[Path, ...]
    items: tuple[Path, ...]
    index_items: Path
    index_parameters: Path
    parameters: dict[str, Any]


def content_files(run: Run) -> dict[str, Path]:
    """Name the files of *run* that a release holds: path within run and release to where it lies."""
    layout = run.layout
    paths = [
        *(layout.items(shard, run.item_shards) for shard in range(run.item_shards)),
        *(layout.interests(shard, run.shards) for shard in range(run.shards)),
        *(layout.scores(shard, run.shards) for shard in range(run.shards)),
        layout.index.ivf,
        layout.index.items,
        layout.index.parameters,
    ]
    return {path.relative_to(run.folder).as_posix(): path for path in paths}


def judged_digest(run: Run) -> str:
    """Digest what was recorded of every file that ``check`` reads, when it was written.

    Raises:
        StaleRunError: If a file is not finished.
    """
    layout = run.layout
    histories = [layout.histories(shard, run.shards) for shard in range(run.shards)]
    seen = [layout.seen(shard, run.shards) for shard in range(run.shards)]
    replay = replay_of(run).layout
    paths = [*content_files(run).values(), layout.catalogue, layout.popular, *histories, *seen]
    paths += [replay.happened, replay.scores(0, 1)]
    recorded = {path.relative_to(run.folder).as_posix(): asdict(sidecar_within(path, run.run_key)) for path in paths}
    return document_digest({"run_key": run.run_key, "files": recorded})


def content_of_run(run: Run) -> Content:
    """Verify what *run* would publish.

    Raises:
        StaleRunError: If a step is not finished.
        CorruptError: If a file is missing or changed.
    """
    files = content_files(run)
    for path in files.values():
        sidecar_within(path, run.run_key)  # what is not finished is said before gigabytes are read
    for path in files.values():
        verify_file(path)
    layout = run.layout
    models = {role: ids["model_id"] for role, ids in run.bundles.items()}
    users = range(run.shards)
    return Content(
        run.date,
        models,
        tuple(layout.scores(shard, run.shards) for shard in users),
        tuple(layout.interests(shard, run.shards) for shard in users),
        tuple(layout.items(shard, run.item_shards) for shard in range(run.item_shards)),
        layout.index.items,
        layout.index.parameters,
        read_json(layout.index.parameters),
    )


def content_of_release(layout: ReleaseLayout, manifest: Manifest) -> Content:
    """Verify the tables of a release.

    Raises:
        CorruptError: If a file is missing or changed.
    """
    index = layout.index
    read = {name for name in manifest.files if layout.folder / name != index.ivf}  # its search is not repeated
    paths = {name: verify_content_file(layout, manifest, name) for name in sorted(read)}
    for expected in (index.items, index.parameters):
        if expected not in paths.values():
            raise CorruptError(f"{expected}: not listed in {layout.manifest.name}")
    models = {role: ids["model_id"] for role, ids in manifest.bundles.items()}

    def inside(folder: Path) -> tuple[Path, ...]:
        return tuple(path for path in paths.values() if path.parent == folder)

    return Content(
        manifest.date,
        models,
        inside(layout.scores),
        inside(layout.interests),
        inside(layout.items),
        index.items,
        index.parameters,
        read_json(index.parameters),
    )


def index_parameters_of(layout: ReleaseLayout, manifest: Manifest) -> dict[str, Any]:
    """Verify and read what a release says of its index.

    Raises:
        CorruptError: If the file is not listed, missing or changed.
    """
    path = layout.index.parameters
    return read_json(verify_content_file(layout, manifest, path.relative_to(layout.folder).as_posix()))


def batches_of(
    paths: Sequence[Path], columns: Sequence[str] | None = None, *, most: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Stream the rows of verified tables, of all their *columns* or of some, at most *most* rows at a time.

    So many rows are a copy: who still holds the last of a record batch does not hold all of it while the next is read.
    """
    for path in paths:
        with opening_arrow(path, columns=columns) as reader:
            for number in range(reader.num_record_batches):
                yield from _pieces(reader.get_batch(number), most)


def _pieces(batch: pa.RecordBatch, most: int | None) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, most or max(1, batch.num_rows)):
        rows = batch.slice(start, most)
        yield copied(rows) if most else rows


def schema_of(paths: Sequence[Path]) -> pa.Schema:
    """Read the schema that the tables share.

    Raises:
        CorruptError: If there are none.
    """
    if not paths:
        raise CorruptError("expected at least one table, found none")
    with opening_arrow(paths[0]) as reader:
        return reader.schema
