"""What goes in: the declared Parquet tables, checked file by file before a row is read."""

import difflib
import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from artifacts.digest import document_digest, file_digest
from artifacts.errors import InputError, NotReadyError, UsageError
from features.times import UNITS, is_time
from features.types import widened

TIME_UNIT = "time_unit"  # among a source's columns: not a column but the unit of an integer time
BATCH_ROWS = 65_536
_BUFFER = 1 << 20  # bytes of a column that are read at once, however large a row group is
_IDS = ("user_id", "item_id", "id")


@dataclass(frozen=True, slots=True)
class Source:
    """One table: Parquet files and what its columns are called in them.

    Attributes:
        path: A file, a folder (read with its sub-folders) or a glob.
        columns: Our name to the name in the files. ``time_unit`` (``"s"``, ``"ms"`` or ``"us"``) is no column: it
            declares the unit of a time that is stored as an integer.
    """

    path: str
    columns: dict[str, str]

    @property
    def time_unit(self) -> str | None:
        """The unit of integer times, if declared."""
        return self.columns.get(TIME_UNIT)

    @property
    def names(self) -> list[str]:
        """Our names of the columns."""
        return [name for name in self.columns if name != TIME_UNIT]


@dataclass(frozen=True, slots=True)
class Inputs:
    """All tables of one surface, by our names of their columns.

    Attributes:
        interactions: ``user_id``, ``item_id``, ``time``; ``event`` and ``weight`` may be declared.
        histories: ``user_id``, ``item_ids``, ``times`` (aligned lists, any order), in place of interactions.
        users: ``user_id``, and one column for each profile feature.
        items: ``item_id``, and one column for each other item feature; ``title``, ``eligible`` and ``group_NAME`` may
            be declared.
        exclude_users: ``id``, of users who are gone from every output.
        exclude_items: ``id``, of items that are gone from every output.
        naive_zone: Zone of times whose type names none.
    """

    interactions: Source | None
    histories: Source | None
    users: Source | None
    items: Source
    exclude_users: Source | None = None
    exclude_items: Source | None = None
    naive_zone: str = "UTC"

    @property
    def sources(self) -> dict[str, Source]:
        """The tables that are given, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Source)}

    @property
    def behaviours(self) -> str:
        """Which table says what users did: ``"interactions"`` or ``"histories"``.

        Raises:
            UsageError: If both or neither are given.
        """
        given = [name for name in ("interactions", "histories") if name in self.sources]
        if len(given) != 1:
            raise UsageError(
                f"inputs: expected either interactions or histories, found {' and '.join(given) or 'none'}"
            )
        return given[0]


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a table, in the order of their names, and how many hidden ones were skipped."""

    paths: tuple[Path, ...]
    hidden: int


@dataclass(frozen=True, slots=True)
class IdTypes:
    """The types of ids that all tables agree on, and the hidden files that were skipped."""

    user_id: pa.DataType
    item_id: pa.DataType
    hidden_files: int


def files_of(source: Source) -> Files:
    """List the files of *source*; in a folder or glob, names that start with ``.`` or ``_`` are skipped and counted.

    Raises:
        NotReadyError: If there are none (yet).
        InputError: If a file in a folder is no Parquet file by its name.
        UsageError: If the path is an address.
    """
    if "://" in source.path:
        raise UsageError(f"{source.path}: expected a file, a folder or a glob; copy it from the object store first")
    path = Path(source.path)
    if path.is_file():
        return Files((path,), 0)
    if path.is_dir():
        base, found = path, [file for file in path.rglob("*") if file.is_symlink() or not file.is_dir()]
    else:
        matches = glob.glob(source.path, recursive=True, include_hidden=True)  # noqa: PTH207 - pathlib takes no ready pattern
        base, found = Path(), [file for file in map(Path, matches) if not file.is_dir()]
    hidden = {file for file in found if any(part[0] in "._" for part in _parts(file, base, source))}
    paths = sorted(set(found) - hidden)
    for file in paths:
        if not file.is_file():
            raise InputError(
                f"{file}: expected a file, found a link to a folder or to nothing; give a glob, or remove it"
            )
        if path.is_dir() and file.suffix not in (".parquet", ".pq"):
            raise InputError(f"{file}: expected only Parquet files in this folder; move it away, or give a glob")
    if not paths:
        raise NotReadyError(
            f"{source.path}: expected Parquet files, found none; wait for them, or correct the path in the config"
        )
    return Files(tuple(paths), len(hidden))


def _parts(file: Path, base: Path, source: Source) -> tuple[str, ...]:
    """Name the parts of *file* that the search found, and the user did not spell out."""
    if base != Path():
        return file.relative_to(base).parts
    fixed = 0
    for part in Path(source.path).parts:
        if glob.has_magic(part):
            break
        fixed += 1
    return file.parts[fixed:]


