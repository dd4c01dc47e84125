"""DuckDB as a library: what it may hold, and what it says when that does not suffice."""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from artifacts.errors import NightrecError


@contextmanager
def converting_errors() -> Iterator[None]:
    """Turn what DuckDB raises into an error of ours.

    Raises:
        NightrecError: If it ran out of memory or disk; the message says which.
    """
    try:
        yield
    except (duckdb.Error, pa.ArrowException) as error:
        raise NightrecError(
            f"building histories failed: {error}; see that [night] memory and the disk suffice"
        ) from error


@contextmanager
def holding(connection: duckdb.DuckDBPyConnection, share: float) -> Iterator[None]:
    """Let the database hold, within the block, a *share* of what it may hold now, at most 1; what is more it spills."""
    with converting_errors():
        ((limit,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
        number, unit = str(limit).split()
        connection.execute(f"SET memory_limit = '{float(number) * share}{unit}'")
    try:
        yield
    finally:
        with converting_errors():
            connection.execute(f"SET memory_limit = '{number}{unit}'")
