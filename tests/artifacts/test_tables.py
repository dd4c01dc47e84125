"""Tables: the same rows give the same bytes, and no byte can change unnoticed."""

import hashlib
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts import schemas
from artifacts.errors import CorruptError, InputError, StaleRunError
from artifacts.layout import sidecar_of
from artifacts.tables import (
    BATCH_ROWS,
    Sidecar,
    finish_file,
    is_done,
    opening_arrow,
    read_sidecar,
    read_table,
    reading_table,
    sidecar_within,
    verify_file,
    writing_table,
)

LAWS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("flag", pa.bool_()),
        pa.field("sure", pa.bool_(), nullable=False),
        pa.field("number", pa.int64()),
        pa.field("share", pa.float32()),
        pa.field("title", pa.string()),
        pa.field("small", pa.uint8()),
        pa.field("rows", schemas.rows_of(pa.int32()), nullable=False),
        pa.field("vectors", schemas.rows_of(schemas.vector_of(2)), nullable=False),
        pa.field("vector", schemas.vector_of(3), nullable=False),
    ]
)
_float = st.floats(width=32, allow_nan=False)
_row = st.fixed_dictionaries(
    {
        "id": st.text(max_size=4),
        "flag": st.none() | st.booleans(),
        "sure": st.booleans(),
        "number": st.none() | st.integers(-(2**63), 2**63 - 1),
        "share": st.none() | _float,
        "title": st.none() | st.text(max_size=3),
        "small": st.none() | st.integers(0, 255),
        "rows": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
        "vectors": st.lists(st.lists(_float, min_size=2, max_size=2), max_size=3),
        "vector": st.lists(_float, min_size=3, max_size=3),
    }
)
rows_of_all_types = st.lists(_row, min_size=1, max_size=40)


def write(path: Path, parts: Sequence[pa.Table], schema: pa.Schema = SCHEMA, **metadata: str) -> bytes:
    with writing_table(path, schema, metadata=metadata, inputs="d") as writer:
        for part in parts:
            writer.write(part)
    return path.read_bytes()


def dirty(table: pa.Table) -> pa.Table:
    """Give the same values with rubbish in the null slots of numbers and booleans, and an offset everywhere."""
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        array = pa.concat_arrays([column.combine_chunks().slice(0, 1), column.combine_chunks()]).slice(1)
        if name in {"number", "small", "share"} and array.null_count:
            valid = array.is_valid().to_numpy(zero_copy_only=False)
            values = np.where(valid, array.fill_null(0).to_numpy(), 77).astype(array.type.to_pandas_dtype())
            array = pa.array(values, array.type, mask=~valid)
        columns.append(array)
    return pa.table(columns, schema=table.schema)


@LAWS
@given(rows=rows_of_all_types, cuts=st.lists(st.integers(0, 40), max_size=5))
def test_same_rows_give_the_same_bytes_however_they_are_cut(
    tmp_path: Path, rows: list[dict[str, Any]], cuts: list[int]
) -> None:
    """Chunks, slices, offsets and what lies under a null change no byte of the file."""
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [table.slice(a, b - a) for a, b in pairwise(bounds)]
    whole = write(tmp_path / "a.arrow", [table])
    assert write(tmp_path / "a.arrow", parts) == whole
    assert write(tmp_path / "a.arrow", [dirty(part) for part in parts if part.num_rows]) == whole
    one_by_one = [part.combine_chunks().to_batches()[0] for part in parts if part.num_rows]
    assert write(tmp_path / "a.arrow", one_by_one) == whole  # type: ignore[arg-type]


