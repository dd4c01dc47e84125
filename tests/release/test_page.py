"""docs/releases.md: every command on the page does what it says."""

import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nightrec.main import execute
from release.check import check
from release.pointer import read_pointer, versions
from release.publish import publish
from tests.blocks import ROOT, commands_of
from tests.release.conftest import Night, make_run

VERSION = re.compile(r"2026-03-(\d\d)-[0-9a-f]{12}")
LAST = 31  # of the dates on the page; it is yesterday in the test
CONFIG = """\
[surface]
name = "shop"
root = "store"

[inputs.interactions]
path = "none.parquet"

[inputs.items]
path = "none.parquet"

[night]
threads = 1
"""


def test_every_verb_stands_on_the_page() -> None:
    """No verb of ``nightrec releases`` is without an example."""
    from nightrec.releases import app

    verbs = {one.name or one.callback.__name__ for one in app.registered_commands if one.callback}
    assert {one.words[2] for one in commands_of(__file__) if one.words[:2] == ("nightrec", "releases")} == verbs


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config, files of ids, and a store with three nights: LATEST has two, the shadow the last."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text(CONFIG)
    (tmp_path / "takedown.csv").write_text("1003\n")
    (tmp_path / "erase.txt").write_text("1042\n100\n")
    for day in (29, 30, 31):
        date = (datetime.now(UTC) - timedelta(days=LAST + 1 - day)).date().isoformat()
        run = make_run(tmp_path / "store", Night(date=date, shift=day))
        channel = "shadow" if day == LAST else "LATEST"
        check(run, tmp_path / "store", channel=channel, threads=1)
        publish(run, tmp_path / "store", channel=channel)
    return tmp_path / "store"


def test_the_page_runs_from_top_to_bottom(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command ends with code 0, and afterwards the store is as the page tells."""
    stored = versions(shop)
    for command in commands_of(__file__):
        if command.words[0] != "nightrec":
            continue
        line = [VERSION.sub(lambda found: stored[int(found[1]) - LAST - 1], word) for word in command.words[1:]]
        code = execute(line)
        said = capsys.readouterr()
        assert code == command.code, f"{shlex.join(line)}: {said.err}"
        assert ("{" in said.out) == ("--json" in line)
    left, pointer = versions(shop), read_pointer(shop)
    assert pointer is not None
    assert [version for version in stored if version in left] == [stored[0], stored[2]]
    assert pointer.version in set(left) - set(stored)
    assert sorted(path.name for path in (shop / "runs").iterdir()) == [stored[0][:10], stored[2][:10]]


def test_what_must_go_and_stays_ends_with_code_3(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An overdue release that is current is said aloud, and the code is that of a refusal."""
    current = read_pointer(shop)
    assert current is not None
    assert execute(["releases", "prune", "--config", "job.toml", "--max-age", "0", "--grace", "0", "--json"]) == 3
    said = capsys.readouterr()
    assert f"{current.version} must go and stays: current: LATEST names it" in said.err
    assert '"refused": 2' in said.out
    assert said.out.count("\n") == 1


def test_the_reader_of_the_page_reads(shop: Path) -> None:
    """The example prints the version, and a row for each recommendation of a user."""
    (words,) = [one.words for one in commands_of(__file__) if one.words[0] == "python"]
    line = [sys.executable, *words[1:3], shop, "101"]
    told = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    current = read_pointer(shop)
    assert current is not None
    assert told[0] == current.version
    assert len(told) == 11
