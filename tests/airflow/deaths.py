"""Nights in which something dies: a task, a task that is cleared, a node, a worker that only looks dead, the scheduler.

The step ``interests`` is stopped in the middle by a lock that is held on the third shard of its first group: the two
before it are done, the task waits for the third.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from artifacts.store import exclusive
from tests.airflow.server import parent_of, processes, wait
from tests.airflow.surfaces import SHARDS, Stage, Surface
from tests.night.shop import DATE, content_of, only_release

SECONDS_TO_STOP = 10  # what a step may take to end after a signal
HEARTBEATS = 5  # seconds until a worker hears that its task was cleared


@dataclass(frozen=True)
class Middle:
    """A night whose step ``interests`` is in its middle.

    Attributes:
        run: Id of the DAG's run.
        command: The process of ``nightrec``.
        task: The process of the task, which started it.
        finished: The shards that were finished by then.
    """

    run: str
    command: int
    task: int
    finished: dict[Path, tuple[int, int]]


@contextlib.contextmanager
def in_the_middle(stage: Stage, surface: Surface) -> Iterator[Middle]:
    """Start a night, and hold it in the middle of ``interests`` for as long as the context lasts."""
    run = stage.airflow.trigger(surface.dag, conf={"date": DATE})
    folder = surface.run_folder() / "interests"
    third, second = (folder / f"{shard:05d}-of-{SHARDS:05d}.arrow" for shard in (2, 1))
    with exclusive(third.with_name(f".{third.name}.lock")):
        wait("two shards are done", lambda: second in surface.finished())
        (command,) = command_of(surface)
        yield Middle(run, command, parent_of(command), surface.finished())


def command_of(surface: Surface) -> list[int]:
    """The process of the first group of ``interests``."""
    return processes("interests", str(surface.config), "0/2")


def killed_task(stage: Stage) -> None:
    """A mapped task killed with -9 is tried again; what it had finished is not repeated; same bytes."""
    surface = stage.open("killed")
    with in_the_middle(stage, surface) as middle:
        os.kill(middle.task, signal.SIGKILL)
        os.kill(middle.command, signal.SIGKILL)
        wait("the task is dead", lambda: middle.command not in command_of(surface))

    stage.airflow.succeeded(surface.dag, middle.run)
    assert stage.airflow.task(surface.dag, middle.run, "interests", 0)["try_number"] == 2
    assert stage.airflow.task(surface.dag, middle.run, "interests", 1)["try_number"] == 1
    _same_bytes(stage, surface, middle)


def cleared_task(stage: Stage) -> None:
    """A running task that is cleared ends within 10 s of the signal, and its night goes on from there."""
    surface = stage.open("cleared")
    with in_the_middle(stage, surface) as middle:
        clearing = {"dry_run": False, "only_failed": False, "dag_run_id": middle.run, "task_ids": [["interests", 0]]}
        stage.airflow.call("POST", f"/api/v2/dags/{surface.dag}/clearTaskInstances", clearing)
        wait("the step ends", lambda: middle.command not in command_of(surface), seconds=SECONDS_TO_STOP + HEARTBEATS)

    stage.airflow.succeeded(surface.dag, middle.run)
    _same_bytes(stage, surface, middle)


def drained_node(stage: Stage) -> None:
    """A drained node, SIGTERM to all that works on it: the step ends within 10 s, is tried again; same bytes."""
    surface = stage.open("drained")
    with in_the_middle(stage, surface) as middle:
        for process in (middle.task, middle.command):
            os.kill(process, signal.SIGTERM)
        wait("the step ends", lambda: middle.command not in command_of(surface), seconds=SECONDS_TO_STOP)

    stage.airflow.succeeded(surface.dag, middle.run)
    assert stage.airflow.task(surface.dag, middle.run, "interests", 0)["try_number"] == 2
    _same_bytes(stage, surface, middle)


def zombie(stage: Stage) -> None:
    """A worker that only looks dead does no damage: its nightrec works on beside that of the second try."""
    surface = stage.open("zombie")
    with in_the_middle(stage, surface) as middle:
        worker = parent_of(middle.task)
        os.kill(worker, signal.SIGSTOP)  # no heartbeat is sent; the task's own processes go on
        try:
            wait("the second try is there", lambda: len(command_of(surface)) == 2)
        except BaseException:
            os.kill(worker, signal.SIGCONT)
            raise

    try:
        stage.airflow.succeeded(surface.dag, middle.run)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert stage.airflow.task(surface.dag, middle.run, "interests", 0)["try_number"] == 2
    wait("the first try has ended too", lambda: not command_of(surface))
    _same_bytes(stage, surface, middle)


def killed_scheduler(stage: Stage) -> None:
    """A scheduler killed with -9 in mid-night and started again brings the night to its end; same bytes."""
    surface = stage.open("scheduler")
    with in_the_middle(stage, surface) as middle:
        stage.airflow.kill_service("scheduler")
        stage.airflow.start_service("scheduler")

    stage.airflow.succeeded(surface.dag, middle.run)
    _same_bytes(stage, surface, middle)


def _same_bytes(stage: Stage, surface: Surface, middle: Middle) -> None:
    """The release is that of an ordinary night, and nothing that was finished in the middle was written again."""
    assert middle.finished
    now = surface.finished()
    assert {path: now[path] for path in middle.finished} == middle.finished
    assert content_of(only_release(surface.store)) == stage.wanted
