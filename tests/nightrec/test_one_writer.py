"""Two processes at one run: one writes, the other waits; and one that comes back from the dead damages nothing."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from artifacts.store import STAGING_PREFIX
from nightrec.main import execute

DATE = "2026-03-10"
ORDER = ("prepare", "items", "index", "interests", "score", "check", "publish")

# A step that stops itself, as a worker that hangs, when it first comes to a function; SIGCONT lets it go on.
STOPS = """
import importlib, os, signal, sys
from nightrec import main
name, _, function = sys.argv.pop(1).rpartition(".")
owner = sys.modules.get(name) or importlib.import_module(name)
original = getattr(owner, function)
stopped = []
def stopping(*arguments, **options):
    if not stopped:
        stopped.append(True)
        os.kill(os.getpid(), signal.SIGSTOP)
    return original(*arguments, **options)
setattr(owner, function, stopping)
main.main()
"""
MOMENTS = [  # of each step: where it stops, within its lock
    ("prepare", "batch.prepare._write_tables"),
    ("prepare", "batch.prepare._digest"),
    ("prepare", "batch.prepare.settle"),
    ("items", "batch.items._write"),
    ("index", "batch.index.choose_nprobe"),
    ("index", "batch.index._require_same_answers"),
    ("interests", "artifacts.tables._canonical_batch"),
    ("score", "batch.score.writing_table"),
    ("check", "release.check._judge"),
    ("check", "release.check.write_record"),
    ("publish", "release.publish._store_record"),
    ("publish", "release.publish.move_pointer"),
]
IDS = [f"{verb}-{moment.rpartition('.')[2]}" for verb, moment in MOMENTS]

IN_THE_MIDST = [  # where something half written lies about
    ("prepare", "batch.prepare._digest"),
    ("items", "artifacts.tables._canonical_batch"),
    ("index", "faiss.PyCallbackIOWriter"),
    ("score", "artifacts.tables._canonical_batch"),
    ("check", "release.check._judge"),
    ("publish", "release.publish.copy_verified"),
]


def arguments(verb: str, config: Path) -> list[str]:
    return [verb, "--config", str(config), "--date", DATE, "--json"]


@contextmanager
def stopped(verb: str, config: Path, moment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a step that has stopped itself when it came to *moment*."""
    program = [sys.executable, "-c", STOPS, moment, *arguments(verb, config)]
    with subprocess.Popen(program, stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            status = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            assert status
            assert status.si_code == os.CLD_STOPPED, "the step ended before it came to the moment"
            yield process
        finally:
            process.kill()


def do(config: Path, *verbs: str) -> None:
    for verb in verbs:
        assert execute(arguments(verb, config)) == 0


@pytest.mark.parametrize(("verb", "moment"), MOMENTS, ids=IDS)
def test_the_second_waits_and_finds_it_done(surface: Path, published: tuple[Path, Any], verb: str, moment: str) -> None:
    """It says once for whom it waits; when the first goes on, each shard is done by one and found done by the other."""
    do(surface, *ORDER[: ORDER.index(verb)])
    with stopped(verb, surface, moment) as first:
        second = subprocess.Popen(
            [Path(sys.executable).with_name("nightrec"), *arguments(verb, surface)], stdout=PIPE, stderr=PIPE, text=True
        )
        assert second.stderr
        waits = second.stderr.readline()
        first.send_signal(signal.SIGCONT)
        first_out, first_err = first.communicate(timeout=300)
        out, err = second.communicate(timeout=300)

    assert f"waiting for process {first.pid} on " in waits
    assert "waiting" not in err
    assert (first.returncode, second.returncode) == (0, 0), first_err + err
    (step,), (other,) = (json.loads(answer)["steps"] for answer in (out, first_out))
    assert step["skipped"] + other["skipped"] == step["shards"]
    do(surface, "run")
    assert_as_if_alone(surface, published)


@pytest.mark.parametrize(("verb", "moment"), MOMENTS, ids=IDS)
def test_who_comes_back_from_the_dead_damages_nothing(
    surface: Path, published: tuple[Path, Any], command: Any, verb: str, moment: str
) -> None:
    """A process that lost its lock while it was stopped goes on when another has done its work and published it."""
    do(surface, *ORDER[: ORDER.index(verb)])
    store = surface.parent / "store"
    with stopped(verb, surface, moment) as zombie:
        for path in store.rglob("*.lock"):
            if not path.name.startswith(STAGING_PREFIX):
                path.unlink()  # the next one locks a new file, as on a disk whose server has forgotten the locks
        night = command(*arguments("run", surface))
        assert night.returncode == 0, night.stderr
        zombie.send_signal(signal.SIGCONT)
        _, err = zombie.communicate(timeout=300)

    assert zombie.returncode in {0, 1}, err
    assert "Traceback" not in err
    do(surface, "run")
    assert_as_if_alone(surface, published)


@pytest.mark.parametrize(("verb", "moment"), IN_THE_MIDST, ids=[verb for verb, _ in IN_THE_MIDST])
def test_what_a_killed_step_left_half_written_is_swept(
    surface: Path, published: tuple[Path, Any], verb: str, moment: str
) -> None:
    """It is there when the step is killed, and gone when the step has been done again."""
    do(surface, *ORDER[: ORDER.index(verb)])
    with stopped(verb, surface, moment) as process:
        process.kill()
    assert list((surface.parent / "store").rglob(f"{STAGING_PREFIX}*")) != []

    do(surface, "run")

    assert_as_if_alone(surface, published)


def assert_as_if_alone(config: Path, published: tuple[Path, Any]) -> None:
    """What is published is what a night without company publishes, and nothing half done is left."""
    (ours, latest), (others, wanted) = (content(path.parent / "store") for path in (config, published[0]))
    assert ours == others
    assert (latest["version"], latest["sequence"]) == (wanted["version"], 1)
    assert list((config.parent / "store").rglob(f"{STAGING_PREFIX}*")) == []


def content(store: Path) -> tuple[dict[str, bytes], Any]:
    latest = json.loads((store / "LATEST").read_text())
    folder = store / "releases" / latest["version"]
    names = json.loads((folder / "manifest.json").read_text())["files"]
    return {name: (folder / name).read_bytes() for name in [*names, "manifest.json"]}, latest