@LAWS
@given(rows=rows_of_all_types)
def test_what_is_written_reads_back_equal(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    """Values of every type come back as they went in, nulls and empty lists included."""
    write(tmp_path / "a.arrow", [dirty(pa.Table.from_pylist(rows, schema=SCHEMA))])
    found = read_table(tmp_path / "a.arrow")
    found.validate(full=True)
    assert found.to_pylist() == rows
    assert found.schema.equals(SCHEMA)


def test_null_slots_are_zero_on_disk(tmp_path: Path) -> None:
    """Under a null lies zero, whatever lay there before: for numbers, booleans and text."""
    schema = pa.schema([("n", pa.int64()), ("b", pa.bool_()), ("s", pa.string())])
    hidden = pa.array(np.full(11, 2**40 + 1), mask=np.arange(11) % 2 == 0)
    flags = pa.array(np.ones(11, bool), mask=np.arange(11) % 3 == 0)
    text = pa.array(["secret"] * 11)
    masked = pa.Array.from_buffers(pa.string(), 11, [flags.buffers()[0], *text.buffers()[1:]])
    write(tmp_path / "a.arrow", [pa.table([hidden, flags, masked], schema=schema)], schema)
    found = read_table(tmp_path / "a.arrow").combine_chunks()
    numbers = np.frombuffer(found["n"].chunk(0).buffers()[1], np.int64)[:11]
    assert numbers.tolist() == [0, 2**40 + 1] * 5 + [0]
    bits = np.unpackbits(np.frombuffer(found["b"].chunk(0).buffers()[1], np.uint8), bitorder="little")[:11]
    assert bits.tolist() == [int(place % 3 > 0) for place in range(11)]
    data = found["s"].chunk(0).buffers()[2].to_pybytes()
    assert data.count(b"secret") == sum(place % 3 > 0 for place in range(11))


def test_batches_have_exactly_the_fixed_rows(tmp_path: Path) -> None:
    """Record batches have 65,536 rows, the last one fewer, however the rows arrive."""
    schema = pa.schema([pa.field("n", pa.int32(), nullable=False)])
    table = pa.table([np.arange(2 * BATCH_ROWS + 5, dtype=np.int32)], schema=schema)
    first = write(tmp_path / "a.arrow", [table], schema)
    second = write(tmp_path / "a.arrow", [table.slice(start, 50_000) for start in range(0, len(table), 50_000)], schema)
    assert first == second
    with reading_table(tmp_path / "a.arrow") as reader:
        sizes = [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)]
    assert sizes == [65_536, 65_536, 5]


def test_table_without_rows_is_a_table(tmp_path: Path) -> None:
    """An empty table has its schema, no batch, and a sidecar that says 0 rows."""
    write(tmp_path / "a.arrow", [])
    assert read_table(tmp_path / "a.arrow").num_rows == 0
    assert verify_file(tmp_path / "a.arrow").rows == 0


def test_metadata_is_sorted_and_named(tmp_path: Path) -> None:
    """The order in which metadata is given changes no byte; ``format`` is among it."""
    one = write(tmp_path / "a.arrow", [], run_key="k", data_date="2026-01-01")
    two = write(tmp_path / "a.arrow", [], data_date="2026-01-01", run_key="k")
    assert one == two
    said = {b"data_date": b"2026-01-01", b"format": b"1", b"run_key": b"k"}
    assert read_table(tmp_path / "a.arrow").schema.metadata == said


def test_null_in_a_column_without_nulls_is_named(tmp_path: Path) -> None:
    """A null where none may be is an error naming column and count, and leaves no file."""
    schema = pa.schema([pa.field("user_id", pa.int64(), nullable=False)])
    with pytest.raises(InputError, match="user_id: expected no nulls, found 2"):
        write(
            tmp_path / "a.arrow",
            [pa.table([pa.array([1, None, None])], schema=pa.schema([("user_id", "int64")]))],
            schema,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "kind", [schemas.rows_of(pa.int32()), schemas.vector_of(2), schemas.rows_of(schemas.vector_of(2))]
)
def test_null_list_is_refused_not_rewritten(tmp_path: Path, kind: pa.DataType) -> None:
    """A null list, or a null inside one, never becomes an empty or shifted list in silence."""
    row = [1, 2] if kind != schemas.rows_of(schemas.vector_of(2)) else [[1, 2]]
    for nullable in (True, False):
        schema = pa.schema([pa.field("v", kind, nullable=nullable)])
        loose = pa.schema([pa.field("v", kind)])
        with pytest.raises(InputError, match="v: expected no nulls"):
            write(tmp_path / "a.arrow", [pa.table([pa.array([row, None], kind)], schema=loose)], schema)


def test_null_inside_a_list_is_refused(tmp_path: Path) -> None:
    """A null element of a list whose elements cannot be null is an error."""
    kind = schemas.rows_of(pa.int32())
    inner = pa.array([1, None, 3], pa.int32())
    lists = pa.ListArray.from_arrays(pa.array([0, 3], pa.int32()), inner, type=kind)
    with pytest.raises(InputError, match="item: expected no nulls"):
        write(tmp_path / "a.arrow", [pa.table([lists], names=["v"])], pa.schema([("v", kind)]))


