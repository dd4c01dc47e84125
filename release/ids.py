"""Reading a file of ids: which users or items are to be taken out of a release."""

import csv
from collections.abc import Iterator
from pathlib import Path
from reprlib import repr as shown

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from artifacts.errors import InputError, UsageError

_TABLES = (".parquet", ".arrow")
_TEXTS = (".csv", ".txt")


def read_ids(path: Path, kind: pa.DataType) -> pa.Array:
    """Read the ids in a file, ascending, each once.

    Args:
        path: A table ``.parquet`` or ``.arrow`` with a column ``id``, or with one column only; or text, ``.csv`` or
            ``.txt``, with one id a line and no heading.
        kind: int64, uint64 or string, as the release has; whole numbers of another width are taken as they are.

    Raises:
        UsageError: If the file is missing, or its name has another ending.
        InputError: If it holds something else than ids of *kind*; the message names line or column.
    """
    if not path.is_file():
        raise UsageError(f"{path}: expected a file of ids, but it is missing")
    if path.suffix in _TABLES:
        ids = _of_table(path, kind)
    elif path.suffix in _TEXTS:
        ids = _of_text(path, kind)
    else:
        raise UsageError(f"{path}: expected a file whose name ends with {', '.join((*_TABLES, *_TEXTS))}")
    return pc.unique(ids).take(pc.sort_indices(pc.unique(ids)))


def _of_table(path: Path, kind: pa.DataType) -> pa.Array:
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else _arrow(path)
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise InputError(f"{path}: expected a table ({error})") from error
    names = table.column_names
    name = "id" if "id" in names else names[0] if len(names) == 1 else ""
    if not name:
        raise InputError(f"{path}: expected a column id, or one column only, found {', '.join(names) or 'none'}")
    column = table.column(name).combine_chunks()
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise InputError(f"{path}, column {name}, row {row}: expected an id, found null")
    return _cast(path, name, column, kind)


def _arrow(path: Path) -> pa.Table:
    with pa.OSFile(str(path), "rb") as file, pa.ipc.open_file(file) as reader:
        return reader.read_all()


def _cast(path: Path, name: str, column: pa.Array, kind: pa.DataType) -> pa.Array:
    found = column.type
    text = pa.types.is_string(found) or pa.types.is_large_string(found)
    if text != pa.types.is_string(kind) or not (text or pa.types.is_integer(found)):
        raise InputError(f"{path}, column {name}: the ids of the release are {kind}, found {found}")
    try:
        return column.cast(kind)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}, column {name}: the ids of the release are {kind} ({error})") from error


def _of_text(path: Path, kind: pa.DataType) -> pa.Array:
    try:
        ids = [_id(path, number, word, kind) for number, word in _words(path)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected text in UTF-8, one id a line ({error})") from error
    return pa.array(ids, kind)


def _words(path: Path) -> Iterator[tuple[int, str]]:
    """Give line numbers and ids; an empty line is passed over."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".txt":
            lines = (line.rstrip("\r\n") for line in file)
            yield from ((number, line) for number, line in enumerate(lines, 1) if line)
            return
        for number, row in enumerate(csv.reader(file, strict=True), 1):
            if len(row) > 1:
                raise InputError(f"{path}, line {number}: expected one id, found {len(row)} columns")
            if row and row[0]:
                yield number, row[0]


def _id(path: Path, number: int, word: str, kind: pa.DataType) -> int | str:
    if pa.types.is_string(kind):
        return word
    try:
        if not word.isascii() or not word.removeprefix("-").isdigit():
            raise ValueError
        return int(pa.scalar(int(word), kind).as_py())
    except (ValueError, OverflowError):
        raise InputError(f"{path}, line {number}: expected one id, as {kind}, found {shown(word)}") from None