@contextmanager
def opening_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file, its page checksums checked while it is read.

    Raises:
        InputError: If it is empty, cut short, foreign or damaged, now or while it is read.
    """
    try:
        if not path.stat().st_size:
            raise InputError(f"{path}: expected a Parquet file, found zero bytes; was its writer killed?")
        # Unless it is told otherwise, pyarrow holds what it has read of a file until the file is closed.
        options = {"pre_buffer": False, "buffer_size": _BUFFER, "page_checksum_verification": True}
        with pq.ParquetFile(path, **options) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: expected a whole Parquet file, but it cannot be read ({error})") from error


def count_events(inputs: Inputs) -> int | None:
    """Add up the rows that the files of interactions say they have; None for ready-made histories, which do not."""
    if inputs.behaviours == "histories":
        return None
    rows = 0
    for path in files_of(inputs.sources["interactions"]).paths:
        with opening_parquet(path) as file:
            rows += file.metadata.num_rows
    return rows


def check_schemas(table: str, source: Source, files: Files) -> dict[str, pa.DataType]:
    """Check the columns of every file of *source*, and give their types by our names.

    Raises:
        InputError: If a column is missing, has a type that we do not take, or differs between files.
        UsageError: If the declared unit of integer times is none.
    """
    if source.time_unit not in (None, *UNITS):
        raise UsageError(f"{table}: time_unit is {source.time_unit}; expected one of {', '.join(UNITS)}")
    first: dict[str, pa.DataType] = {}
    for path in files.paths:
        with opening_parquet(path) as file:
            schema = file.schema_arrow
        for name in source.names:
            column = source.columns[name]
            kind = _find(table, path, schema, column)
            _require_type(table, path, column, name, kind, source.time_unit)
            if first.setdefault(name, kind) != kind and not _both_text(first[name], kind):
                raise InputError(
                    f"{path}: column {column} of {table} is {kind}, but {first[name]} in {files.paths[0]}; "
                    "write all files of a table with one schema"
                )
    return first


def _find(table: str, path: Path, schema: pa.Schema, column: str) -> pa.DataType:
    found = [field.type for field in schema if field.name == column]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{path}: column {column} of {table} is there {len(found)} times; keep one")
    near = difflib.get_close_matches(column, schema.names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(schema.names)}"
    raise InputError(f"{path}: column {column} of {table} is missing; {hint}")


def _require_type(table: str, path: Path, column: str, name: str, kind: pa.DataType, unit: str | None) -> None:
    expected = {
        "time": "a timestamp (or an integer with time_unit declared)",
        "times": "a list of timestamps (or of integers with time_unit declared)",
        "item_ids": "a list of integers or text",
        "title": "text",
        "eligible": "bool",
    }.get(name, "an integer or text" if name in _IDS else "an integer, bool or text")
    if not _takes(name, kind, unit):
        raise InputError(f"{path}: column {column} of {table}: expected {expected}, found {kind}; cast it first")


def _takes(name: str, kind: pa.DataType, unit: str | None) -> bool:
    if name in ("event", "weight"):
        return True  # a night reads neither; training looks at them itself
    if name in ("item_ids", "times"):
        return _is_list(kind) and _takes("id" if name == "item_ids" else "time", kind.value_type, unit)
    if name == "time":
        return is_time(kind, unit)
    if name == "title":
        return bool(widened(kind) == pa.string())
    if name == "eligible" or pa.types.is_boolean(kind):
        return bool(pa.types.is_boolean(kind)) and name not in _IDS
    return widened(kind) is not None


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _both_text(one: pa.DataType, other: pa.DataType) -> bool:
    """Whether both are text: writers choose between string, large_string and dictionary file by file."""
    return bool(widened(one) == widened(other) == pa.string())


def check_inputs(inputs: Inputs) -> IdTypes:
    """Check every file of every table, and that ids have one type wherever they stand.

    Raises:
        NotReadyError: If there are no files of a table (yet).
        InputError: As :func:`files_of` and :func:`check_schemas`, or if the ids of two tables differ in type.
        UsageError: If both or neither of interactions and histories are given.
    """
    behaviours = inputs.behaviours
    found: dict[str, dict[str, pa.DataType]] = {}
    hidden = 0
    for table, source in inputs.sources.items():
        files = files_of(source)
        hidden += files.hidden
        found[table] = check_schemas(table, source, files)
    items = {"items": found["items"]["item_id"]}
    if behaviours == "interactions":
        items[behaviours] = found[behaviours]["item_id"]
    else:
        items[behaviours] = found[behaviours]["item_ids"].value_type
    users = {table: found[table]["user_id"] for table in (behaviours, "users") if table in found}
    for excluded, kinds in (("exclude_users", users), ("exclude_items", items)):
        if excluded in found:
            kinds[excluded] = found[excluded]["id"]
    return IdTypes(_one_type("user", users), _one_type("item", items), hidden)


def _one_type(what: str, kinds: dict[str, pa.DataType]) -> pa.DataType:
    (first, kind), *others = kinds.items()
    for other, differing in others:
        if widened(differing) != widened(kind):
            raise InputError(f"{what} ids are {kind} in {first}, but {differing} in {other}; cast one of them")
    return widened(kind)


def read_batches(
    source: Source, names: list[str], files: Sequence[Path] | None = None
) -> Iterator[tuple[Path, pa.RecordBatch]]:
    """Stream the columns *names* (ours), with the file that each batch is from; types as in the files.

    Args:
        source: The table.
        names: Ours.
        files: Those of its files that are read; all if None.

    Raises:
        InputError: If a file is damaged, or a text is not UTF-8.
    """
    columns = [source.columns[name] for name in names]
    for path in files_of(source).paths if files is None else files:
        with opening_parquet(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                arrays = [_sound(path, column, batch.column(column)) for column in columns]
                yield path, pa.RecordBatch.from_arrays(arrays, names=names)


def _sound(path: Path, column: str, values: pa.Array) -> pa.Array:
    """Refuse text that is not UTF-8: Parquet says that it is, and nobody has looked."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: column {column}: expected text in UTF-8 ({error}); write the file anew") from error
    return values


def fingerprint_inputs(inputs: Inputs) -> str:
    """Digest what the files of all tables hold; their names, places and order do not enter.

    Raises:
        NotReadyError, InputError: As :func:`files_of`.
    """
    digests = {
        table: sorted(file_digest(path) for path in files_of(source).paths) for table, source in inputs.sources.items()
    }
    return document_digest(digests)
