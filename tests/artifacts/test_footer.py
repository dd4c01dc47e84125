"""What an Arrow file claims is looked at before it is believed."""

import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts import footer
from artifacts.errors import CorruptError, NightrecError
from artifacts.footer import MOST_ROWS, require_bearable
from artifacts.tables import opening_arrow, writing_table

SCHEMA = pa.schema(
    [pa.field("id", pa.int64(), nullable=False), pa.field("name", pa.string()), pa.field("x", pa.float32())]
)


def batch(rows: int) -> pa.RecordBatch:
    return pa.record_batch([range(rows), [f"n{row}" for row in range(rows)], [None] * rows], schema=SCHEMA)


def write(path: Path, batches: list[pa.RecordBatch], compression: str | None = "zstd") -> Path:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    schema = batches[0].schema.with_metadata({"format": "1"})
    with pa.ipc.new_file(str(path), schema, options=options) as file:
        for one in batches:
            file.write_batch(one.replace_schema_metadata(schema.metadata))
    return path


def decompressed(one: pa.RecordBatch) -> int:
    """Bytes of the buffers that the format writes of a batch: without a validity where nothing is null."""
    size = 0
    for column in one.columns:
        for place, buffer in enumerate(column.buffers()):
            if place or column.null_count:
                size += buffer.size if buffer else 0
    return size


@pytest.mark.parametrize("compression", ["zstd", "lz4", None])
def test_claims_are_what_the_batches_hold(tmp_path: Path, compression: str | None) -> None:
    """Rows and decompressed bytes of each batch are those that reading it gives."""
    batches = [batch(rows) for rows in (1000, 1, 300)]
    path = write(tmp_path / "a.arrow", batches, compression)
    with path.open("rb", buffering=0) as file:
        found = list(footer._batches(file))
    assert [rows for rows, _ in found] == [1000, 1, 300]
    for (_, size), one in zip(found, batches, strict=True):
        assert abs(size - decompressed(one)) < 64 * 6  # buffers that are stored as they are may be padded to 64


def test_our_own_tables_are_bearable(tmp_path: Path) -> None:
    """A table of several batches, and one of none, is read as it was written."""
    for rows in (0, 5, MOST_ROWS * 2 + 7):
        path = tmp_path / f"{rows}.arrow"
        with writing_table(path, SCHEMA, metadata={}, inputs="i") as writer:
            writer.write(batch(rows))
        with opening_arrow(path) as reader:
            assert reader.read_all().num_rows == rows


def test_too_many_rows_are_refused_before_they_are_read(tmp_path: Path) -> None:
    """A batch of millions of zeros in a few kilobytes is refused, with both numbers."""
    rows = 20_000_000
    zeros = pa.record_batch([pa.array(memoryview(bytes(8 * rows)).cast("q"), pa.int64())], names=["id"])
    path = write(tmp_path / "bomb.arrow", [zeros])
    assert path.stat().st_size < rows
    before = pa.total_allocated_bytes()
    with (
        pytest.raises(CorruptError, match=rf"record batch 0 claims {rows} rows .* at most {MOST_ROWS} rows"),
        opening_arrow(path),
    ):
        pass
    assert pa.total_allocated_bytes() < before + 1_000_000


def test_a_buffer_that_claims_a_petabyte_is_refused(tmp_path: Path) -> None:
    """The length before a compressed buffer is compared with what any table of ours may have."""
    path = write(tmp_path / "a.arrow", [batch(1000)])
    content = bytearray(path.read_bytes())
    place = content.index(struct.pack("<q", 8000))  # of the ids: 1000 numbers
    for claimed in (1 << 50, -5):
        content[place : place + 8] = struct.pack("<q", claimed)
        path.write_bytes(content)
        with pytest.raises(CorruptError, match="claims 1000 rows"):
            require_bearable(path)


def test_a_dictionary_is_refused(tmp_path: Path) -> None:
    """None of our tables has one, so none is read."""
    coded = pa.array(["a" * 1000] * 10).dictionary_encode()
    path = write(tmp_path / "a.arrow", [pa.record_batch([coded], names=["id"])])
    with pytest.raises(CorruptError, match="dictionar"):
        require_bearable(path)
    with pytest.raises(CorruptError, match="dictionary"), opening_arrow(path):
        pass


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_changed_bytes_are_read_or_named(tmp_path: Path, data: st.DataObject) -> None:
    """A file with bytes changed, cut or added is opened and read, or it is one of our errors."""
    path = tmp_path / "a.arrow"
    if not (tmp_path / "whole.arrow").exists():
        write(tmp_path / "whole.arrow", [batch(40), batch(3)])
    content = bytearray((tmp_path / "whole.arrow").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    path.write_bytes(bytes(content[:end]) + data.draw(st.binary(max_size=12) | st.just(b"")))
    named: list[Any] = []
    try:
        require_bearable(path)
    except NightrecError as error:
        named.append(error)
    assert all(path.name in str(error) for error in named)


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"ARROW1\x00\x00" + b"\xff" * 4 + b"ARROW1", b"x" * 100])
def test_what_is_no_arrow_file_is_named(tmp_path: Path, content: bytes) -> None:
    """Too short, without an end, or with an impossible footer: one message."""
    path = tmp_path / "a.arrow"
    path.write_bytes(content)
    with pytest.raises(CorruptError, match=r"a\.arrow: expected an Arrow file"):
        require_bearable(path)


@pytest.mark.parametrize("at", [-1, 100, 1 << 48, (1 << 63) - 1, 1 << 64])
def test_a_place_outside_of_the_file_is_strange(tmp_path: Path, at: int) -> None:
    """However far it lies: the system refuses a part of these by errors of its own."""
    (tmp_path / "a.arrow").write_bytes(b"x" * 100)
    with (tmp_path / "a.arrow").open("rb", buffering=0) as file, pytest.raises(footer._StrangeError):
        footer._piece(file, at, 8)
