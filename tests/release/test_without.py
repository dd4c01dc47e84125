"""Tables without some rows: what is written does not depend on how it is cut, and memory stays flat."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts import schemas
from artifacts.tables import opening_arrow, writing_table
from release.without import Gone, concerns, ids_in, lists_emptied, write_rows_without

PER_USER = 10


def write_scores(path: Path, lists: list[tuple[int, list[int]]]) -> Path:
    """A score table of users with the items of their lists, best first."""
    schema = schemas.scores(pa.int64(), pa.int64())
    users = np.repeat([user for user, _ in lists], [len(items) for _, items in lists]).astype(np.int64)
    items = np.array([item for _, own in lists for item in own], np.int64)
    ranks = np.array([rank for _, own in lists for rank in range(1, len(own) + 1)], np.uint16)
    score = np.linspace(1, 0, len(items), dtype=np.float32)
    zero = np.zeros(len(items), np.uint8)
    with writing_table(path, schema, metadata={"data_date": "2026-03-01"}, inputs="") as writer:
        writer.write(pa.table([users, items, ranks, zero, score, score, zero], schema=schema))
    return path


def gone(users: list[int], items: list[int]) -> Gone:
    return Gone(pa.array(users, pa.int64()), pa.array(items, pa.int64()))


lists_of_users = st.dictionaries(st.integers(0, 12), st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True))


@given(
    lists=lists_of_users.filter(bool),
    users=st.lists(st.integers(0, 14), max_size=4, unique=True),
    items=st.lists(st.integers(0, 11), max_size=6, unique=True),
    cut=st.integers(1, 9),
)
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_rows_ranks_and_empty_lists_are_those_of_a_slow_loop(
    tmp_path: Path, lists: dict[int, list[int]], users: list[int], items: list[int], cut: int
) -> None:
    """Whatever the cut into record batches, rows, ranks, counts and ids found are what ten plain lines give."""
    out = gone(users, items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("artifacts.tables.BATCH_ROWS", cut)
        source = write_scores(tmp_path / "a.arrow", sorted(lists.items()))
        listed = write_rows_without(source, tmp_path / "b.arrow", out)
    wanted, emptied = [], 0
    for user, own in sorted(lists.items()):
        kept = [item for item in own if item not in items] if user not in users else []
        wanted += [(user, item, rank) for rank, item in enumerate(kept, 1)]
        emptied += user not in users and not kept
    with opening_arrow(tmp_path / "b.arrow") as reader:
        found = reader.read_all()
    assert list(zip(*(found[name].to_pylist() for name in ("user_id", "item_id", "rank")), strict=True)) == wanted
    assert listed.rows == len(wanted)
    assert lists_emptied(source, out) == emptied
    assert concerns(source, out) == (len(wanted) < sum(map(len, lists.values())))
    assert ids_in([source], "user_id", out.users).to_pylist() == [user for user in users if user in lists]


def test_memory_stays_flat_as_users_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the users take no more Arrow or NumPy memory at once."""
    monkeypatch.setattr("artifacts.tables.BATCH_ROWS", 2000)

    def peak(users: int) -> int:
        lists = [(user, list(range(user % 7, user % 7 + PER_USER))) for user in range(users)]
        path = write_scores(tmp_path / f"{users}.arrow", lists)
        out = gone(list(range(0, 100, 3)), [5])  # what is made under the pool must be gone before the pool is
        del lists
        pool, before = pa.proxy_memory_pool(pa.system_memory_pool()), pa.default_memory_pool()
        pa.set_memory_pool(pool)
        tracemalloc.start()
        try:
            assert write_rows_without(path, tmp_path / "out.arrow", out).rows < users * PER_USER
            assert lists_emptied(path, out) == 0
            return tracemalloc.get_traced_memory()[1] + (pool.max_memory() or 0)
        finally:
            tracemalloc.stop()
            pa.set_memory_pool(before)

    small, large = peak(2_000), peak(20_000)
    assert large < 1.5 * small  # beside the batch in hand there are the footers, a few bytes a batch
