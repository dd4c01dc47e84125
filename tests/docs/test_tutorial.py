"""docs/tutorial.md, line for line from an empty folder to its last command; then what other pages do with its shop."""

import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from nightrec.main import execute
from release.pointer import read_pointer, versions
from tests.blocks import ROOT, Block, blocks_for, blocks_of, commands_in

TUTORIAL = ROOT / "docs" / "tutorial.md"
VERSION = re.compile(r"(2026-\d\d-\d\d)-[0-9a-f]{12}")


def test_the_tutorial_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is to be saved is saved, every command ends as the page says, and what it shows was said."""
    monkeypatch.chdir(tmp_path)
    said = ""
    for block in blocks_of(TUTORIAL):
        if block.language == "text":
            assert plain(block.text) in plain(said)
        else:
            said = do(block, capsys)
    there = {command.words for block in blocks_of(TUTORIAL) if block.language == "sh" for command in commands_in(block)}
    for block in blocks_for(__file__):
        if block.page != "docs/tutorial.md":
            do(block, capsys, done=there)

    pointer = read_pointer(tmp_path / "store")
    assert pointer is not None
    assert (pointer.date, pointer.hold) == ("2026-04-01", None)
    assert list(stored()) == ["2026-03-31", "2026-04-01"]


def do(block: Block, capsys: pytest.CaptureFixture[str], *, done: Collection[tuple[str, ...]] = frozenset()) -> str:
    """Do what a block says, but for commands that are *done*; give what the others said on standard error."""
    if block.name:
        Path(block.name).write_text(block.text)
    elif block.language == "python":
        subprocess.run([sys.executable, "-c", block.text], check=True)
    elif block.language == "sh" and block.mark == "run":
        return "".join(
            run(command.line, command.words, command.code, capsys)
            for command in commands_in(block)
            if command.words not in done
        )
    return ""


def run(line: str, words: tuple[str, ...], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    program, *arguments = (VERSION.sub(lambda found: stored()[found[1]], word) for word in words)
    if program == "python":
        subprocess.run([sys.executable, *arguments], check=True)
        return ""
    ended = execute(arguments)
    said = capsys.readouterr().err
    assert ended == code, f"{line}\n{said}"
    return said


def stored() -> dict[str, str]:
    """The stored release of each date."""
    return {version[:10]: version for version in versions(Path("store"))}


def plain(text: str) -> str:
    """Text without line breaks, and without what makes one release another."""
    return VERSION.sub(r"\1", " ".join(text.split()))
