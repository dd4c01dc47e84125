"""What a night publishes, found, verified and read: on tables of a few rows, each written by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from artifacts import tables
from artifacts.digest import document_digest
from artifacts.documents import write_json
from artifacts.errors import CorruptError, StaleRunError
from artifacts.layout import ReleaseLayout, sidecar_of
from artifacts.release import ContentFile, Manifest
from artifacts.run import Run, run_key_of
from artifacts.tables import finish_file, opening_arrow, read_sidecar, writing_table
from release import content
from release.content import (
    batches_of,
    content_files,
    content_of_release,
    content_of_run,
    index_parameters_of,
    judged_digest,
    schema_of,
)

BUNDLES = {"item": {"model_id": "m", "bundle_id": "b"}, "user": {"model_id": "n", "bundle_id": "c"}}
TABLES = [
    "items/00000-of-00002.arrow",
    "items/00001-of-00002.arrow",
    *(f"{name}/0000{shard}-of-00003.arrow" for name in ("interests", "scores") for shard in range(3)),
    "index/items.arrow",
]
CONTENT = {*TABLES, "index/ivf.faiss", "index/index.json"}
JUDGED = {
    "prepare/catalogue.arrow",
    "prepare/popular.arrow",
    *(f"prepare/{name}/0000{shard}-of-00003.arrow" for name in ("histories", "seen") for shard in range(3)),
    "prepare/replay/happened.arrow",
    "replay/scores/00000-of-00001.arrow",
}


def write_rows(path: Path, rows: int, *, run_key: str = "") -> None:
    table = pa.table({"user_id": range(rows), "rank": [1] * rows})
    with writing_table(path, table.schema, metadata={"run_key": run_key}, inputs="") as writer:
        writer.write(table)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run of 3 shards of users and 2 ranges of items."""
    key = run_key_of("0" * 64, BUNDLES, {}, {})
    run = Run(tmp_path, key, "2026-03-01", 0, "0" * 64, "int64", "int64", 3, 2, BUNDLES, {}, {}, {})
    for number, name in enumerate([*TABLES, *sorted(JUDGED)]):
        write_rows(tmp_path / name, number, run_key=key)
    (tmp_path / "index/ivf.faiss").write_bytes(b"an index")
    write_json(tmp_path / "index/index.json", {"nprobe": 4})
    for name in ("ivf.faiss", "index.json"):
        finish_file(tmp_path / "index" / name, inputs="", run_key=key)
    return run


def flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"#")


def test_a_release_holds_these_files_of_a_run(run: Run) -> None:
    """Items, interests, scores and index, by their place within both; neither more nor less."""
    assert content_files(run) == {name: run.folder / name for name in CONTENT}


def test_what_a_run_would_publish_is_verified(run: Run) -> None:
    """Every table is found in the order of its shards, and a changed byte of any file is."""
    content = content_of_run(run)

    def named(paths: tuple[Path, ...]) -> list[str]:
        return [path.relative_to(run.folder).as_posix() for path in paths]

    assert named(content.items) == TABLES[:2]
    assert named(content.interests) == TABLES[2:5]
    assert named(content.scores) == TABLES[5:8]
    assert named((content.index_items, content.index_parameters)) == ["index/items.arrow", "index/index.json"]
    assert (content.date, content.models, content.parameters) == (
        "2026-03-01",
        {"item": "m", "user": "n"},
        {"nprobe": 4},
    )
    for name in CONTENT:
        whole = (run.folder / name).read_bytes()
        flip(run.folder / name)
        with pytest.raises(CorruptError, match=rf"{name}: expected sha256"):
            content_of_run(run)
        (run.folder / name).write_bytes(whole)


def test_what_is_not_finished_is_said_before_anything_is_read(run: Run) -> None:
    """A missing step or another run's file is found though the first file, which is read first, is changed."""
    flip(run.folder / TABLES[0])
    last = run.folder / "index/index.json"
    finish_file(last, inputs="", run_key="f" * 16)
    with pytest.raises(CorruptError, match=f"index.json: is a file of run {'f' * 16}, put into run {run.run_key}"):
        content_of_run(run)
    sidecar_of(last).unlink()
    with pytest.raises(StaleRunError, match=r"index\.json"):
        content_of_run(run)


def test_a_verdict_is_about_every_file_that_was_judged(run: Run) -> None:
    """Other rows in any table that check reads, or another key, give another digest; each must be finished."""
    files = {name: asdict(read_sidecar(run.folder / name)) for name in CONTENT | JUDGED}
    digest = judged_digest(run)
    assert digest == document_digest({"run_key": run.run_key, "files": files})

    for name in JUDGED:
        sidecar = sidecar_of(run.folder / name)
        whole = sidecar.read_bytes()
        write_rows(run.folder / name, 99, run_key=run.run_key)
        assert judged_digest(run) != digest
        sidecar.unlink()
        with pytest.raises(StaleRunError, match=name):
            judged_digest(run)
        sidecar.write_bytes(whole)
    write_rows(run.folder / "prepare/popular.arrow", 1, run_key="f" * 16)
    with pytest.raises(CorruptError, match=f"put into run {run.run_key}"):
        judged_digest(run)


