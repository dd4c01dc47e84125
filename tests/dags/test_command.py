"""The command as a child process: what it says is heard, and it never outlives those who asked for it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dags.night import command
from dags.night.command import Command

ROOT = Path(__file__).parents[2]
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("go", file=sys.stderr, flush=True)
time.sleep(60)
"""
PARENT = """
import os, sys
from dags.night.command import Command
Command([sys.executable, "-c", sys.argv[1]], os.environ).run(lambda line: print(line, flush=True))
"""


def python(code: str, **environment: str) -> Command:
    return Command([sys.executable, "-c", code], environment)


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come to that in 20 seconds")


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked after does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_lines_are_told_while_it_runs(tmp_path: Path) -> None:
    """The second line is only written once somebody has heard the first."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = (
        f"import sys; print('one', file=sys.stderr, flush=True); open({str(pipe)!r}).read(); sys.stderr.write('zwölf')"
    )
    heard: list[str] = []

    def told(line: str) -> None:
        heard.append(line)
        if line == "one":
            pipe.write_text("go on")

    ended = python(code, PYTHONIOENCODING="utf-8").run(told)

    assert ended == (0, "")
    assert heard == ["one", "zwölf"]


def test_the_exit_code_and_all_of_standard_output_come_back() -> None:
    """More than a pipe holds, while standard error is written too: neither waits for the other."""
    code, output = python("import sys; print('x' * 200_000); print('y' * 200_000, file=sys.stderr); sys.exit(5)").run(
        lambda line: None
    )

    assert (code, output) == (5, "x" * 200_000 + "\n")


def test_it_gets_no_input_and_none_of_airflows_secrets() -> None:
    code = "import os, sys; print(sorted(os.environ), repr(sys.stdin.read()))"
    given = {
        "AWS_REGION": "x",
        "AIRFLOW__API_AUTH__JWT_SECRET": "s",
        "__AIRFLOW_SUPERVISOR_FD": "3",
        "AIRFLOW_CTX_DAG_ID": "d",
    }

    _, output = python(code, **given).run(lambda line: None)

    assert output.replace("'LC_CTYPE', ", "").replace(", 'LC_CTYPE'", "") == "['AIRFLOW_CTX_DAG_ID', 'AWS_REGION'] ''\n"


def test_it_is_asked_to_stop() -> None:
    running = python("import time, sys; print('go', file=sys.stderr, flush=True); time.sleep(60)")

    code, _ = running.run(lambda line: running.stop())

    assert code == -signal.SIGTERM


def test_one_that_does_not_stop_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_GRACE_SECONDS", 0.2)
    running = python(STUBBORN)

    code, _ = running.run(lambda line: running.stop())

    assert code == -signal.SIGKILL


def test_nobody_is_at_work_any_more_when_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's timeout is an exception out of nowhere; the next try begins right after it."""
    monkeypatch.setattr(command, "_GRACE_SECONDS", 0.2)
    heard: list[int] = []

    def told(line: str) -> None:
        heard.append(int(line))
        raise TimeoutError

    with pytest.raises(TimeoutError):
        python(STUBBORN.replace('"go"', "__import__('os').getpid()")).run(told)

    assert not Path(f"/proc/{heard[0]}").exists()


def test_stopped_before_it_began_it_ends_at_once() -> None:
    running = python("import time; time.sleep(60)")
    running.stop()

    assert running.run(lambda line: None)[0] == -signal.SIGTERM


def test_it_is_told_when_its_parent_is_killed() -> None:
    """A task that is killed with -9 cannot tell it; the kernel does, so that no second writer is left behind."""
    code = "import os, sys, time; print(os.getpid(), file=sys.stderr, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", PARENT, code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()

    until(lambda: not alive(child))
