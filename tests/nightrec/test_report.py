"""``nightrec report``: where the page of a night lies, of a published and of a refused one; no night fails for it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nightrec.config import read_config
from nightrec.main import execute
from tests.blocks import commands_of

DATE = "2026-03-10"
REFUSING = "\n[gates]\nrecall = 1.5\n"


def test_the_page_of_a_night_is_found(
    surface: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, then published: its run and its release tell where the page is, and a copy can be had."""
    monkeypatch.chdir(surface.parent)
    plain = surface.read_text()
    newest, of_date, copied = (list(command.words[1:]) for command in commands_of(__file__))
    surface.write_text(plain + REFUSING)

    assert execute(["run", "--config", "job.toml", "--date", DATE]) == 3
    said = capsys.readouterr().err
    assert "the report lacks" not in said
    assert execute([*of_date, "--json"]) == 0
    refused = Path(json.loads(capsys.readouterr().out)["report"]).read_text("utf-8")
    assert "Refused, by 1 of " in refused

    surface.write_text(plain)
    assert execute(["run", "--config", "job.toml", "--date", DATE]) == 0
    assert execute([*newest, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert re.fullmatch(rf"{DATE}-[0-9a-f]{{12}}", told["night"])
    assert told["is"] == "published: readers of LATEST have it"
    assert "The gates let it pass" in Path(told["report"]).read_text("utf-8")
    assert execute(copied) == 0
    assert Path("report.html").read_bytes() == Path(told["report"]).read_bytes()
    assert execute(["report", "--config", "job.toml", "--out", "sent/to/report.html"]) == 0
    assert Path("sent/to/report.html").read_bytes() == Path("report.html").read_bytes()
    assert execute(["report", "--config", "job.toml", "--out", "job.toml/report.html"]) == 2
    assert "job.toml/report.html: cannot be written (" in capsys.readouterr().err
    listed = json.loads((Path(told["report"]).with_name("record.json")).read_text())["files"]
    assert listed["report.html"]["size"] == len(Path("report.html").read_bytes())


def test_a_refused_night_leads_to_its_page_and_an_override_is_told(
    surface: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The terminal says how to see what refuses; published all the same, the page and ``releases show`` say why."""
    surface.write_text(surface.read_text() + REFUSING)
    night = ["--config", str(surface), "--date", DATE]
    assert execute(["run", *night]) == 3
    assert f"`nightrec report {DATE}`" in capsys.readouterr().err

    assert execute(["publish", *night, "--override", "a test of recall"]) == 0
    assert execute(["report", DATE, "--config", str(surface), "--json"]) == 0
    assert "Reason given: a test of recall." in Path(json.loads(capsys.readouterr().out)["report"]).read_text("utf-8")
    assert execute(["releases", "show", "--config", str(surface)]) == 0
    (told,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("overridden"))
    assert told.endswith(f"(found: {DATE}: refused by the gates recall): a test of recall")


def test_a_night_of_which_there_is_no_report(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was never made is said in one line, with what makes it."""
    assert execute(["report", DATE, "--config", str(surface)]) == 1

    assert f"no run of {DATE} is prepared" in capsys.readouterr().err


def test_what_became_of_a_night_is_said_at_reading(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page stays as it was made; the command knows of channels, of a revision, and of a pointer that is broken."""
    config = ["--config", str(surface)]

    def became(*night: str, channel: str = "LATEST") -> tuple[str | None, str]:
        capsys.readouterr()
        assert execute(["report", *night, *config, "--channel", channel, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        return told["release"], told["is"]

    assert execute(["run", *config, "--date", DATE]) == 0
    version, said = became(DATE)
    assert said == f"published as {version}: readers of LATEST have it"
    assert became(DATE, channel="trial") == (version, f"published as {version}: trial names none yet")

    (surface.parent / "gone.txt").write_text("3\n")
    out = ["--drop-users", str(surface.parent / "gone.txt"), "--reason", "erasure", "--who", "Ann"]
    assert execute(["releases", "revise", *config, *out, "--json"]) == 0
    revised = json.loads(capsys.readouterr().out)["version"]
    assert became(DATE) == (revised, f"published as {revised}: readers of LATEST have it")
    assert became(str(version)) == (version, f"published: readers of LATEST have {revised}")
    assert execute(["report", *config]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"nightrec: {revised} is revised, and has no report: the one before may tell of whom was taken"
    )
    assert f"`nightrec releases show {revised}`" in line

    (surface.parent / "store" / "LATEST").write_text("{}")
    assert "what readers have cannot be told (" in became(DATE)[1]


def test_a_report_that_cannot_be_made_fails_no_night(
    surface: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the midst of the page is said; the night is published, and the page made when it can be."""

    def full(*_: object, **__: object) -> list[str]:
        raise OSError(28, "No space left on device")

    run: list[str] = ["run", "--config", str(surface), "--date", DATE]
    with monkeypatch.context() as patched:
        patched.setattr("release.report.write_report", full)
        assert execute(run) == 0
    assert "the report lacks a part; the whole report: OSError: [Errno 28]" in capsys.readouterr().err
    assert execute(["report", "--config", str(surface)]) == 2
    assert "there is no report; `nightrec check` makes one" in capsys.readouterr().err

    assert execute(["check", "--config", str(surface), "--date", DATE]) == 0
    assert execute(["report", DATE, "--config", str(surface)]) == 0


@pytest.mark.parametrize("said", ["none", "pseudonym", "id"])
def test_the_config_says_how_people_are_shown(surface: Path, said: str) -> None:
    """The key is read; pseudonyms are the default."""
    assert read_config(surface).report.sample_users == "pseudonym"
    surface.write_text(surface.read_text() + f'\n[report]\nsample_users = "{said}"\n')

    found: Any = read_config(surface).report.sample_users
    assert found == said