@pytest.fixture
def released(run: Run) -> tuple[ReleaseLayout, Manifest]:
    """The run's files as a release lists them."""
    files = {name: ContentFile.of(read_sidecar(path)) for name, path in content_files(run).items()}
    return ReleaseLayout(run.folder), Manifest("2026-03-01", run.run_key, BUNDLES, None, files)


def test_the_tables_of_a_release_are_verified(run: Run, released: tuple[ReleaseLayout, Manifest]) -> None:
    """They are those of the run, in its order; all but the FAISS file, which nobody searches here, are read."""
    layout, manifest = released

    assert content_of_release(layout, manifest) == content_of_run(run)
    flip(layout.index.ivf)
    assert [path.name for path in content_of_release(layout, manifest).scores] == [
        Path(name).name for name in TABLES[5:8]
    ]
    for name in CONTENT - {"index/ivf.faiss"}:
        whole = (run.folder / name).read_bytes()
        flip(run.folder / name)
        with pytest.raises(CorruptError, match=rf"{name}: expected sha256"):
            content_of_release(layout, manifest)
        (run.folder / name).write_bytes(whole)


@pytest.mark.parametrize("name", ["index/items.arrow", "index/index.json"])
def test_a_release_lists_its_index(released: tuple[ReleaseLayout, Manifest], name: str) -> None:
    """Without the index's items or parameters it is no release that a night can be compared with."""
    layout, manifest = released
    others = {listed: file for listed, file in manifest.files.items() if listed != name}

    with pytest.raises(CorruptError, match=f"{name}: not listed in manifest.json"):
        content_of_release(layout, replace(manifest, files=others))


def test_what_a_release_says_of_its_index_is_verified(released: tuple[ReleaseLayout, Manifest]) -> None:
    """The one document is read without the tables, after its own bytes were checked."""
    layout, manifest = released
    flip(layout.index.items)

    assert index_parameters_of(layout, manifest) == {"nprobe": 4}
    flip(layout.index.parameters)
    with pytest.raises(CorruptError, match=r"index/index\.json: expected sha256"):
        index_parameters_of(layout, manifest)


def test_rows_are_streamed_in_parts(tmp_path: Path) -> None:
    """All rows of all tables come in order, whole batches or at most so many at a time, of the columns asked for."""
    paths = [tmp_path / f"{rows}.arrow" for rows in (5, 0, 2, 1)]
    for path in paths:
        write_rows(path, int(path.stem))

    def rows(most: int | None) -> list[list[int]]:
        return [batch.column("user_id").to_pylist() for batch in batches_of(paths, ["user_id"], most=most)]

    assert rows(None) == [[0, 1, 2, 3, 4], [0, 1], [0]]
    assert rows(2) == [[0, 1], [2, 3], [4], [0, 1], [0]]
    assert rows(5) == rows(None)
    assert [batch.schema.names for batch in batches_of(paths[:1])] == [["user_id", "rank"]]
    assert [batch.schema.names for batch in batches_of(paths[:1], ["rank"])] == [["rank"]]


def test_tables_share_a_schema(tmp_path: Path) -> None:
    """The schema is the first table's; without a table there is none, and that is said."""
    write_rows(tmp_path / "a.arrow", 0)

    assert schema_of([tmp_path / "a.arrow", tmp_path / "none.arrow"]).names == ["user_id", "rank"]
    with pytest.raises(CorruptError, match=r"^expected at least one table, found none$"):
        schema_of([])


def test_a_record_batch_is_gone_before_the_next_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who streams some rows at a time and keeps the last of them holds no whole record batch of the one before."""
    monkeypatch.setattr(tables, "BATCH_ROWS", 4096)
    path, schema = tmp_path / "table.arrow", pa.schema([pa.field("gap", pa.int64(), nullable=False)])
    with writing_table(path, schema, metadata={}, inputs="") as writer:
        writer.write(pa.table([np.arange(3 * 4096)], schema=schema))
    allocated = []

    @contextmanager
    def watching(path: Path, **more: Any) -> Iterator[Any]:
        with opening_arrow(path, **more) as reader:

            def get_batch(number: int) -> pa.RecordBatch:
                allocated.append(pa.total_allocated_bytes())
                return reader.get_batch(number)

            yield SimpleNamespace(num_record_batches=reader.num_record_batches, get_batch=get_batch)

    monkeypatch.setattr(content, "opening_arrow", watching)
    numbers = [number for rows in batches_of([path], most=100) for number in rows.column(0).to_pylist()]

    assert numbers == list(range(3 * 4096))
    assert len(allocated) == 3
    assert max(allocated) - allocated[0] < 4096 * 8 / 2
