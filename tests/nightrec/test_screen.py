"""What a person sees at a real terminal, and what a log and a machine get of the same: commands under a pty."""

import fcntl
import json
import os
import pty
import re
import select
import shlex
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DATE = "2026-03-10"
DEADLINE = 300  # seconds until what does not end is a failure
NIGHTREC = Path(sys.executable).with_name("nightrec")
COUNTED = ("prepare: reading", "prepare: writing", "items", "interests", "score")
TIMED = ("index", "check", "publish")  # how many rows these go through nobody knows before
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")
STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

# Interests stand still once items and index are done, in a worker of their own, as a long step would.
STALLED = """
import signal
from nightrec import main, steps
from stalled import interests
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite started in the background ignores it
steps.MODEL_STEPS["interests"] = interests
main.main()
"""
STALLS = """
import time
from pathlib import Path
def interests(config, run, threads):
    Path({gate!r}).touch()
    time.sleep(600)
"""
SLOW = """
import time
from nightrec.terminal import progress
with progress("items", 1_000) as advance:
    for _ in range(5):
        advance(150)
        time.sleep(0.2)
"""

TRAIN = """
[train]
until = 2026-03-05
validate_days = 5
history_length = 5
mind = { width = 8, epochs = 2, hidden = [8], interests = 2 }
"""


@dataclass(frozen=True)
class Shown:
    """How a command ended, what its standard output was (a pipe), and all that it wrote to the terminal."""

    code: int
    out: str
    screen: str

    @property
    def text(self) -> str:
        """The screen without styles and movements."""
        return STYLE.sub("", self.screen)


