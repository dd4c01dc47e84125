"""Looking at a stranger's folder: which files make a table, and what each column holds in a sample of its rows."""

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from artifacts.errors import InputError, UsageError
from features.inputs import opening_parquet

PARQUET, TEXT = (".parquet", ".pq"), (".csv", ".tsv", ".csv.gz", ".tsv.gz")
SAMPLE = 200_000  # rows of a table that are looked at
_FILES = 5  # of which they are taken
FORMATS = tuple(
    f"{day}{time}"
    for day in (
        "%Y/%m/%d",
        "%Y%m%d",
        "%d.%m.%Y",
        "%d/%m/%Y",
        "%m/%d/%Y",
        "%d-%m-%Y",
        "%m-%d-%Y",
        "%d/%m/%y",
        "%m/%d/%y",
    )
    for time in ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
)
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # in a second
_YEARS = (315_532_800, 4_102_444_800)  # 1980 to 2100, in seconds since 1970


@dataclass(frozen=True, slots=True)
class Column:
    """What a column looks like.

    Attributes:
        name: Its name in the files.
        kind: DuckDB's type of it; ``VARCHAR`` for every column of a CSV file.
        rows: Rows looked at.
        filled: Those with a value.
        distinct: Different values among them.
        whole: Whether all values are whole numbers.
        number: Whether all values are numbers.
        length: Mean length as text.
        low: The least number among them.
        moments: Ways in which all values can be read as a moment: ``"timestamp"``, ``"zoned"``, ``"iso"``, a unit of
            ``UNITS``, or a format.
        example: The smallest value, as text.
    """

    name: str
    kind: str
    rows: int
    filled: int
    distinct: int
    whole: bool
    number: bool
    length: float
    low: float | None
    moments: tuple[str, ...]
    example: str

    @property
    def is_text(self) -> bool:
        """Whether it holds text."""
        return self.kind == "VARCHAR"

    @property
    def may_be_id(self) -> bool:
        """Whether its values name something: whole numbers, or text that is short."""
        plain = self.whole if not self.is_text else self.length < 64
        return bool(self.filled) and plain and self.kind != "BOOLEAN"

    @property
    def repeats(self) -> float:
        """How often a value stands in the sample, in the mean."""
        return self.filled / max(1, self.distinct)


@dataclass(frozen=True, slots=True)
class Table:
    """Files with the same columns.

    Attributes:
        name: For people: the name of the file, the folder or the glob.
        path: What names exactly these files: a file, a folder or a glob.
        relation: What stands for them after FROM.
        is_parquet: Whether a night can read the files as they are.
        rows: In all.
        columns: In the order of the files.
    """

    name: str
    path: str
    relation: str
    is_parquet: bool
    rows: int
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column:
        """Give the column of that name."""
        return next(column for column in self.columns if column.name == name)


def quoted(name: str) -> str:
    """Write the name of a column in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Write a text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def look_at(
    place: Path, connection: duckdb.DuckDBPyConnection, *, without: Path | None = None
) -> tuple[list[Table], list[str]]:
    """Find the tables of a folder, or of one file; its sub-folders are a table each, but for the one *without*.

    Returns:
        The tables by name, and a line for what was passed over.

    Raises:
        UsageError: If *place* is not there, or holds no table.
        InputError: If a file is damaged.
    """
    if not place.exists():
        raise UsageError(f"{place}: expected a folder of Parquet or CSV files, found nothing of that name")
    passed: list[str] = []
    groups = [(place, [place])] if place.is_file() else list(_groups(place, passed, without))
    tables = []
    for path, files in groups:
        table = _table(path, files, connection)
        if table.rows:
            tables.append(table)
        else:
            passed.append(f"{table.name} has no row")
    if not tables:
        why = f" ({'; '.join(passed)})" if passed else ""
        raise UsageError(f"{place}: expected Parquet or CSV files with rows, found none{why}")
    return tables, passed


def _groups(folder: Path, passed: list[str], without: Path | None) -> Iterator[tuple[Path, list[Path]]]:
    """Give what makes a table each: a path that names it, and its files."""
    alike: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.name[0] in "._":
            passed.append(f"{path.name} is hidden")
        elif without is not None and path.resolve() == without.resolve():
            passed.append(f"{path.name}/ has the copies of before")
        elif path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name[0] not in "._"]
            if {_kind(file) for file in files} in ({".parquet"}, {".csv"}):
                yield path, files
            else:
                passed.append(f"{path.name}/ is no folder of Parquet or of CSV files alone")
        elif not _kind(path):
            passed.append(f"{path.name} is neither Parquet nor CSV")
        elif not path.stat().st_size:
            passed.append(f"{path.name} is empty")
        else:
            alike.setdefault((re.sub(r"[\W\d_]+", "", path.name), _kind(path)), []).append(path)
    for files in alike.values():
        yield from _numbered(folder, files)


def _numbered(folder: Path, files: list[Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Tell files that are parts of one table, since their names differ by numbers only, by a glob of their own."""
    if len(files) > 1:
        names = [file.name for file in files]
        start = next((at for at, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), 0)
        pattern = f"{glob.escape(str(folder / names[0][:start]))}*{_ending(files[0])}"
        if sorted(glob.glob(pattern)) == sorted(map(str, files)):  # noqa: PTH207 - as a night will read it
            yield Path(pattern), files
            return
    for file in files:
        yield file, [file]


def _ending(path: Path) -> str:
    return next((ending for ending in (*PARQUET, *TEXT) if path.name.lower().endswith(ending)), "")


