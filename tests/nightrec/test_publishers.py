"""Two machines that publish at once: one wins, and the other says so, or finds that nothing is left to do."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifacts.run import Run
from nightrec.config import read_config
from nightrec.main import execute
from nightrec.run import continued_run
from release.pointer import follow, move_pointer, read_pointer, versions
from release.publish import Published, publish

DATE = "2026-03-10"
STEPS = ("prepare", "items", "index", "interests", "score", "check")
Overtaken = Callable[..., list[Published]]


def do(verb: str, config: Path, *more: str) -> int:
    return execute([verb, "--config", str(config), "--date", DATE, *more])


def checked(config: Path, *, top_n: int = 5) -> Run:
    """Do all steps up to ``check``; another length of the lists makes another run, of other content."""
    config.write_text(re.sub(r"top_n = \d", f"top_n = {top_n}", config.read_text()))
    assert [do(verb, config) for verb in STEPS] == [0] * len(STEPS)
    return continued_run(read_config(config), DATE)


@pytest.fixture
def overtaken_by(surface: Path, monkeypatch: pytest.MonkeyPatch) -> Overtaken:
    """Let another machine publish a run whenever this one is about to move its pointer: ``overtaken_by(run)``."""
    root = surface.parent / "store"

    def prepared(run: Run, **reasons: str) -> list[Published]:
        theirs: list[Published] = []

        def late(*arguments: Any, **options: Any) -> None:
            with monkeypatch.context() as elsewhere:
                elsewhere.setattr("release.publish.move_pointer", move_pointer)
                theirs.append(publish(run, root, **reasons))
            move_pointer(*arguments, **options)

        monkeypatch.setattr("release.publish.move_pointer", late)
        return theirs

    return prepared


def test_who_comes_second_with_other_content_says_so(
    surface: Path, overtaken_by: Overtaken, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 4, since trying again changes nothing; what it has stored may be published later, with a reason."""
    first = checked(surface)
    checked(surface, top_n=4)
    theirs = overtaken_by(first)
    capsys.readouterr()

    assert do("publish", surface) == 4

    root, (winner,) = surface.parent / "store", theirs
    assert follow(root).version == winner.version
    assert len(versions(root)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "someone else published meanwhile" in line
    assert winner.version in line
    assert "--supersede REASON" in line


def test_who_comes_second_with_equal_content_has_nothing_to_do(
    surface: Path, overtaken_by: Overtaken, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same night of both machines is one release, and both have succeeded."""
    theirs = overtaken_by(checked(surface))
    capsys.readouterr()

    assert do("publish", surface, "--json") == 0

    said, (winner,) = json.loads(capsys.readouterr().out), theirs
    assert (said["release"], said["stored"], said["moved"]) == (winner.version, True, False)  # stored before they came
    assert said["current"]
    pointer = read_pointer(surface.parent / "store")
    assert pointer is not None
    assert (pointer.version, pointer.sequence) == (winner.version, 1)


def test_a_reason_is_not_turned_against_what_came_meanwhile(
    surface: Path, overtaken_by: Overtaken, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was given for what was there before: who gave it has to look at what is there now."""
    theirs_to_be = checked(surface)
    checked(surface, top_n=4)
    assert do("publish", surface) == 0
    checked(surface, top_n=3)
    theirs = overtaken_by(theirs_to_be, supersede="a better one")
    capsys.readouterr()

    assert do("publish", surface, "--supersede", "the lists were too long") == 4

    (winner,) = theirs
    assert follow(surface.parent / "store").version == winner.version
    assert "changed by someone else" in capsys.readouterr().err