def test_other_columns_are_refused(tmp_path: Path) -> None:
    """Columns of other names, types or order are an error, and nothing is left."""
    schema = pa.schema([pa.field("a", pa.int32()), pa.field("b", pa.int32())])
    for wrong in (pa.table({"b": [1], "a": [1]}), pa.table({"a": pa.array([1], pa.int32())})):
        with pytest.raises(ValueError, match="expected the columns"):
            write(tmp_path / "a.arrow", [wrong], schema)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """Write a table with a bit of everything."""
    rows = [
        {
            "id": f"u{n}",
            "flag": n % 3 == 0,
            "sure": True,
            "number": n * n,
            "share": n / 7,
            "title": None,
            "small": n % 200,
            "rows": list(range(n % 5)),
            "vectors": [[n, -n]] * (n % 3),
            "vector": [n, 0, 1],
        }
        for n in range(300)
    ]
    path = tmp_path / "a.arrow"
    write(path, [pa.Table.from_pylist(rows, schema=SCHEMA)])
    return path


@LAWS
@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_one_flipped_byte_anywhere_is_found(finished: Path, place: float, change: int) -> None:
    """Whatever byte changes, the file is refused by name before a row of it is read."""
    whole = finished.read_bytes()
    data = bytearray(whole)
    data[int(place * len(data))] ^= change
    finished.write_bytes(data)
    try:
        with pytest.raises(CorruptError, match=r"a\.arrow: expected sha256 .*; remove it and run its step again"):
            read_table(finished)
    finally:
        finished.write_bytes(whole)


def test_truncated_longer_and_missing_files_are_told_apart(finished: Path) -> None:
    """A file cut short or grown says both sizes; one that is gone says so."""
    data = finished.read_bytes()
    for wrong in (data[:-1], data + b"\0", b""):
        finished.write_bytes(wrong)
        with pytest.raises(
            CorruptError, match=f"expected {len(data)} bytes, found {len(wrong)}; remove it and run its step again"
        ):
            read_table(finished)
    finished.unlink()
    with pytest.raises(CorruptError, match="missing; run its step again"):
        read_table(finished)


def test_sidecar_tells_what_was_written(finished: Path) -> None:
    """Size, digest and rows are those of the file; a file without a sidecar is not finished."""
    sidecar = read_sidecar(finished)
    data = finished.read_bytes()
    assert sidecar == Sidecar(len(data), hashlib.sha256(data).hexdigest(), 300, "d")
    sidecar_of(finished).unlink()
    for read in (read_sidecar, verify_file, read_table):
        with pytest.raises(StaleRunError, match=r"a\.arrow is not finished"):
            read(finished)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "size": 3}', "\xff"])
def test_foreign_sidecar_is_an_error_that_names_it(finished: Path, text: str) -> None:
    """Whatever stands in a sidecar that is not ours is a CorruptError naming the sidecar."""
    sidecar_of(finished).write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptError, match=r"a\.arrow\.done\.json"):
        verify_file(finished)
    assert not is_done(finished, "d")  # its step writes both anew


def test_every_changed_byte_of_a_sidecar_is_found(finished: Path) -> None:
    """A digit of the rows would go into a manifest as it is."""
    path = sidecar_of(finished)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CorruptError, match=r"a\.arrow\.done\.json"):
            read_sidecar(finished)


def test_done_means_same_inputs_and_same_size(finished: Path) -> None:
    """A file is done only for the inputs it was made from, while it is there with its size."""
    assert is_done(finished, "d")
    assert not is_done(finished, "other")
    finished.write_bytes(b"")
    assert not is_done(finished, "d")
    finished.unlink()
    assert not is_done(finished, "d")


def test_failed_rewrite_leaves_an_unfinished_file(finished: Path) -> None:
    """A writer that dies leaves no sidecar that could bless what lies there, and no other file."""
    with pytest.raises(ZeroDivisionError), writing_table(finished, SCHEMA, metadata={}, inputs="d"):
        1 / 0  # noqa: B018
    assert not is_done(finished, "d")
    assert [path.name for path in finished.parent.iterdir()] == [finished.name]


def test_rerun_with_fewer_rows_leaves_none_of_the_old_ones(finished: Path) -> None:
    """A file that is written again holds the new rows alone."""
    write(finished, [])
    assert read_table(finished).num_rows == 0
    assert read_sidecar(finished).rows == 0