def at_a_terminal(
    command: Sequence[object],
    *,
    columns: int = 120,
    environment: Mapping[str, str] | None = None,
    keys: tuple[Path, bytes] | None = None,
) -> Shown:
    """Run *command* with standard input and error at a pty of its own; *keys* are typed once a file is there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    plain = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}}
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        env={**plain, "TERM": "xterm-256color", **(environment or {})},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # else Ctrl-C is no signal there
    )
    os.close(slave)
    screen, end = b"", time.monotonic() + DEADLINE
    with process:
        while True:
            if time.monotonic() > end:
                process.kill()
                pytest.fail(f"{command} did not end: {screen.decode()}")
            if keys and keys[0].exists():
                os.write(master, keys[1])
                keys = None
            if select.select([master], [], [], 0.05)[0]:
                try:
                    screen += os.read(master, 65_536)
                except OSError:  # the last one who held the other end has gone
                    break
        assert process.stdout
        out = process.stdout.read().decode()
    os.close(master)
    return Shown(process.returncode, out, screen.decode())


def test_a_night_at_a_terminal(surface: Path) -> None:
    """Every step has its line of progress, which goes when it is done; one table ends it; the answer is clean."""
    shown = at_a_terminal([NIGHTREC, "run", "--config", surface, "--date", DATE, "--json"])

    assert shown.code == 0, shown.text
    for step in COUNTED:
        assert re.search(rf"{step} .*/\d+ rows .*0:00:0\d left", shown.text), step
    for step in TIMED:
        assert re.search(rf"\r{step} .*0:00:0\d", shown.text), step
    assert shown.text.count(f"Night of {DATE}") == 1
    assert shown.out.count("\n") == 1
    assert "\x1b" not in shown.out
    assert [step["step"] for step in json.loads(shown.out)["steps"]][-1] == "publish"


def test_a_refused_night_ends_with_its_table_too(surface: Path, command: Any) -> None:
    """How far it went, then what refuses it; a machine reads of the refusal alone."""
    surface.write_text(surface.read_text() + "\n[gates]\ncoverage = 1.1\n")

    shown = command("run", "--config", surface, "--date", DATE, "--json")

    assert shown.returncode == 3, shown.stderr
    table, _, refusal = shown.stderr.partition(f"Night of {DATE}, as far as it went\n")[2].partition("nightrec: ")
    steps = [line.split()[0] for line in table.splitlines()]
    assert steps[:6] == ["step", "prepare", "items", "index", "interests", "score"]
    assert "coverage" in refusal
    assert json.loads(shown.stdout)["exit_code"] == 3


def test_progress_says_rows_rows_a_second_and_time_left() -> None:
    """While a step runs, all three change in place."""
    shown = at_a_terminal([sys.executable, "-c", SLOW])

    assert shown.code == 0
    assert "750/1,000 rows" in shown.text
    assert re.search(r"\d+ rows/s", shown.text)
    assert re.search(r"left 0:00:0\d", shown.text)
    assert COLOUR.search(shown.screen)


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_progress_stays_in_one_line(columns: int) -> None:
    """Also where there is no room for a bar."""
    shown = at_a_terminal([sys.executable, "-c", SLOW], columns=columns)

    lines = [line for line in re.split(r"[\r\n]+", shown.text) if line.strip()]
    assert all(line.startswith("items") and len(line) <= columns for line in lines)
    assert any("750" in line for line in lines)


def test_no_color_means_none(published: tuple[Path, Any]) -> None:
    """Progress, tables and help are in one colour where NO_COLOR is set, whatever it is set to."""
    config, _ = published
    commands: list[list[object]] = [
        [sys.executable, "-c", SLOW],
        [NIGHTREC, "recommend", "3", "--config", config],
        [NIGHTREC, "why", "3", "4", "--config", config],
        [NIGHTREC, "nonsense"],
    ]
    for command in commands:
        shown = at_a_terminal(command, environment={"NO_COLOR": "1"})
        assert shown.screen
        assert not COLOUR.search(shown.screen), command
    helped = at_a_terminal([NIGHTREC, "--help"], environment={"NO_COLOR": "1"})
    assert "prepare" in helped.out
    assert not COLOUR.search(helped.out)


@pytest.mark.parametrize("columns", [40, 60, 80, 160])
def test_tables_fit_the_terminal(published: tuple[Path, Any], columns: int) -> None:
    """No line is longer than the terminal is wide, and no title is cut into single letters."""
    config, finished = published
    version = json.loads(finished.stdout)["release"]
    commands: dict[str, list[object]] = {
        "Thing": [NIGHTREC, "recommend", "3", "--config", config, "--top", "3"],
        "history": [NIGHTREC, "why", "3", "4", "--config", config],
        "recommendations": [NIGHTREC, "releases", "diff", version, version, "--config", config],
        version: [NIGHTREC, "releases", "list", "--config", config],
    }
    for words, command in commands.items():
        shown = at_a_terminal(command, columns=columns)
        assert shown.code == 0, shown.text
        framed = [line for line in shown.text.splitlines() if line[:1] in set("┏┃┡│└")]
        assert framed
        assert max(map(len, framed)) <= columns
        assert any(words in line for line in framed), shown.text


def test_what_a_narrow_terminal_does_not_show_is_named(published: tuple[Path, Any]) -> None:
    """Scores are missed less than titles; a wide terminal shows all."""
    config, _ = published
    command = [NIGHTREC, "recommend", "3", "--config", config]

    narrow, wide = at_a_terminal(command, columns=40), at_a_terminal(command, columns=120)

    assert "not shown on so narrow a terminal: score, retrieval_score, interest" in narrow.text
    assert "not shown" not in wide.text
    assert "retrieval_score" in wide.text


def test_columns_that_are_not_readable_side_by_side_stand_below_each_other() -> None:
    """On forty characters five columns would be cut within words: each cell has its name beside it, and whole words."""
    shown = at_a_terminal([NIGHTREC, "config", "explain", "index"], columns=40)

    framed = [line for line in shown.text.splitlines() if line[:1] == "│"]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in framed]
    assert max(map(len, shown.text.splitlines())) <= 40
    assert ["key", "index.recall_target"] in cells
    assert ["bounds", "above 0, at most 1"] in cells
    said = " ".join(value for _, value in cells)
    assert "The recall that nprobe is chosen for, against exact search on tonight's users." in said
    assert sum(name == "bounds" for name, _ in cells) == 5  # a type is one of three, and has none


def test_a_log_is_plain(published: tuple[Path, Any], command: Any) -> None:
    """Without a terminal nothing is styled, moved, framed or folded, and nothing is left out."""
    config, finished = published
    told = command("recommend", "3", "--config", config)

    for text in (finished.stderr, told.stderr):
        assert "\x1b" not in text
        assert "\r" not in text
        assert not set("┏┃┡│└") & set(text)
        assert all(line == line.rstrip() for line in text.splitlines())
    assert told.stderr.splitlines()[1].split() == [
        *("rank", "item_id", "title", "source", "score", "retrieval_score", "interest")
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_a_run_that_goes_on(surface: Path, tmp_path: Path, workers: int) -> None:
    """The key is heard in the middle of a step; the line says the very command, and that one finishes the night."""
    gate = tmp_path / "gate"
    (tmp_path / "stalled.py").write_text(STALLS.format(gate=str(gate)))
    arguments = ["run", "--config", str(surface), "--date", DATE, "--workers", str(workers), "--json"]

    stopped = at_a_terminal(
        [sys.executable, "-c", STALLED, *arguments],
        keys=(gate, b"\x03"),
        environment={"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])},
    )

    assert stopped.code == 130, stopped.text
    assert "Traceback" not in stopped.text
    assert "Night of" not in stopped.text
    assert json.loads(stopped.out)["exit_code"] == 130
    (line,) = [line for line in stopped.text.splitlines() if "To go on: " in line]
    assert "stopped by SIGINT; what is finished stays" in line
    again = shlex.split(line.partition("To go on: ")[2])
    assert again == ["nightrec", *arguments]
    finished = at_a_terminal([NIGHTREC, *again[1:]])
    assert finished.code == 0, finished.text
    steps = {step["step"]: step for step in json.loads(finished.out)["steps"]}
    assert [name for name, step in steps.items() if step["skipped"] == step["shards"]] == ["prepare", "items", "index"]


@pytest.mark.parametrize("no_color", ["", "1"])
def test_training_shows_keras_own_progress(surface: Path, no_color: str) -> None:
    """Rows read, then epochs and losses, on the screen alone; NO_COLOR gets lines: the bar's colours would stay."""
    surface.write_text(surface.read_text() + TRAIN)

    shown = at_a_terminal([NIGHTREC, "fit", "mind", "--config", surface, "--json"], environment={"NO_COLOR": no_color})

    assert shown.code == 0, shown.text
    assert re.search(r"reading .*rows", shown.text)
    if no_color:
        assert re.search(r"MIND, epoch 1 of 2: loss \S+, .*left", shown.text)
    else:
        assert re.search(r"Epoch 1/2\s+\d+/\d+ .*loss: ", shown.text)
    assert bool(COLOUR.search(shown.screen)) != bool(no_color)
    assert shown.out.count("\n") == 1
    assert json.loads(shown.out)["model"] == "mind"
