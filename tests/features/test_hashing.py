import hashlib

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.hashing import id_hash, shard_of

GOLDEN = [
    (pa.int64(), 1, 9377542946905311940),
    (pa.int64(), -(2**63), 9792815721974213857),
    (pa.uint64(), 2**64 - 1, 8469679736696961150),
    (pa.string(), "abc", 12704604231530709392),
    (pa.string(), "é", 12874628942955142502),
    (pa.string(), "", 338333539836370388),
]


@pytest.mark.parametrize(("kind", "value", "expected"), GOLDEN)
def test_hashes_are_golden(kind, value, expected):
    """An id's hash never changes: users would move to other shards, and samples to other users."""
    assert id_hash(pa.array([value], kind)).tolist() == [expected]


@settings(max_examples=10, deadline=None)
@given(ids=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20), shards=st.integers(1, 70))
def test_the_hash_is_the_first_eight_bytes_of_md5(ids, shards):
    """The hash is little-endian MD5 of the decimal text, row by row, and the shard is its remainder."""
    expected = [int.from_bytes(hashlib.md5(str(value).encode()).digest()[:8], "little") for value in ids]

    assert id_hash(pa.array(ids, pa.int64())).tolist() == expected
    assert shard_of(pa.array(ids, pa.int64()), shards).tolist() == [value % shards for value in expected]