def _kind(path: Path) -> str:
    ending = _ending(path)
    return ".parquet" if ending in PARQUET else ".csv" if ending else ""


def _table(path: Path, files: Sequence[Path], connection: duckdb.DuckDBPyConnection) -> Table:
    step = max(1, len(files) // _FILES)
    some = files[::step]
    if is_parquet := _kind(files[0]) == ".parquet":
        rows = 0
        for file in files:
            with opening_parquet(file) as opened:
                rows += opened.metadata.num_rows
        relation, sample = (f"read_parquet({_listed(paths)})" for paths in (files, some))
    else:
        if not _kind(files[0]):
            raise UsageError(f"{files[0]}: expected a Parquet or CSV file, by the ending of its name")
        encoding = _encoding(files, connection)
        relation, sample = (
            f"read_csv({_listed(paths)}, all_varchar = true, header = true, encoding = '{encoding}')"
            for paths in (files, some)
        )
        ((rows,),) = connection.execute(f"SELECT count(*) FROM {relation}").fetchall()
    connection.execute(f"CREATE OR REPLACE TEMP TABLE looked AS SELECT * FROM {sample} LIMIT {SAMPLE}")
    described = connection.execute("DESCRIBE looked").fetchall()
    columns = tuple(_column(name, kind, connection) for name, kind, *_ in described)
    if not is_parquet and any(re.fullmatch(r"-?\d+([.,]\d+)?", column.name) for column in columns):
        raise InputError(f"{files[0]}: expected the names of the columns in the first line, found {columns[0].name!r}")
    return Table(path.name, str(path), relation, is_parquet, int(rows), columns)


def _listed(paths: Iterable[Path]) -> str:
    return f"[{', '.join(literal(glob.escape(str(path))) for path in paths)}]"


def _encoding(files: Sequence[Path], connection: duckdb.DuckDBPyConnection) -> str:
    """Say how the text of CSV files is encoded: UTF-8, else what every byte is a letter of.

    Raises:
        InputError: If they are no CSV files.
    """
    trouble = ""
    for encoding in ("utf-8", "latin-1"):
        try:
            read = f"read_csv({_listed(files)}, all_varchar = true, header = true, encoding = '{encoding}')"
            connection.execute(f"SELECT count(COLUMNS(*)) FROM {read}").fetchall()
        except duckdb.Error as error:
            trouble = trouble or str(error).partition("\n")[0]
        else:
            return encoding
    raise InputError(f"{files[0]}: expected a CSV file, but it cannot be read ({trouble})")


def _column(name: str, kind: str, connection: duckdb.DuckDBPyConnection) -> Column:
    column, text = quoted(name), f"CAST({quoted(name)} AS VARCHAR)"
    whole = r"'^\s*[+-]?[0-9]+(\.0+)?\s*$'"
    asked = (
        f"count(*), count({column}), count(DISTINCT {text}), min({text}), coalesce(avg(length({text})), 0), "
        f"count({column}) FILTER (regexp_matches({text}, {whole})), count(TRY_CAST({text} AS DOUBLE)), "
        f"min(TRY_CAST({text} AS DOUBLE)), max(TRY_CAST({text} AS DOUBLE))"
    )
    (row,) = connection.execute(f"SELECT {asked} FROM looked").fetchall()
    rows, filled, distinct, example, length, wholes, numbers, low, high = row
    whole_numbers = filled == wholes and kind not in {"BOOLEAN", "DATE"}
    moments = _moments(kind, column, filled, (low, high) if whole_numbers and filled else None, connection)
    return Column(
        name, kind, rows, filled, distinct, whole_numbers, filled == numbers, length, low, tuple(moments), str(example)
    )


def _moments(
    kind: str, column: str, filled: int, numbers: tuple[float, float] | None, connection: duckdb.DuckDBPyConnection
) -> Iterator[str]:
    """Say in which ways every value of the column is a moment."""
    if kind.startswith("TIMESTAMP") or kind == "DATE":
        yield "zoned" if "WITH TIME ZONE" in kind else "timestamp"
        return
    if numbers is not None:
        low, high = numbers
        yield from (unit for unit, n in UNITS.items() if _YEARS[0] * n <= low and high < _YEARS[1] * n)
    if kind != "VARCHAR" or not filled:
        return
    zone = r"'^\d{4}-\d\d-\d\d[T ]\d.*(Z|UTC|[+-]\d\d(:?\d\d)?)$'"
    tries = {
        "zoned": f"CASE WHEN regexp_matches({column}, {zone}) THEN TRY_CAST({column} AS TIMESTAMPTZ) END",
        "iso": f"CASE WHEN NOT regexp_matches({column}, {zone}) THEN TRY_CAST({column} AS TIMESTAMP) END",
        **{form: f"TRY_STRPTIME({column}, '{form}')" for form in FORMATS},
    }
    counts = ", ".join(f"count({one}) FILTER (year({one}) BETWEEN 1970 AND 2199)" for one in tries.values())
    (first,) = connection.execute(f"SELECT {counts} FROM (SELECT {column} FROM looked LIMIT 1000)").fetchall()
    likely = {name: tries[name] for name, count in zip(tries, first, strict=True) if count}
    if likely:
        counts = ", ".join(f"count({one}) FILTER (year({one}) BETWEEN 1970 AND 2199)" for one in likely.values())
        (found,) = connection.execute(f"SELECT {counts} FROM looked").fetchall()
        yield from (name for name, count in zip(likely, found, strict=True) if count == filled)


def one_of(connection: duckdb.DuckDBPyConnection, question: str) -> Any:
    """Ask for one value."""
    ((value,),) = connection.execute(question).fetchall()
    return value