def test_foreign_file_gets_a_sidecar(tmp_path: Path) -> None:
    """A file that another library wrote is recorded as it lies there."""
    path = tmp_path / "ivf.faiss"
    path.write_bytes(b"index")
    assert finish_file(path, inputs="d") == Sidecar(5, hashlib.sha256(b"index").hexdigest(), 0, "d")
    assert verify_file(path).size == 5
    assert json.loads(sidecar_of(path).read_text())["format"] == 1


def test_only_the_columns_asked_for_are_decoded(finished: Path) -> None:
    """A reader gets the columns it names, in the file's order; one that is not there is named with the file."""
    with opening_arrow(finished, columns=["number", "sure"]) as reader:
        assert reader.schema.names == ["sure", "number"]
        assert reader.get_batch(0)["number"].to_pylist() == [n * n for n in range(300)]
    with (
        pytest.raises(CorruptError, match=r"a\.arrow: expected a column age"),
        opening_arrow(finished, columns=["age"]),
    ):
        pass


def test_foreign_arrow_file_is_refused(tmp_path: Path) -> None:
    """Bytes that are no Arrow file, an Arrow file without our format, and no file at all are errors naming the path."""
    path = tmp_path / "a.arrow"
    with pytest.raises(CorruptError, match="missing"), opening_arrow(path):
        pass
    for data in (b"", b"abc", b"x" * 1000):
        path.write_bytes(data)
        with pytest.raises(CorruptError, match=r"a\.arrow"), opening_arrow(path):
            pass
    table = pa.table({"a": [1]})
    with pa.ipc.new_file(path, table.schema) as stream:
        stream.write_table(table)
    with pytest.raises(CorruptError, match="format = 1"), opening_arrow(path):
        pass


def test_trouble_of_another_file_is_not_blamed_on_the_one_being_read(finished: Path) -> None:
    """A full disk while a table is read is no sign that the table is corrupt."""
    with pytest.raises(OSError, match="No space left"), opening_arrow(finished):
        raise OSError(28, "No space left on device")


def test_a_file_of_another_run_is_found(tmp_path: Path) -> None:
    """Another night's table, put in its place with its sidecar, is whole, and is not this night's."""
    table = pa.table({"value": pa.array(["a"])}, schema=pa.schema([pa.field("value", pa.string(), nullable=False)]))
    with writing_table(tmp_path / "a.arrow", table.schema, metadata={"run_key": "1" * 16}, inputs="d") as writer:
        writer.write(table)

    assert sidecar_within(tmp_path / "a.arrow", "1" * 16).rows == 1
    with pytest.raises(CorruptError, match=rf"a\.arrow: is a file of run {'1' * 16}, put into run {'2' * 16}"):
        sidecar_within(tmp_path / "a.arrow", "2" * 16)


@pytest.mark.parametrize(("name", "level"), [("number", 1), ("rows", 1), ("vector", None), ("vectors", None)])
def test_all_but_vectors_is_compressed(tmp_path: Path, name: str, level: int | None) -> None:
    """A table with vectors is stored as it is, any other with zstd's level 1."""
    rng = np.random.default_rng(1)
    numbers = pa.array(rng.integers(0, 9, 3000))
    flat = pa.array(rng.standard_normal(9000, dtype=np.float32))
    offsets = pa.array(np.arange(3001, dtype=np.int32))
    kind = SCHEMA.field(name).type
    column = {
        "number": lambda: numbers,
        "rows": lambda: pa.ListArray.from_arrays(offsets, numbers.cast(pa.int32()), type=kind),
        "vector": lambda: pa.FixedSizeListArray.from_arrays(flat, type=kind),
        "vectors": lambda: pa.ListArray.from_arrays(
            offsets, pa.FixedSizeListArray.from_arrays(flat[:6000], type=kind.value_type), type=kind
        ),
    }[name]()
    schema = pa.schema([SCHEMA.field(name).with_nullable(False)])
    batch = pa.record_batch([column], schema=schema.with_metadata({"format": "1"}))
    options = pa.ipc.IpcWriteOptions(compression=level and pa.Codec("zstd", compression_level=level))
    expected = pa.BufferOutputStream()
    with pa.ipc.new_file(expected, batch.schema, options=options) as stream:
        stream.write_batch(batch)

    assert write(tmp_path / "table.arrow", [pa.Table.from_batches([batch])], schema) == expected.getvalue().to_pybytes()
