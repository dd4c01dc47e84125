"""What DuckDB may hold: less within a block, as before behind it, however the block ends."""

import duckdb
import pytest

from artifacts.errors import NightrecError
from features.database import converting_errors, holding


def limit_of(connection: duckdb.DuckDBPyConnection) -> str:
    ((said,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    return str(said)


def test_less_is_held_within_a_block_and_as_much_behind_it():
    """Shares of shares: a quarter of 64 MiB within a half; an error leaves the limit as it was, too."""
    with duckdb.connect(config={"memory_limit": "64MiB"}) as connection:
        with holding(connection, 1 / 2):
            assert limit_of(connection) == "32.0 MiB"
            with pytest.raises(ValueError, match="of the block"), holding(connection, 1 / 2):
                assert limit_of(connection) == "16.0 MiB"
                raise ValueError("of the block")
            assert limit_of(connection) == "32.0 MiB"
        assert limit_of(connection) == "64.0 MiB"


def test_what_duckdb_says_becomes_an_error_of_ours():
    """A message that names the key that helps, and DuckDB's own words."""
    with (
        duckdb.connect() as connection,
        pytest.raises(NightrecError, match=r"(?s)nowhere .*see that \[night\] memory and the disk suffice"),
        converting_errors(),
    ):
        connection.execute("SELECT * FROM nowhere")
