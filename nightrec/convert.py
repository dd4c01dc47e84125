"""Making what a night reads of what is there: Parquet, ids of one type, readable times, a row for each item and user.

A table that a night can read as it is stays where it is; of another a copy is made, once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from artifacts.errors import InputError
from nightrec.guess import Guess, Part, Reason
from nightrec.look import Table, literal, one_of, quoted

_SIGNED = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT"}
_UNSIGNED = {f"U{kind}" for kind in _SIGNED}
_REAL = {"FLOAT", "DOUBLE"}
_AS_IT_IS = {"BIGINT": _SIGNED, "UBIGINT": _UNSIGNED, "VARCHAR": {"VARCHAR"}}  # types that the night widens to an id's
_UNREADABLE = 0.05  # share of times from which on the format must be wrong


@dataclass(frozen=True, slots=True)
class Ready:
    """A table that a night can read.

    Attributes:
        path: A file, a folder or a glob.
        columns: Our name to the name in the files.
        features: The same of features.
        time_unit: Of times that are whole numbers.
        copied: Why a copy was made; empty for a table that is read where it lies.
    """

    path: str
    columns: dict[str, str]
    features: dict[str, str]
    time_unit: str | None = None
    copied: str = ""


def make_ready(
    guess: Guess, connection: duckdb.DuckDBPyConnection, folder: Path
) -> tuple[dict[str, Ready], list[Reason]]:
    """Give each table of *guess* in a form that a night reads; copies are written into *folder*.

    Raises:
        InputError: If ids are no whole numbers and no text, or times cannot be read.
    """
    events = guess.interactions.table
    parts = {"interactions": guess.interactions, "items": guess.items}
    if guess.users is not None:
        parts["users"] = guess.users
    kinds = {
        key: _one_kind(
            [_id_kind(part.table, part.columns[key], connection) for part in parts.values() if key in part.columns]
        )
        for key in ("user_id", "item_id")
    }
    ready, reasons = {}, []
    for name, part in (parts | guess.gone).items():
        made = part.key and part.table is events
        why = "it is made of the events" if made else "; ".join(_obstacles(part, guess.moment, kinds, connection))
        unit = guess.moment if "time" in part.columns and guess.moment in {"s", "ms", "us", "ns"} else None
        if not why:
            ready[name] = Ready(part.table.path, _said(name, part.columns), part.features, unit)
            continue
        path = folder / f"{name}.parquet"
        rows, lost = _copy(part, guess.moment, kinds, connection, path)
        ready[name] = Ready(
            str(path),
            _said(name, {ours: ours for ours in part.columns}),
            {feature: feature for feature in part.features},
            "us" if unit == "ns" else unit,
            why,
        )
        about = f"{rows:,} rows, since {why}{lost}"
        reasons.append(Reason("copy", str(path), about))
    return ready, reasons


def _said(name: str, columns: dict[str, str]) -> dict[str, str]:
    """Name columns as the config does: that of a list of what is gone has one, whosever ids they are."""
    return dict(zip(("id",), columns.values(), strict=True)) if name.startswith("exclude_") else columns


def _id_kind(table: Table, column: str, connection: duckdb.DuckDBPyConnection) -> str:
    """Name the type that holds every id of a column as it is written."""
    kind, name = table.column(column).kind, quoted(column)
    if kind in _SIGNED | _UNSIGNED:
        return "BIGINT" if kind in _SIGNED else "UBIGINT"
    if kind in _REAL:
        broken = one_of(connection, f"SELECT count(*) FROM {table.relation} WHERE {name} <> CAST({name} AS BIGINT)")
        if broken:
            raise InputError(f"{table.name}: column {column}: expected ids, found {broken:,} numbers with a fraction")
        return "BIGINT"
    if table.is_parquet:
        return "VARCHAR"
    plain = rf"regexp_full_match({name}, '(0|-?[1-9][0-9]*)(\.0)?')"
    bare = _bare(name)
    fits = ", ".join(f"count({name}) = count(TRY_CAST({bare} AS {kind}))" for kind in ("BIGINT", "UBIGINT"))
    asked = f"SELECT [coalesce(bool_and({plain}), false), {fits}] FROM {table.relation}"
    numbers, signed, unsigned = one_of(connection, asked)
    if not numbers:
        return "VARCHAR"
    return "BIGINT" if signed else "UBIGINT" if unsigned else "VARCHAR"


def _one_kind(kinds: Sequence[str]) -> str:
    return "VARCHAR" if "VARCHAR" in kinds else "UBIGINT" if "UBIGINT" in kinds else "BIGINT"


def _bare(name: str) -> str:
    """Read what a spreadsheet or pandas makes of a whole number in a column with gaps, ``17850.0``, as 17850."""
    return rf"regexp_replace({name}, '\.0$', '')"


def _obstacles(part: Part, moment: str, kinds: dict[str, str], connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Say why a night cannot read a table as it is."""
    table = part.table
    if not table.is_parquet:
        yield "a night reads Parquet"
    for key in ("user_id", "item_id"):
        if (
            table.is_parquet
            and key in part.columns
            and table.column(part.columns[key]).kind not in _AS_IT_IS[kinds[key]]
        ):
            yield f"{part.columns[key]} has another type than an id, or than in another table"
    if "time" in part.columns:
        kind = table.column(part.columns["time"]).kind
        if table.is_parquet and not (kind.startswith("TIMESTAMP") or (kind in _SIGNED | _UNSIGNED and moment != "ns")):
            yield f"{part.columns['time']} is {kind.lower()}, no moment"
    if part.key:
        yield from _repeated(part, connection)
    yield from _unlike(part)


