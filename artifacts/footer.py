"""What an Arrow file claims to hold, read from its own lists before a byte of it is decompressed or allocated.

The layout is that of the Arrow IPC file format (Footer, Message and RecordBatch of its flatbuffers): only the few
fields that say how much will be allocated are followed, and every place is checked to lie inside.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from artifacts.errors import CorruptError

MOST_ROWS = 65_536  # of a record batch; ours are cut so
MOST_BYTES = 1 << 32  # of a record batch, decompressed: the longest histories take a good half of it
_MAGIC = b"ARROW1"
_MOST_LIST = 1 << 26  # bytes of a footer, or of what describes one batch
_RECORD_BATCH = 3  # of the union MessageHeader


class _StrangeError(Exception):
    """The file is not laid out as the format says."""


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of a flatbuffer: its content, and where in it the table starts."""

    content: bytes
    start: int

    def at(self, field: int) -> int:
        """Where a field's value stands; 0 if it is absent."""
        (back,) = _read("<i", self.content, self.start)
        slots = self.start - back
        (length,) = _read("<H", self.content, slots)
        if 4 + 2 * field >= length:
            return 0
        (offset,) = _read("<H", self.content, slots + 4 + 2 * field)
        return self.start + offset if offset else 0

    def number(self, field: int, form: str) -> int:
        """A number; 0 if it is absent."""
        at = self.at(field)
        return int(_read(form, self.content, at)[0]) if at else 0

    def table(self, field: int) -> "_Table":
        """A table inside."""
        at = self.at(field)
        if not at:
            raise _StrangeError
        return _Table(self.content, at + _read("<I", self.content, at)[0])

    def structs(self, field: int, form: str) -> list[tuple[int, ...]]:
        """A vector of structs; none if it is absent."""
        at = self.at(field)
        if not at:
            return []
        at += _read("<I", self.content, at)[0]
        (count,) = _read("<I", self.content, at)
        size = struct.calcsize(form)
        if at + 4 + count * size > len(self.content):
            raise _StrangeError
        return list(struct.iter_unpack(form, self.content[at + 4 : at + 4 + count * size]))


def _read(form: str, content: bytes, at: int) -> tuple[int, ...]:
    if not 0 <= at <= len(content) - struct.calcsize(form):
        raise _StrangeError
    return struct.unpack_from(form, content, at)


def _root(content: bytes) -> _Table:
    return _Table(content, _read("<I", content, 0)[0])


def require_bearable(path: Path) -> None:
    """Refuse an Arrow file that would allocate more than any table of ours does.

    Raises:
        CorruptError: If it has dictionaries, or a record batch of more than ``MOST_ROWS`` rows or ``MOST_BYTES`` bytes,
            decompressed; or it is not laid out as the format says.
    """
    with path.open("rb", buffering=0) as file:
        try:
            for number, (rows, size) in enumerate(_batches(file)):
                if not 0 <= rows <= MOST_ROWS or not 0 <= size <= MOST_BYTES:
                    raise CorruptError(
                        f"{path}: record batch {number} claims {rows} rows and {size} bytes; expected at most "
                        f"{MOST_ROWS} rows and {MOST_BYTES} bytes"
                    )
        except _StrangeError:
            raise CorruptError(f"{path}: expected an Arrow file without dictionaries, as we write them") from None


def _batches(file: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Give rows and decompressed bytes of each record batch, as the file claims them."""
    end = file.seek(0, os.SEEK_END) - len(_MAGIC) - 4
    length, magic = struct.unpack("<i6s", _piece(file, end, 10))
    if magic != _MAGIC or not 0 < length <= _MOST_LIST:
        raise _StrangeError
    footer = _root(_piece(file, end - length, length))
    if footer.structs(2, "<qi4xq"):
        raise _StrangeError
    for offset, described, _ in footer.structs(3, "<qi4xq"):
        if not 8 < described <= _MOST_LIST:
            raise _StrangeError
        message = _root(_piece(file, offset, described)[8:])  # behind the continuation mark and a length
        if message.number(1, "<B") != _RECORD_BATCH:
            raise _StrangeError
        batch = message.table(2)
        packed = batch.at(3) != 0
        size = 0
        for at, stored in batch.structs(2, "<qq"):
            size += _decompressed(file, offset + described + at, stored) if packed else max(stored, 0)
        yield batch.number(0, "<q"), size


def _decompressed(file: IO[bytes], at: int, stored: int) -> int:
    """Give the length that a compressed buffer begins with; -1 there says that it is stored as it is."""
    if stored < 8:
        return max(stored, 0)
    (claimed,) = struct.unpack("<q", _piece(file, at, 8))
    return stored if claimed == -1 else MOST_BYTES + 1 if claimed < 0 else int(claimed)


def _piece(file: IO[bytes], at: int, length: int) -> bytes:
    if not 0 <= at <= os.fstat(file.fileno()).st_size - length:  # the system itself refuses to go far behind the end
        raise _StrangeError
    file.seek(at)
    found = file.read(length)
    if len(found) != length:
        raise _StrangeError
    return found
