"""docs/operations.md: each command on the page does what it says, in the order of the page."""

import re
import shutil
from pathlib import Path

import pytest

from nightrec.main import execute
from release.gates import GATES
from release.pointer import read_pointer, versions
from tests.blocks import ROOT, commands_of
from tests.night.shop import Shop, write_bundles

VERSION = re.compile(r"(2026-\d\d-\d\d)-[0-9a-f]{12}")
PAGE = ROOT / "docs" / "operations.md"


def test_every_gate_stands_on_the_page_once() -> None:
    """Whoever is told a gate's name finds what it asks, and what to look at."""
    table = PAGE.read_text("utf-8").partition("| gates | they ask")[2].partition("\n\n")[0]
    told = [name for row in table.splitlines()[2:] for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])]

    assert sorted(told) == sorted(gate.name for gate in GATES)


@pytest.fixture
def on_call(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the config of the shop and one night of it, a new model, and the config that names its bundles."""
    monkeypatch.chdir(tmp_path)
    config = shop.config(tmp_path).read_text()
    (tmp_path / "next.toml").write_text(config.replace(f"{shop.folder}/bundles", "bundles-next"))
    later = Shop(tmp_path / "later")
    shutil.copytree(shop.data, later.data)
    write_bundles(later, seed=2)
    (tmp_path / "models").symlink_to(later.folder / "models")
    assert execute(["run", "--config", "job.toml", "--date", "2026-03-29"]) == 0
    return tmp_path


def test_the_page_runs_from_top_to_bottom(on_call: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command ends as the page says, and afterwards the store is as it tells."""
    store = on_call / "store"
    for command in commands_of(__file__):
        words = [named(word, store) for word in command.words]
        if words[0] == "nightrec":
            code = execute(words[1:])
            said = capsys.readouterr()
            assert code == command.code, f"{command.line}\n{said.err}"
        elif words[0] == "rm":
            (path,) = on_call.glob(words[1])
            path.unlink()

    pointer = read_pointer(store)
    assert pointer is not None
    assert (pointer.date, pointer.hold) == ("2026-03-31", None)
    assert [version[:10] for version in versions(store)] == ["2026-03-28", "2026-03-29", "2026-03-30", "2026-03-31"]


def named(word: str, store: Path) -> str:
    """Put the release that is stored of a date in place of the one that the page names."""
    stored = {version[:10]: version for version in versions(store)}
    return VERSION.sub(lambda found: stored[found[1]], word)
