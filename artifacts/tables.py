"""Arrow tables as files with canonical bytes: written once with a sidecar, verified before every use."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from reprlib import repr as shown
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from artifacts.digest import file_digest
from artifacts.documents import read_sealed, write_sealed
from artifacts.errors import CorruptError, InputError, NightrecError, StaleRunError
from artifacts.fields import SHA256, only, text, whole
from artifacts.footer import require_bearable
from artifacts.layout import sidecar_of
from artifacts.store import fetched, is_there, remove_file, size_of, staged_file

FORMAT = 1
BATCH_ROWS = 65_536
# What Arrow says of bytes that are no file of its own, or one of a type that nobody has.
_OTHER_BYTES = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowKeyError, pa.ArrowIndexError)
_PIECE = 1 << 18  # bytes that are digested and, still in the cache, written


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What is known of a finished file; it lies beside the file as ``NAME.done.json``.

    Attributes:
        size: Bytes on disk.
        sha256: Digest taken while the file was written.
        rows: Rows of a table, 0 of another file.
        inputs: Digest of all that the content was computed from.
        run_key: The run that it belongs to; ``""`` for a file of no run.
    """

    size: int
    sha256: str
    rows: int
    inputs: str
    run_key: str = ""

    def write(self, path: Path) -> None:
        """Say that the file at *path* is done."""
        write_sealed(sidecar_of(path), asdict(self), version=FORMAT)


def read_sidecar(path: Path) -> Sidecar:
    """Read what was recorded of the file at *path*.

    Raises:
        StaleRunError: If there is no sidecar: the file is not finished.
        CorruptError: If the sidecar is not one of ours.
    """
    sidecar = sidecar_of(path)
    if not is_there(sidecar):
        raise StaleRunError(f"{path} is not finished (no {sidecar.name}); run the step that writes it first")
    document = read_sealed(sidecar, version=FORMAT, remedy=f"remove it and {path.name}, and run their step again")
    try:
        only(document, "size", "sha256", "rows", "inputs", "run_key")
        size, sha256, rows = whole(document, "size"), text(document, "sha256", SHA256), whole(document, "rows")
        return Sidecar(size, sha256, rows, str(document["inputs"]), str(document["run_key"]))
    except (KeyError, ValueError) as error:
        raise CorruptError(f"{sidecar}: expected the fields of a sidecar ({error})") from error


def sidecar_within(path: Path, run_key: str) -> Sidecar:
    """Read what was recorded of a file of the run *run_key*: another night's, put in its place, is whole but not its.

    Raises:
        StaleRunError: If it is not finished.
        CorruptError: If it was made in another run.
    """
    sidecar = read_sidecar(path)
    if sidecar.run_key not in ("", run_key):
        raise CorruptError(
            f"{path}: is a file of run {sidecar.run_key}, put into run {run_key}; remove it and its sidecar, and run "
            "its step again"
        )
    return sidecar


def is_done(path: Path, inputs: str) -> bool:
    """Whether *path* was finished from the same *inputs* (a digest) and still has the size it had then."""
    if not is_there(sidecar_of(path)):
        return False
    try:
        sidecar = read_sidecar(path)
    except CorruptError:
        return False  # cut short as the power went: its step writes both anew
    return sidecar.inputs == inputs and sidecar.size == size_of(path)


def verify_file(path: Path) -> Sidecar:
    """Check the bytes of a finished file against its sidecar.

    Raises:
        StaleRunError: If it is not finished.
        CorruptError: If it is missing, or its bytes are others.
    """
    sidecar = read_sidecar(path)
    again = "remove it and run its step again"
    try:
        fetched(path, sidecar.sha256)
    except CorruptError as error:
        raise CorruptError(f"{error}; run its step again") from error
    if (size := path.stat().st_size) != sidecar.size:
        raise CorruptError(f"{path}: expected {sidecar.size} bytes, found {size}; {again}")
    if (found := file_digest(path)) != sidecar.sha256:
        raise CorruptError(f"{path}: expected sha256 {sidecar.sha256}, found {found}: its bytes were changed; {again}")
    return sidecar


