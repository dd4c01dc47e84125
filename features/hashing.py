"""The stable hash of an id, `md5-64`: which shard a user is in, which users are sampled, where a routing starts.

The first 8 bytes, read as a little-endian unsigned integer, of the MD5 digest of the id's text: decimal for an
integer, UTF-8 for a string. It depends on no seed, process, version or machine; so golden values stand in the tests.
"""

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

NAME = "md5-64"
QUIET = "SET enable_progress_bar = false"  # DuckDB's bar goes to standard output, between what we say there


def hash_sql(column: str) -> str:
    """Write the DuckDB expression, of type UBIGINT, for the hash of *column*."""
    return f"md5_number_upper(CAST({column} AS VARCHAR))"


def id_hash(ids: pa.Array) -> NDArray[np.uint64]:
    """Hash each of *ids* (int64, uint64 or string, none null); uint64 [n]."""
    if not len(ids):
        return np.empty(0, np.uint64)
    with duckdb.connect() as connection:
        connection.execute(QUIET)
        connection.register("ids", pa.table({"id": ids}))
        hashes: pa.Table = connection.sql(f"SELECT {hash_sql('id')} AS hash FROM ids").to_arrow_table()
    return np.asarray(hashes.column("hash"), np.uint64)


def shard_of(ids: pa.Array, shards: int) -> NDArray[np.int32]:
    """Give the shard of each user of *ids* out of *shards*: hash modulo *shards*; int32 [n]."""
    return (id_hash(ids) % np.uint64(shards)).astype(np.int32)
