"""The example of a reader: what it gives is of one release, also while the channel moves on under load."""

import multiprocessing
import threading
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from artifacts.errors import RefusedError
from examples.reader import Loaded, Reader, load, recommended, search
from release.check import check
from release.pointer import find_release, move_pointer, point_at, read_pointer
from release.prune import prune, rules_of
from release.publish import publish
from release.read import recommendations
from tests.release.conftest import Night, make_run

SWAPS = 50
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with three releases; of the n-th, each vector and each list tells that it is the n-th."""
    root = tmp_path_factory.mktemp("read")
    for number in (1, 2, 3):
        items = list(range(1000 * number, 1000 * number + 40))
        night = Night(date=f"2026-03-0{number}", items=items, vectors=partial(np.full_like, fill_value=number))
        run = make_run(root, night)
        publish_all_the_same(run, root)
    return root


def publish_all_the_same(run: Any, root: Path) -> None:
    try:
        check(run, root, threads=1)
    except RefusedError:
        publish(run, root, override="a test of readers")
    else:
        publish(run, root)


def number_of(loaded: Loaded) -> int:
    return int(loaded.version[9])


def look(loaded: Loaded, user: int) -> None:
    """Fail if anything that is given is of another release than the one that was opened."""
    number = number_of(loaded)
    found = search(loaded, np.ones(4, np.float32), 5)
    assert [score for _, score in found] == [4.0 * number] * 5
    assert {item // 1000 for item, _ in found} == {number}
    rows = recommended(loaded, user)
    assert [row["rank"] for row in rows] == list(range(1, 11))
    assert {row["item_id"] // 1000 for row in rows} == {number}


def test_it_gives_what_the_release_has(store: Path) -> None:
    """Users and neighbours are those of the tables and of FAISS; an unknown user has nothing."""
    loaded = load(store)
    release = find_release(store)
    for user in (100, 101, 158, 159):
        assert recommended(loaded, user) == recommendations(store, str(user)).rows.to_pylist()
    assert recommended(loaded, 99) == recommended(loaded, 160) == []
    ivf = faiss.read_index(str(release.layout.index.ivf))
    query = np.array([[1, -1, 2, 0.5]], np.float32)
    scores, rows = ivf.search(query, 7)
    assert search(loaded, query[0], 7) == [(3000 + row, score) for row, score in zip(rows[0], scores[0], strict=True)]


def test_lists_across_record_batches_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that goes on in the next batch is given whole."""
    monkeypatch.setattr("artifacts.tables.BATCH_ROWS", 11)
    publish_all_the_same(make_run(tmp_path, Night()), tmp_path)
    loaded = load(tmp_path)
    for user in range(100, 160):
        assert [row["rank"] for row in recommended(loaded, user)] == list(range(1, 11))


def test_it_is_a_page() -> None:
    """The example stays under 90 lines."""
    assert len((ROOT / "examples" / "reader.py").read_text().splitlines()) < 90


def read_until(root: Path, stop: Any, told: Any) -> None:
    """Follow LATEST until told to stop, and report which releases were seen, or what went wrong."""
    reader, seen, user = Reader(root), [], 100
    try:
        while not stop.is_set():
            loaded = reader.refresh()
            look(loaded, user)
            user = 100 + (user - 99) % 60
            if not seen or seen[-1] != number_of(loaded):
                seen.append(number_of(loaded))
    except BaseException as error:
        told.put(repr(error))
        raise
    told.put(seen)


def test_readers_never_see_a_mixed_or_missing_release(store: Path) -> None:
    """Two readers under load see each of the releases whole while LATEST swaps 50 times."""
    spawn = multiprocessing.get_context("spawn")
    stop, told = spawn.Event(), spawn.Queue()
    readers = [spawn.Process(target=read_until, args=(store, stop, told)) for _ in range(2)]
    releases = [find_release(store, version) for version in sorted(p.name for p in (store / "releases").glob("2*"))]
    for reader in readers:
        reader.start()
    try:
        for swap in range(SWAPS):
            before = read_pointer(store)
            move_pointer(store, "LATEST", expected=before, pointer=point_at(releases[swap % 3], before))
            threading.Event().wait(0.05)
    finally:
        stop.set()
        found = [told.get(timeout=120) for _ in readers]
        for reader in readers:
            reader.join(timeout=120)
    assert [reader.exitcode for reader in readers] == [0, 0], found
    for seen in found:
        assert set(seen) <= {1, 2, 3}
        assert len(seen) > 3, f"the readers saw too few of the swaps: {seen}"


def test_a_release_that_is_pruned_serves_until_the_next(tmp_path: Path) -> None:
    """What was opened stays readable when its release is gone; then the channel's own is taken."""
    for day in (1, 2):
        publish_all_the_same(make_run(tmp_path, Night(date=f"2026-03-0{day}", shift=day)), tmp_path)
        if day == 1:
            reader = Reader(tmp_path)
            old = reader.refresh()
            wanted = recommended(old, 100)
    prune(tmp_path, rules_of(tmp_path, keep=1, grace_hours=0, now=2e9))
    assert recommended(old, 100) == wanted
    assert [row["item_id"] for row in recommended(reader.refresh(), 100)] == [1022 + rank for rank in range(10)]