class _Hashing:
    """A binary file that is digested and measured while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, view.nbytes, _PIECE):
            piece = view[start : start + _PIECE]
            self._digest.update(piece)
            self._file.write(piece)
        self.size += view.nbytes
        return view.nbytes

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class TableWriter:
    """Collects rows and writes them in batches of exactly ``BATCH_ROWS``; made by :func:`writing_table`."""

    def __init__(self, stream: pa.RecordBatchFileWriter, schema: pa.Schema) -> None:
        """Write to *stream*, whose schema is *schema* with its metadata."""
        self._stream = stream
        self._schema = schema
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self.rows = 0

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Add *rows*; their column names and types must be the table's, in order.

        Raises:
            ValueError: If names or types differ.
        """
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        if table.column_names != self._schema.names or table.schema.types != self._schema.types:
            raise ValueError(f"expected the columns {self._schema.to_string()}, found {table.schema.to_string()}")
        self._pending.append(table)
        self._pending_rows += table.num_rows
        self.rows += table.num_rows
        if self._pending_rows >= BATCH_ROWS:
            self._write_pending(whole_only=True)

    def finish(self) -> None:
        """Write what is left as the last, shorter batch."""
        if self._pending_rows:
            self._write_pending(whole_only=False)

    def _write_pending(self, *, whole_only: bool) -> None:
        table = pa.concat_tables(self._pending)
        end = table.num_rows // BATCH_ROWS * BATCH_ROWS if whole_only else table.num_rows
        parts = deque(table.slice(start, min(BATCH_ROWS, end - start)) for start in range(0, end, BATCH_ROWS))
        rest = table.slice(end)
        self._pending = [rest] if rest.num_rows else []
        self._pending_rows = rest.num_rows
        del table, rest  # so that rows are not held twice while they are compressed
        while parts:
            self._stream.write_batch(_canonical_batch(parts.popleft(), self._schema))


@contextmanager
def writing_table(path: Path, schema: pa.Schema, *, metadata: Mapping[str, str], inputs: str) -> Iterator[TableWriter]:
    """Write a table under *path* with canonical bytes, then its sidecar.

    The same rows in the same order give the same bytes, however they are cut into :meth:`TableWriter.write` calls.

    Args:
        path: Final name; it appears only when the block ends well.
        schema: Columns, from :mod:`artifacts.schemas`.
        metadata: What the schema's metadata says besides ``format``; keys are sorted.
        inputs: Digest of all that the rows are computed from, for the sidecar.
    """
    said = {"format": str(FORMAT), **metadata}
    sorted_metadata = {key: said[key] for key in sorted(said)}
    schema = schema.with_metadata(sorted_metadata)
    remove_file(sidecar_of(path))
    with staged_file(path) as file:
        hashing = _Hashing(file)
        with pa.ipc.new_file(pa.PythonFile(hashing, mode="w"), schema, options=_options(schema)) as stream:
            writer = TableWriter(stream, schema)
            yield writer
            writer.finish()
    Sidecar(hashing.size, hashing.sha256, writer.rows, inputs, metadata.get("run_key", "")).write(path)


def _options(schema: pa.Schema) -> pa.ipc.IpcWriteOptions:
    """Compress all but vectors, of which it saves a tenth, for as much memory again and a part of the night's time."""
    vectors = any(_holds(pa.types.is_fixed_size_list, field.type) for field in schema)
    codec = None if vectors else pa.Codec("zstd", compression_level=1)
    return pa.ipc.IpcWriteOptions(compression=codec, emit_dictionary_deltas=False)


def finish_file(path: Path, *, inputs: str, run_key: str = "") -> Sidecar:
    """Write the sidecar of a file that a foreign library wrote (a FAISS index), after it is complete."""
    sidecar = Sidecar(size_of(path) or 0, file_digest(fetched(path)), 0, inputs, run_key)
    sidecar.write(path)
    return sidecar


@contextmanager
def reading_table(path: Path) -> Iterator[pa.RecordBatchFileReader]:
    """Open a finished table for reading, batch by batch, after checking every byte of it.

    Raises:
        StaleRunError: If it is not finished.
        CorruptError: If it is missing, changed, or not an Arrow file of our format.
    """
    verify_file(path)
    with opening_arrow(path) as reader:
        yield reader


