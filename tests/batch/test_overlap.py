import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.overlap import reading_ahead, working_side_by_side, writing_behind


class StopError(Exception):
    pass


def _double(number: int) -> int:
    time.sleep(0.001 * (number % 3))  # later items finish first
    return number * 2


@settings(max_examples=15, deadline=None)
@given(count=st.integers(0, 30), workers=st.integers(1, 4), depth=st.integers(1, 5))
def test_order_is_kept_whatever_finishes_first(count, workers, depth):
    """Reading ahead, side by side and behind gives what a plain loop gives."""
    written: list[int] = []
    with (
        reading_ahead(iter(range(count)), depth=depth) as source,
        working_side_by_side(_double, source, workers=workers) as results,
        writing_behind(written.append, depth=depth) as write,
    ):
        for result in results:
            write(result)
    assert written == [2 * number for number in range(count)]


def test_only_so_many_things_are_on_the_way():
    """A slow reader of results holds back the source, so that memory stays flat."""
    taken, used, most = 0, 0, 0

    def source() -> Iterator[int]:
        nonlocal taken, most
        for number in range(200):
            taken += 1
            most = max(most, taken - used)
            yield number

    with (
        reading_ahead(source(), depth=3) as items,
        working_side_by_side(_double, items, workers=2) as results,
    ):
        for _ in results:
            used += 1
    assert taken == 200
    assert most <= 3 + 2 + 3


def test_a_full_queue_holds_back_who_writes():
    """At most `depth` items wait for a slow sink."""
    waiting, most, lock = 0, 0, threading.Lock()

    def sink(_item: int) -> None:
        nonlocal waiting
        time.sleep(0.001)
        with lock:
            waiting -= 1

    with writing_behind(sink, depth=3) as write:
        for number in range(50):
            with lock:
                waiting += 1
                most = max(most, waiting)
            write(number)
    assert waiting == 0
    assert most <= 4


def _raises_at(limit: int) -> Iterator[int]:
    yield from range(limit)
    raise StopError


def test_what_a_thread_raises_comes_out_and_no_thread_stays():
    """An error of the source, the work or the sink ends the block, after all threads have stopped."""
    before = threading.active_count()

    def fails(number: int) -> int:
        if number == 5:
            raise StopError
        return number

    seen: list[int] = []
    with pytest.raises(StopError), reading_ahead(_raises_at(5)) as items:
        seen.extend(items)
    assert seen == [0, 1, 2, 3, 4]
    with pytest.raises(StopError), working_side_by_side(fails, range(9), workers=2) as results:
        list(results)
    with pytest.raises(StopError), writing_behind(fails) as write:
        for number in range(6):
            write(number)
    with (
        pytest.raises(ZeroDivisionError),
        reading_ahead(iter(range(99))) as items,
        writing_behind(seen.append) as write,
    ):
        write(next(items) // 0)
    assert threading.active_count() == before


def test_what_is_handed_on_is_written_whatever_became_of_the_one_before() -> None:
    """An error comes with the next item, which is written all the same: nobody else would close it."""
    written = []

    def sink(item: int) -> None:
        if item == 1:
            raise ValueError("one")
        written.append(item)

    with pytest.raises(ValueError, match="one"), writing_behind(sink, depth=1) as put:
        put(1)
        put(2)
    assert written == [2]
