"""The local engine: groups of shards in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from artifacts.errors import InputError, NightrecError
from artifacts.run import StepResult
from nightrec.workers import groups_of, merge, run_groups

CODE = '''
"""What the workers of these tests do; a file of its own, since a fresh process must be able to import it."""
import os, sys, time
from pathlib import Path
from artifacts.errors import InputError
from artifacts.run import StepResult
from nightrec.workers import run_groups

def count(group, advance):
    for shard in group:
        advance(10)
    return StepResult("items", len(group), 0, 10 * len(group), {"pid": 0, "odd": sum(s % 2 for s in group)})

def refuse(group, advance):
    raise InputError(f"shard {group[0]}: wrong")

def break_(group, advance):
    raise KeyError("unexpected")

def see(group, advance):
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    return StepResult("items", len(group), 0, 0, {f"{shard} on {seen}": 1 for shard in group})

def die(group, advance):
    os._exit(7)

def wait(group, advance):
    path = Path(os.environ["MARKS"]) / f"{group[0]}-{os.getpid()}"
    try:
        path.touch()
        time.sleep(60)
    finally:
        path.with_suffix(".tidy").touch()

if __name__ == "__main__":
    run_groups(wait, [[0], [1]], lambda rows: None)
'''


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Callable[..., StepResult]]:
    """Functions that a fresh process can import, too."""
    (tmp_path / "work_of_tests.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def named(name: str) -> Callable[..., StepResult]:
        sys.modules.pop("work_of_tests", None)
        import work_of_tests  # type: ignore[import-not-found]

        function: Callable[..., StepResult] = getattr(work_of_tests, name)
        return function

    return named


@pytest.mark.parametrize(
    ("shards", "workers", "groups"),
    [
        ([0, 1, 2, 3, 4], 2, [[0, 1], [2, 3, 4]]),
        ([7], 4, [[7]]),
        ([], 4, []),
        (range(4), 1, [[0, 1, 2, 3]]),
    ],
)
def test_shards_are_dealt_evenly(shards: Sequence[int], workers: int, groups: list[list[int]]) -> None:
    """Every shard is in one group, groups are runs of neighbours, and none is empty."""
    assert groups_of(shards, workers) == groups


def test_groups_add_up(work: Callable[[str], Callable[..., StepResult]]) -> None:
    """Two processes give the result, and the progress, of one."""
    alone: list[int] = []
    together: list[int] = []

    one = run_groups(work("count"), [[0, 1, 2]], alone.append)
    two = run_groups(work("count"), [[0], [1, 2]], together.append)

    assert one == two == StepResult("items", 3, 0, 30, {"pid": 0, "odd": 1})
    assert sum(alone) == sum(together) == 30


@pytest.mark.parametrize(
    ("gpus", "seen"),
    [
        (["0", "1"], ["0 on 0", "1 on 0", "2 on 1", "3 on 0"]),
        (["GPU-5a", "3", "4", "5"], ["0 on GPU-5a", "1 on GPU-5a", "2 on 3", "3 on 4"]),
        ([], ["0 on all", "1 on all", "2 on all", "3 on all"]),
    ],
    ids=["fewer than workers", "more than workers", "none"],
)
def test_each_worker_sees_one_gpu(
    work: Callable[[str], Callable[..., StepResult]], monkeypatch: pytest.MonkeyPatch, gpus: list[str], seen: list[str]
) -> None:
    """GPUs are dealt to the processes in turn, before any of them has asked CUDA; this process sees what it saw."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    result = run_groups(work("see"), [[0, 1], [2], [3]], lambda rows: None, gpus)

    assert sorted(result.counts) == seen
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_merging_adds_counts_that_only_some_have() -> None:
    """A count that one group lacks is zero there."""
    parts = [StepResult("score", 1, 1, 0, {}), StepResult("score", 2, 0, 5, {"cold": 3})]

    assert merge(parts) == StepResult("score", 3, 1, 5, {"cold": 3})


def test_an_error_of_a_worker_is_raised_as_it_was(work: Callable[[str], Callable[..., StepResult]]) -> None:
    """Its kind, and so its exit code, survives the way out of the process."""
    with pytest.raises(InputError, match=r"shard .: wrong"):
        run_groups(work("refuse"), [[0], [1]], lambda rows: None)


def test_an_unexpected_error_of_a_worker_keeps_its_traceback(work: Callable[[str], Callable[..., StepResult]]) -> None:
    """What nobody foresaw can still be found."""
    with pytest.raises(RuntimeError, match="KeyError: 'unexpected'"):
        run_groups(work("break_"), [[0], [1]], lambda rows: None)


def test_a_worker_that_dies_is_an_error_with_its_exit_code(work: Callable[[str], Callable[..., StepResult]]) -> None:
    """A process that is gone is said, and is not waited for."""
    with pytest.raises(NightrecError, match="exit code 7"):
        run_groups(work("die"), [[0], [1]], lambda rows: None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    """Even if the parent is killed outright, its workers tidy up and end, so that none of them writes on."""
    script = tmp_path / "parent.py"
    script.write_text(CODE)
    parent = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "MARKS": str(tmp_path)})
    wait_until(lambda: len([p for p in tmp_path.glob("[01]-*") if p.suffix == ""]) == 2)

    parent.send_signal(number)
    parent.wait(300)

    wait_until(lambda: len(list(tmp_path.glob("*.tidy"))) == 2)
    workers = [int(path.stem.split("-")[1]) for path in tmp_path.glob("*.tidy")]
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)