def _unlike(part: Part) -> Iterator[str]:
    """Say which columns about items or users are of types that a night does not read."""
    fits = dict.fromkeys(part.features.values(), (_SIGNED | _UNSIGNED | {"VARCHAR", "BOOLEAN"}, "no category"))
    if "eligible" in part.columns:
        fits[part.columns["eligible"]] = ({"BOOLEAN"}, "neither true nor false")
    for column, (kinds, what) in fits.items():
        if (kind := part.table.column(column).kind) not in kinds:
            yield f"{column} is {kind.lower()}, {what}"


def _repeated(part: Part, connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    column = quoted(part.columns[part.key])
    asked = (
        f"SELECT [count(*) - count({column}), count({column}) - count(DISTINCT {column})] FROM {part.table.relation}"
    )
    empty, repeated = one_of(connection, asked)
    if empty:
        yield f"{empty:,} rows have no {part.columns[part.key]}"
    if repeated:
        yield f"{repeated:,} rows repeat a {part.columns[part.key]}: of each value the most frequent stays"


def _copy(
    part: Part, moment: str, kinds: dict[str, str], connection: duckdb.DuckDBPyConnection, path: Path
) -> tuple[int, str]:
    """Write the copy of a table; give its rows, and in words which times could not be read."""
    columns = _expressions(part, moment, kinds)
    lost = ""
    if "time" in part.columns and not part.key:
        said = quoted(part.columns["time"])
        asked = f"SELECT count(*) FILTER ({said} IS NOT NULL AND {columns['time']} IS NULL) FROM {part.table.relation}"
        unreadable = one_of(connection, asked)
        if unreadable > _UNREADABLE * part.table.rows:
            raise InputError(
                f"{part.table.name}: column {part.columns['time']}: {unreadable:,} of {part.table.rows:,} times cannot "
                f"be read as {moment}; say how to read them by --time-format"
            )
        lost = f"; {unreadable:,} times that cannot be read are left empty" if unreadable else ""
    chosen = ", ".join(f"{expression} AS {quoted(name)}" for name, expression in columns.items())
    query = f"SELECT {chosen} FROM {part.table.relation}"
    if part.key:
        query = _one_row_each(query, part.key, [name for name in columns if name != part.key])
    path.parent.mkdir(parents=True, exist_ok=True)
    part_path = path.with_name(f".{path.name}.part")
    try:
        connection.execute(f"COPY ({query}) TO {literal(str(part_path))} (FORMAT parquet, COMPRESSION zstd)")
    except duckdb.Error as error:
        raise InputError(f"{part.table.name}: it cannot be copied ({str(error).partition(chr(10))[0]})") from error
    part_path.rename(path)
    return int(one_of(connection, f"SELECT count(*) FROM read_parquet({literal(str(path))})")), lost


def _expressions(part: Part, moment: str, kinds: dict[str, str]) -> dict[str, str]:
    """Say in SQL how each column of a copy comes from the table."""
    found = {}
    for ours, name in part.columns.items():
        if ours in kinds:
            found[ours] = _id(part.table, name, kinds[ours])
        elif ours == "time":
            found[ours] = _time(part.table, name, moment)
        elif ours == "eligible":
            found[ours] = f"CAST({quoted(name)} AS BOOLEAN)"
        elif ours == "weight" and not part.table.is_parquet:
            found[ours] = f"TRY_CAST(replace({quoted(name)}, ',', '.') AS DOUBLE)"
        else:
            found[ours] = quoted(name)
    for feature, name in part.features.items():
        real = part.table.column(name).kind not in _SIGNED | _UNSIGNED | {"VARCHAR", "BOOLEAN"}
        found[feature] = f"CAST({quoted(name)} AS BIGINT)" if real else quoted(name)
    return found


def _id(table: Table, name: str, kind: str) -> str:
    column = quoted(name)
    if table.column(name).kind in _REAL:
        column = f"CAST({column} AS BIGINT)"
    elif not table.is_parquet and kind != "VARCHAR":
        column = _bare(column)
    return f"CAST({column} AS {kind})"


def _time(table: Table, name: str, moment: str) -> str:
    column, kind = quoted(name), table.column(name).kind
    if kind.startswith("TIMESTAMP"):
        return column
    if moment == "ns":
        return f"CAST(CAST({column} AS HUGEINT) // 1000 AS BIGINT)"
    if moment in {"s", "ms", "us"}:
        return f"CAST(CAST({column} AS DOUBLE) AS BIGINT)"
    if moment in {"timestamp", "iso"}:
        return f"TRY_CAST({column} AS TIMESTAMP)"
    if moment == "zoned":
        return f"TRY_CAST({column} AS TIMESTAMPTZ)"
    return f"TRY_STRPTIME(CAST({column} AS VARCHAR), {literal(moment)})"


def _one_row_each(query: str, key: str, names: Sequence[str]) -> str:
    """Give each *key* one row: of every other column the most frequent value, of equally frequent ones the smallest."""
    joins = "".join(
        f" LEFT JOIN (SELECT {key}, list(v ORDER BY n DESC, v)[1] AS {name} FROM (SELECT {key}, {name} AS v, "
        f"count(*) AS n FROM source WHERE {name} IS NOT NULL GROUP BY ALL) GROUP BY {key}) USING ({key})"
        for name in map(quoted, names)
    )
    listed = ", ".join([key, *map(quoted, names)])
    keys = f"(SELECT DISTINCT {key} FROM source WHERE {key} IS NOT NULL)"
    return f"WITH source AS ({query}) SELECT {listed} FROM {keys}{joins} ORDER BY {key}"
