"""Stages: whose seconds are whose, in one thread and in many, and when a block fails."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from batch import stages as module
from batch.overlap import reading_ahead, working_side_by_side, writing_behind
from batch.stages import NAMES, each, forget_stages, stage, stages


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets: its only number is the time."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    forget_stages()
    return now


def test_what_a_stage_within_takes_is_not_the_outer_ones(clock: list[float]) -> None:
    """Of ten seconds of reading in which three were encoding and one of these a graph, six are reading."""
    with stage("read"):
        clock[0] += 4
        with stage("encode"):
            clock[0] += 2
            with stage("run"):
                clock[0] += 1
        with stage("encode"):
            clock[0] += 1
        clock[0] += 2

    assert stages() == {"read": 6, "encode": 3, "run": 1}


def test_a_block_that_fails_counts_and_those_around_it_go_on(clock: list[float]) -> None:
    """Time that ended in an error was spent all the same."""
    with stage("merge"):
        clock[0] += 1
        with pytest.raises(ValueError, match="bad"), stage("search"):
            clock[0] += 5
            raise ValueError("bad")
        clock[0] += 1

    assert stages() == {"search": 5, "merge": 2}
    forget_stages()
    assert stages() == {}


def test_items_are_timed_as_they_come(clock: list[float]) -> None:
    """Between two items nobody waits for the source, and its end counts as well."""

    def source():
        for item in "ab":
            clock[0] += 2
            yield item
        clock[0] += 1

    found = []
    for item in each("read", source()):
        found.append(item)
        clock[0] += 100

    assert (found, stages()) == (["a", "b"], {"read": 5})


def test_threads_add_up_and_no_thread_takes_anothers_time(clock: list[float]) -> None:
    """A stage in one thread is not within a stage of another."""

    def inner() -> None:
        with stage("run"):
            pass

    with ThreadPoolExecutor(1) as pool, stage("wait"):
        pool.submit(inner).result()
        clock[0] += 3

    assert stages() == {"wait": 3, "run": 0}


def test_reading_working_and_writing_are_stages() -> None:
    """What overlaps is measured where it overlaps: no step has to say it again."""
    forget_stages()
    written: list[int] = []
    with (
        reading_ahead(iter(range(5))) as read,
        working_side_by_side(lambda number: number * 2, read, workers=2) as results,
        writing_behind(written.append) as write,
    ):
        for result in results:
            write(result)

    assert written == [0, 2, 4, 6, 8]
    assert list(stages()) == ["read", "merge", "write", "wait"]
    assert set(stages()) <= set(NAMES)
