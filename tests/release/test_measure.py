"""What is counted in one streaming pass equals what ten slow lines count, and memory stays flat."""

import tracemalloc
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts import schemas
from artifacts.tables import writing_table
from release.measure import (
    HistoriesMeasure,
    compare_users,
    measure_histories,
    measure_interests,
    measure_items,
    measure_scores,
    places_among,
)
from release.overlap import compare_tops, count_repeated_users
from release.query import Limits

LAWS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ITEMS = list(range(10, 20))
ALLOWED = [item != 13 for item in ITEMS]
EDGES = np.array([0.25, 0.5])


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut tables into record batches of three rows, so that everything straddles."""
    monkeypatch.setattr("artifacts.tables.BATCH_ROWS", 3)


def write(path: Path, schema: pa.Schema, rows: list[tuple[Any, ...]]) -> Path:
    columns = [pa.array([row[place] for row in rows], field.type) for place, field in enumerate(schema)]
    with writing_table(path, schema, metadata={}, inputs="") as writer:
        writer.write(pa.table(columns, schema=schema))
    return path


_score = st.none() | st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.9, float("nan"), float("inf")])
_row = st.tuples(
    st.integers(0, 3), st.integers(8, 21), st.integers(0, 4), st.integers(0, 1), _score, _score, st.none() | st.just(1)
)


@LAWS
@given(rows=st.lists(_row, max_size=14), ordered=st.booleans())
def test_scores_are_counted_as_by_hand(tmp_path: Path, rows: list[tuple[Any, ...]], ordered: bool) -> None:
    """Rows, users, faults, exposure and bins are those of a plain loop over the rows."""
    if ordered:
        rows = sorted(rows, key=lambda row: (row[0], row[2]))
    path = write(tmp_path / "a.arrow", schemas.scores(pa.int64(), pa.int64()), rows)
    found = measure_scores([path], pa.array(ITEMS), np.array(ALLOWED), EDGES)

    runs: list[list[tuple[Any, ...]]] = []
    for row in rows:
        if not runs or runs[-1][0][0] != row[0]:
            runs.append([])
        runs[-1].append(row)
    unsorted = sum(row[2] != place for run in runs for place, row in enumerate(run, start=1))
    unsorted += sum(run[0][0] <= before[0][0] for before, run in pairwise(runs))
    faults = [
        row
        for row in rows
        if (row[3] == 0 and row[4] is None) or any(s is not None and not np.isfinite(s) for s in row[4:6])
    ]
    scored = [row[4] for row in rows if row[3] == 0 and row not in faults]
    assert found.rows == len(rows)
    assert found.users == len(runs)
    assert found.ranked == sum(row[3] == 0 for row in rows)
    assert found.unsorted == unsorted
    assert found.repeated == sum(len(run) - len({row[1] for row in run}) for run in runs)
    assert found.foreign == sum(row[1] not in ITEMS or row[1] == 13 for row in rows)
    assert found.not_finite == len(faults)
    exposure = Counter(row[1] for row in rows)
    assert found.exposure.tolist() == [exposure[item] for item in ITEMS]
    expected = [sum(s < 0.25 for s in scored), sum(0.25 <= s < 0.5 for s in scored), sum(s >= 0.5 for s in scored)]
    assert found.bins.tolist() == expected


ids_of = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9),
    pa.uint64(): st.integers(0, 2**64 - 1) | st.integers(0, 9),
    pa.string(): st.text(max_size=2),
}


@pytest.mark.parametrize("hashed", [0, 4, 5])
@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.string()])
def test_ids_are_found_in_their_places_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch, kind: pa.DataType, hashed: int
) -> None:
    """First, last, between and beyond them all: hashed or searched for, numbers or texts."""
    monkeypatch.setattr("release.measure._HASHED", hashed)
    items = pa.array([10, 20, 30, 40, 50]).cast(kind)
    wanted = pa.array([50, 11, 30, 99, 10, 40]).cast(kind)

    assert places_among(items, wanted).tolist() == [4, -1, 2, -1, 0, 3]
    assert places_among(items, wanted.slice(0, 0)).tolist() == []


@pytest.mark.parametrize("most", [0, 1 << 32])
def test_repeats_are_counted_in_words_of_either_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """A block of more users and items than fit into 32 bits is counted as every other."""
    monkeypatch.setattr("release.measure._WORDS", most)
    items = (11, 12, 11, 14, 12)
    rows = [(user, item, rank, 0, 0.5, 0.5, 0) for user in (3, 5, 9) for rank, item in enumerate(items, 1)]
    path = write(tmp_path / "scores.arrow", schemas.scores(pa.int64(), pa.int64()), rows)
    assert measure_scores([path], pa.array([11, 12, 14]), np.ones(3, bool), EDGES).repeated == 6


@pytest.mark.parametrize("kind", ids_of, ids=str)
@LAWS
@given(data=st.data())
def test_users_are_compared_as_sets(tmp_path: Path, kind: pa.DataType, data: st.DataObject) -> None:
    """Who is in only one of two tables is counted for each type of id, however often an id is repeated in one."""
    ids = st.lists(ids_of[kind], max_size=12)
    left, right = (sorted(data.draw(ids), key=lambda v: v.encode() if isinstance(v, str) else v) for _ in range(2))
    schema = pa.schema([pa.field("user_id", kind, nullable=False)])
    a = write(tmp_path / "a.arrow", schema, [(one,) for one in left])
    b = write(tmp_path / "b.arrow", schema, [(one,) for one in right])
    assert compare_users(a, b) == (len(set(left) - set(right)), len(set(right) - set(left)))


def test_vectors_and_histories_are_counted(tmp_path: Path) -> None:
    """Zero and not finite vectors, cold users and unknown behaviours are counted across batches and empty lists."""
    nan, inf = float("nan"), float("inf")
    vectors = [(n, vector) for n, vector in enumerate([[0, 0], [1, 0], [nan, 0], [0, inf], [0, 0], [2, 2], [0, -0.0]])]
    items = write(tmp_path / "items.arrow", schemas.items(pa.int64(), 2), vectors)
    measure, rows = measure_items([items], np.array([True, True, True, True, False, True, True]))
    assert rows == 7
    assert (measure.vectors, measure.zero, measure.not_finite) == (6, 2, 2)

    lists = [(1, [[1, 1], [0, 0]], 2, False), (2, [], 0, True), (3, [[nan, 1]], 1, False), (4, [[1, 2]] * 3, 3, False)]
    path = write(tmp_path / "interests.arrow", schemas.interests(pa.int64(), 2), lists)
    found = measure_interests([path, path])
    assert (found.users, found.cold) == (8, 2)
    assert (found.vectors.vectors, found.vectors.zero, found.vectors.not_finite) == (12, 2, 2)

    schema = schemas.histories(pa.int64(), ["item_id"], ["country"])
    behaviours = [(1, [1, 5, 1], [1, 1, 1], 1, 3), (2, [], [], 2, 0), (3, [7], [1], 1, 1), (4, [1], [2], 3, 1)]
    path = write(tmp_path / "histories.arrow", schema, behaviours)
    assert measure_histories([path]) == HistoriesMeasure({"country": 2}, users=4, behaviours=5, unknown=3)


@LAWS
@given(data=st.data(), now=st.integers(1, 3), before=st.integers(1, 3))
def test_tops_are_compared_as_by_hand(tmp_path: Path, data: st.DataObject, now: int, before: int) -> None:
    """Kept and common rows of the first ranks are those of plain sets, for any two counts of shards."""

    def draw(name: str, shards: int) -> tuple[list[Path], dict[int, list[int]]]:
        lists = data.draw(
            st.dictionaries(st.integers(0, 6), st.lists(st.sampled_from(ITEMS), min_size=1, max_size=4, unique=True))
        )
        paths = []
        for shard in range(shards):
            rows = [
                (user, item, rank, 0, 0.5, 0.5, 0)
                for user in sorted(lists)
                if user % shards == shard
                for rank, item in enumerate(lists[user], start=1)
            ]
            path = tmp_path / name / f"{shard}-of-{shards}.arrow"
            paths.append(write(path, schemas.scores(pa.int64(), pa.int64()), rows))
        return paths, lists

    (ours, a), (theirs, b) = draw("now", now), draw("before", before)
    limits = Limits("100MB", 1, tmp_path)
    common = a.keys() & b.keys()
    expected = sum(len(a[u][:2]) for u in common), sum(len(set(a[u][:2]) & set(b[u][:2])) for u in common)
    assert compare_tops(ours, theirs, top=2, limits=limits) == expected


def test_repeated_users_are_counted(tmp_path: Path) -> None:
    """Each row too many of a user counts, within a table or between two."""
    schema = pa.schema([pa.field("user_id", pa.string(), nullable=False)])
    a = write(tmp_path / "a.arrow", schema, [("u",), ("v",), ("v",)])
    b = write(tmp_path / "b.arrow", schema, [("u",), ("w",)])
    assert count_repeated_users([a, b], Limits("100MB", 1, tmp_path)) == 2


def test_memory_stays_flat_as_users_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the users take no more Arrow or NumPy memory at once."""
    monkeypatch.setattr("artifacts.tables.BATCH_ROWS", 2000)

    def peak(users: int) -> int:
        schema = schemas.scores(pa.int64(), pa.int64())
        ids, count = np.repeat(np.arange(users), 10), users * 10
        score = np.full(count, 0.5, np.float32)
        columns = [ids, np.tile(np.arange(10, 20), users), np.tile(np.arange(1, 11, dtype=np.uint16), users)]
        columns += [np.zeros(count, np.uint8), score, score, np.zeros(count, np.uint8)]
        path = tmp_path / f"{users}.arrow"
        with writing_table(path, schema, metadata={}, inputs="") as writer:
            writer.write(pa.table(columns, schema=schema))
        pool, before = pa.proxy_memory_pool(pa.system_memory_pool()), pa.default_memory_pool()
        pa.set_memory_pool(pool)
        tracemalloc.start()
        try:
            found = measure_scores([path], pa.array(ITEMS), np.array(ALLOWED), EDGES)
            assert compare_users(path, path) == (0, 0)
            assert (found.users, found.repeated, found.unsorted) == (users, 0, 0)
            return tracemalloc.get_traced_memory()[1] + (pool.max_memory() or 0)
        finally:
            tracemalloc.stop()
            pa.set_memory_pool(before)

    small, large = peak(2_000), peak(20_000)
    assert large < 1.2 * small
