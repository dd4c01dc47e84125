"""Questions to DuckDB over tables of Arrow files that need not fit into memory."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.dataset as ds

from artifacts.errors import NightrecError


@dataclass(frozen=True, slots=True)
class Limits:
    """What DuckDB may use while it compares two nights.

    Attributes:
        memory: Such as ``"1GB"``; what does not fit goes to ``spill``.
        threads: Threads; 0 is all.
        spill: Folder for what does not fit.
    """

    memory: str
    threads: int
    spill: Path


def query(sql: str, tables: Mapping[str, Sequence[Path]], values: Mapping[str, Any], limits: Limits) -> tuple[int, ...]:
    """Ask DuckDB for one row, as :func:`query_rows` does."""
    return query_rows(sql, tables, values, limits)[0]


def query_rows(
    sql: str, tables: Mapping[str, Sequence[Path]], values: Mapping[str, Any], limits: Limits
) -> list[tuple[int, ...]]:
    """Ask DuckDB for rows of whole numbers, as :func:`query_any` does; sums of nothing count as 0."""
    return [tuple(int(value or 0) for value in row) for row in query_any(sql, tables, values, limits)]


def query_any(
    sql: str, tables: Mapping[str, Sequence[Path]], values: Mapping[str, Any], limits: Limits
) -> list[tuple[Any, ...]]:
    """Ask DuckDB for rows of anything.

    Args:
        sql: The question; it names the tables.
        tables: Name to verified Arrow files that together are the table.
        values: Named parameters of *sql*.
        limits: What DuckDB may use.

    Raises:
        NightrecError: If it cannot be answered within the limits.
    """
    options: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": limits.memory,
        "temp_directory": str(limits.spill),
        "preserve_insertion_order": False,
    }
    if limits.threads:
        options["threads"] = limits.threads
    try:
        with closing(duckdb.connect(config=options)) as connection:
            for name, paths in tables.items():
                connection.register(name, ds.dataset([str(path) for path in paths], format="ipc"))
            return connection.execute(sql, dict(values)).fetchall()
    except duckdb.Error as error:
        raise NightrecError(f"comparing {', '.join(tables)} under {limits.memory} of memory failed: {error}") from error
