"""``nightrec trend`` and what a night leaves for dashboards: the same numbers, and a night never fails for them."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nightrec.config import read_config
from nightrec.main import execute
from release.metrics import METRICS
from tests.blocks import ROOT, commands_of

DATE = "2026-03-10"
ASKED = '\n[metrics]\ntextfile = "collector/shop.prom"\njsonl = "told/nights.jsonl"\n'
IMPOSSIBLE = "\n[gates]\nrecall = 1.5\n"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def night(config: Path, *more: str) -> int:
    return execute(["run", "--config", str(config), "--date", DATE, *more])


def test_a_night_leaves_its_numbers(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused, published and pruned: the files tell of the night as it is, and the page remembers it."""
    folder = surface.parent
    plain = surface.read_text() + ASKED
    textfile, told = folder / "collector" / "shop.prom", folder / "told" / "nights.jsonl"

    surface.write_text(plain + IMPOSSIBLE)
    assert night(surface) == 3
    assert 'nightrec_night_refused{surface="tiny",channel="LATEST"} 1\n' in textfile.read_text()
    assert [(line["date"], line["outcome"]) for line in lines_of(told)] == [(DATE, "refused")]

    surface.write_text(plain)
    assert night(surface) == 0
    text = textfile.read_text()
    assert 'nightrec_night_refused{surface="tiny",channel="LATEST"} 0\n' in text
    assert 'nightrec_users{surface="tiny",channel="LATEST"} 39\n' in text
    (line,) = lines_of(told)
    assert (line["surface"], line["outcome"], line["version"][:10]) == ("tiny", "published", DATE)
    assert set(line["steps"]) >= {"prepare", "items", "index", "interests", "score", "check"}

    capsys.readouterr()
    shutil.rmtree(folder / "store" / "releases")
    shutil.rmtree(folder / "store" / "runs")
    assert execute(["trend", "--config", str(surface), "--out", str(folder / "trend.html"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["nights"] == [{key: value for key, value in line.items() if key not in {"surface", "channel"}}]
    assert "The newest night, 2026-03-10, is published" in (folder / "trend.html").read_text("utf-8")


def test_another_channel_has_files_of_its_own(surface: Path) -> None:
    """A shadow's night is not taken for what readers have."""
    surface.write_text(surface.read_text() + ASKED)
    assert night(surface, "--channel", "shadow") == 0

    folder = surface.parent
    assert [one.name for one in (folder / "collector").iterdir()] == ["shop-shadow.prom"]
    assert 'nightrec_night_published{surface="tiny",channel="shadow"} 1\n' in (
        folder / "collector" / "shop-shadow.prom"
    ).read_text("utf-8")
    assert [line["channel"] for line in lines_of(folder / "told" / "nights-shadow.jsonl")] == ["shadow"]


def test_a_night_is_published_where_its_numbers_cannot_be_written(
    surface: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is in the way is said, with what to do; the night ends well."""
    surface.write_text(surface.read_text() + ASKED)
    (surface.parent / "told").mkdir()
    (surface.parent / "told" / "nights.jsonl").write_text("something of yours\n")

    assert night(surface) == 0
    said = capsys.readouterr().err
    assert "nights.jsonl, line 1: expected a night as JSON" in said
    assert "`nightrec trend` writes them again" in said
    assert (surface.parent / "told" / "nights.jsonl").read_text() == "something of yours\n"


def test_the_verb_writes_what_is_asked_for(
    published: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files for dashboards, or the page if none is named; people get a row a night."""
    monkeypatch.chdir(tmp_path)
    config, _ = published
    asked = ["--prometheus", "shop.prom", "--jsonl", "nights.jsonl", "--alerts", "alerts.yml"]
    assert execute(["trend", "--config", str(config), *asked]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alerts.yml", "nights.jsonl", "shop.prom"]
    assert "published" in capsys.readouterr().err
    assert 'gate="recall"' in (tmp_path / "alerts.yml").read_text()

    before = (tmp_path / "nights.jsonl").read_text()
    assert execute(["trend", "--config", str(config), "--jsonl", "nights.jsonl"]) == 0
    assert (tmp_path / "nights.jsonl").read_text() == before

    (tmp_path / "taken").mkdir()
    capsys.readouterr()
    for place in ("taken", "alerts.yml/trend.html"):
        assert execute(["trend", "--config", str(config), "--out", place]) == 2
        assert f"{place}: cannot be written (" in capsys.readouterr().err

    assert execute(["trend", "--config", str(config)]) == 0
    assert (tmp_path / "trend.html").read_text().startswith("<!DOCTYPE html>")


def test_a_surface_without_nights_is_told_what_to_do(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is drawn of nothing."""
    assert execute(["trend", "--config", str(surface), "--out", str(surface.parent / "trend.html")]) == 2
    assert "there is no night yet; run `nightrec run` first" in capsys.readouterr().err
    assert not (surface.parent / "trend.html").exists()


def test_a_textfile_that_nobody_would_read_is_refused(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """node_exporter reads files that end in ``.prom``; a path is relative to the config."""
    plain = surface.read_text()
    surface.write_text(plain + '\n[metrics]\ntextfile = "shop.txt"\n')
    assert night(surface) == 2
    assert "expected a path that ends in .prom in metrics.textfile" in capsys.readouterr().err

    surface.write_text(plain + ASKED)
    assert read_config(surface).metrics.textfile == str(surface.parent / "collector" / "shop.prom")


def test_the_page_of_the_docs_runs(
    published: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command of docs/dashboards.md ends as it says; promtool's are left out where there is none."""
    config, _ = published
    shutil.copytree(config.parent, tmp_path / "shop")
    monkeypatch.chdir(tmp_path / "shop")
    assert night(Path("job.toml"), "--channel", "shadow") == 0
    for command in commands_of(__file__):
        if command.words[0] == "nightrec":
            assert execute(command.words[1:]) == command.code, capsys.readouterr().err
        elif shutil.which("promtool"):
            ran = subprocess.run(command.line, shell=True, capture_output=True, text=True, check=False)
            assert ran.returncode == command.code, ran.stdout + ran.stderr

    page = (ROOT / "docs" / "dashboards.md").read_text("utf-8")
    assert [line for line in page.splitlines() if line.startswith("| `")] == [
        f"| `{metric.name}` | {metric.help} |" for metric in METRICS
    ]
