"""The engines, as far as they can be seen without a cluster; nights over one are in tests/night/test_cluster.py."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from artifacts.errors import UsageError, told_by_worker
from artifacts.run import Run
from nightrec import steps
from nightrec.config import read_config
from nightrec.engines import open_there, run_shards

DATE = "2026-03-10"


def test_without_ray_one_line_says_what_to_install(surface: Path) -> None:
    """Ray is an extra: who asks for its engine without it is told so before anything is read."""
    code = "import sys; sys.modules['ray'] = None; from nightrec.main import main; main()"
    arguments = ["run", "--config", str(surface), "--date", DATE, "--engine", "ray"]

    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=300
    )

    assert finished.returncode == 2
    assert finished.stderr == "nightrec: this verb needs ray: pip install 'nightrec[ray]'\n"


def test_a_machine_that_does_not_see_the_run_says_so(surface: Path) -> None:
    """A root that only this machine has is the likely mistake, and named as one."""
    config = read_config(surface)

    with pytest.raises(UsageError, match=r"does not see run 0123456789abcdef .* folder that all machines share"):
        open_there(steps.items, config, DATE, "0123456789abcdef", 1)


@pytest.mark.parametrize(
    ("device", "workers", "dealt"),
    [
        ("gpu", 1, ([[0, 1], [2, 3, 4]], ["2", "5"])),
        ("gpu", 3, ([[0], [1, 2], [3, 4]], ["2", "5"])),
        ("cpu", 1, ([[0, 1, 2, 3, 4]], [])),
    ],
)
def test_a_machine_has_a_worker_for_each_of_its_gpus(
    surface: Path, monkeypatch: pytest.MonkeyPatch, device: str, workers: int, dealt: tuple[list[list[int]], list[str]]
) -> None:
    """The shards are dealt to as many processes as there are GPUs, or more if the config has more workers."""
    config = read_config(surface)
    config = config.model_copy(update={"night": config.night.model_copy(update={"workers": workers})})
    run = Run(Path("run"), "0123456789abcdef", DATE, 0, "", "int64", "int64", 5, 1, {}, {}, {"device": device}, {})
    found: list[object] = []
    monkeypatch.setattr("batch.profile.visible_gpus", lambda: ["2", "5"])
    monkeypatch.setattr("nightrec.engines.run_groups", lambda *given: found.append((given[1], given[3])))

    run_shards("interests", config, run, range(5), lambda rows: None)

    assert found == [dealt]


def test_what_goes_wrong_in_a_worker_can_be_told_elsewhere() -> None:
    """An error of ours stays itself, a lack of the machine is put in words, anything else keeps its traceback."""
    ours, lack = UsageError("no"), MemoryError("of 3 GB")
    unforeseen = partial(int, "x")

    assert told_by_worker(ours) is ours
    assert "memory does not suffice (of 3 GB)" in str(told_by_worker(lack))
    with pytest.raises(ValueError, match="invalid literal") as caught:
        unforeseen()
    told = told_by_worker(caught.value)
    assert type(told) is RuntimeError
    assert "Traceback" in str(told)
    assert "invalid literal" in str(told)