@contextmanager
def opening_arrow(path: Path, *, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatchFileReader]:
    """Open an Arrow file whose bytes the caller has verified.

    Args:
        path: The file.
        columns: Names of the columns to decode, in the file's order; all of them if None.

    Raises:
        CorruptError: If it is not an Arrow file of our format.
        NightrecError: If memory does not suffice for what it says that it holds.
    """
    try:
        local = path if path.is_file() else fetched(path)
        with pa.OSFile(str(local), "rb") as file, pa.ipc.open_file(file) as reader:
            said = (reader.schema.metadata or {}).get(b"format", b"none").decode(errors="replace")
            if said != str(FORMAT):
                raise CorruptError(
                    f"{path}: expected an Arrow file with format = {FORMAT} in its metadata, found {shown(said)}; "
                    "a newer nightrec or somebody else wrote it"
                )
            if any(_holds(pa.types.is_dictionary, field.type) for field in reader.schema):
                raise CorruptError(f"{path}: expected plain columns, found a dictionary; none of our tables has one")
            require_bearable(local)
            if columns is None:
                yield reader
                return
            options = pa.ipc.IpcReadOptions(included_fields=_positions(path, reader.schema, columns))
            with pa.ipc.open_file(file, options=options) as narrow:
                yield narrow
    except pa.ArrowMemoryError as error:
        raise NightrecError(
            f"{path}: memory does not suffice, or it claims to hold more than it does ({error})"
        ) from error
    except (*_OTHER_BYTES, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's own trouble, of this file or another: not a sign of changed bytes
        raise CorruptError(f"{path}: expected an Arrow file ({error})") from error


def _holds(kind: Callable[[pa.DataType], bool], found: pa.DataType) -> bool:
    """Whether *found*, or what it is made of, is of a *kind*."""
    inner = (found.field(place).type for place in range(found.num_fields))
    return bool(kind(found)) or any(_holds(kind, one) for one in inner)


def _positions(path: Path, schema: pa.Schema, columns: Sequence[str]) -> list[int]:
    for name in columns:
        if name not in schema.names:
            raise CorruptError(f"{path}: expected a column {name}, found {', '.join(schema.names)}")
    return [schema.names.index(name) for name in columns]


def read_table(path: Path) -> pa.Table:
    """Read a finished table whole, after checking every byte of it; only for tables that do not grow with users.

    Raises:
        StaleRunError: If it is not finished.
        CorruptError: If it is missing, changed, or not an Arrow file of our format.
    """
    with reading_table(path) as reader:
        return reader.read_all()


def _canonical_batch(rows: pa.Table, schema: pa.Schema) -> pa.RecordBatch:
    whole = (column.chunk(0) if column.num_chunks == 1 else column.combine_chunks() for column in rows.columns)
    columns = [_canonical(column, field) for column, field in zip(whole, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _canonical(array: pa.Array, field: pa.Field) -> pa.Array:
    """Rebuild *array* so that equal values have equal buffers: no offsets, no unused bytes, null slots zeroed."""
    kind = array.type
    lists = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
    if array.null_count and (lists or not field.nullable):  # none of our schemas has null lists
        raise InputError(f"column {field.name}: expected no nulls, found {array.null_count}")
    if pa.types.is_fixed_size_list(kind):
        values = _canonical(array.flatten(), kind.value_field)
        return pa.FixedSizeListArray.from_arrays(values, type=kind)
    if pa.types.is_list(kind):
        offsets = pc.subtract(array.offsets, array.offsets[0])
        return pa.ListArray.from_arrays(offsets, _canonical(array.flatten(), kind.value_field), type=kind)
    if array.null_count == 0 and _fills_its_buffer(array):
        return array  # most of a night's bytes pass here: they are not copied once more
    if array.null_count == 0:
        return pa.concat_arrays([array, array.slice(0, 0)])
    filled = pc.fill_null(array, "" if pa.types.is_string(kind) else False if pa.types.is_boolean(kind) else 0)
    validity = pc.is_valid(array).buffers()[1]
    return pa.Array.from_buffers(kind, len(filled), [validity, *filled.buffers()[1:]], array.null_count, filled.offset)


def _fills_its_buffer(array: pa.Array) -> bool:
    """Whether numbers of whole bytes are all that their buffer holds."""
    kind = array.type
    whole = (pa.types.is_integer(kind) or pa.types.is_floating(kind)) and array.offset == 0 and len(array) > 0
    return bool(whole and array.buffers()[1].size == len(array) * kind.bit_width // 8)


def copied(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Copy *rows*, a slice of a record batch, so that who holds them does not hold all of it."""
    return pa.ipc.read_record_batch(rows.serialize(), rows.schema)
