"""A peer in a process of its own, which does a job whenever it is told to: both ends of what is said.

What is asked is a line of JSON, the name of a job and its arguments; so is the answer. The standard library alone.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ANSWERS = "PEER_ANSWERS"  # the file descriptor that they go through: libraries print on the others
LOGS = Path("build/bench-peers")
PATIENCE = 60.0  # seconds to end by itself
ROOT = Path(__file__).parents[2]

Ask = Callable[..., Any]


@contextmanager
def started(python: Path, module: str, *arguments: str) -> Iterator[Ask]:
    """Start a peer's *module* under its own interpreter, and wait until it is ready.

    Gives what asks it for a job, and waits for the answer.

    What it says besides lies in ``build/bench-peers/MODULE.log``.

    Raises:
        SystemExit: If it ends before it answers.
    """
    log = LOGS / f"{module.rpartition('.')[2]}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    with log.open("w") as said, os.fdopen(reading) as answers:
        peer = subprocess.Popen(
            [python.absolute(), "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            text=True,
            cwd=ROOT,
            env={**os.environ, ANSWERS: str(writing)},
            pass_fds=[writing],
        )
        os.close(writing)
        assert peer.stdin is not None

        def heard() -> Any:
            if not (line := answers.readline()):
                raise SystemExit(f"{module} ended without an answer; {log} has what it said")
            return json.loads(line)

        def ask(job: str, *about: Any) -> Any:
            with suppress(BrokenPipeError):  # then no answer comes either
                print(json.dumps([job, *about]), file=peer.stdin, flush=True)
            return heard()

        try:
            heard()
            yield ask
        finally:
            with suppress(BrokenPipeError):
                peer.stdin.close()
            try:
                peer.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                peer.kill()
                peer.wait()


def answer(jobs: Mapping[str, Callable[..., Any]]) -> None:
    """Say that the peer is ready, and do what is asked, job after job, until nobody asks any more."""
    with os.fdopen(int(os.environ[ANSWERS]), "w") as answers:
        print(json.dumps("ready"), file=answers, flush=True)
        for line in sys.stdin:
            job, *about = json.loads(line)
            print(json.dumps(jobs[job](*about)), file=answers, flush=True)


def peak_memory() -> int:
    """The most bytes that this process has held, since it is this program."""
    lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
