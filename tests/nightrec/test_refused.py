"""A night that is refused before its gates leaves a page that says why, until it is done after all."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from artifacts.layout import RootLayout
from nightrec.main import execute
from tests.nightrec.calls import DATE, fails, run, step
from tests.nightrec.conftest import write_data

LATER = "2026-03-12"  # two days after the last event


def page_of(surface: Path, date: str) -> Path:
    return RootLayout(surface.parent / "store").refusal(date)


def told(surface: Path, night: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """Ask for a night's report, which there must be, and give what machines are told."""
    capsys.readouterr()
    assert execute(["report", night, "--config", str(surface), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_day_that_never_came_has_a_page_until_it_comes(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Waited for, it has none; refused, it has one that ``report`` finds; done after all, the page is gone."""
    plain = surface.read_text()
    assert fails(run(surface, date=LATER), capsys)[0] == 5
    assert not page_of(surface, LATER).exists()
    surface.write_text(plain + "\n[day]\ndeadline_hours = 1\n")

    code, err = fails(run(surface, date=LATER), capsys)

    *before, last = err.splitlines()
    assert code == 3
    assert last.endswith("the deadline, 1 hours after the day's end, has passed")
    assert f"`nightrec report {LATER}`" in before[-1]
    found = told(surface, LATER, capsys)
    assert (found["night"], found["release"], found["is"]) == (LATER, None, "refused before its gates")
    assert found["report"] == str(page_of(surface, LATER))
    assert "the deadline, 1 hours after" in Path(found["report"]).read_text("utf-8")

    (surface.parent / "data").rename(surface.parent / "early")
    write_data(surface.parent / "data", last=LATER)
    assert execute(run(surface, date=LATER)) == 0
    assert not page_of(surface, LATER).exists()
    done = told(surface, LATER, capsys)
    assert done["release"].startswith(LATER)
    assert done["is"] == f"published as {done['release']}: readers of LATEST have it"


def test_a_model_of_the_future_and_a_wrong_input_have_one(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What refuses the models or the data is shown; a wrong config is mended, not reported on."""
    assert fails(run(surface, date="2026-02-28"), capsys)[0] == 3
    assert "it has seen the future" in page_of(surface, "2026-02-28").read_text("utf-8")

    plain = surface.read_text()
    surface.write_text(plain.replace('item = "bundles/item"', 'item = "bundles/itm"'))
    assert fails(run(surface), capsys)[0] == 2
    assert not page_of(surface, DATE).exists()

    surface.write_text(plain)
    items = surface.parent / "data" / "items.parquet"
    pq.write_table(pq.read_table(items).drop_columns("item_id"), items)
    assert fails(["prepare", *run(surface)[1:]], capsys)[0] == 4
    assert "items.parquet: column item_id" in page_of(surface, DATE).read_text("utf-8")


def test_a_later_step_and_the_check_that_ends_it(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table that changed under the night is shown with its step; judged after all, the night has its own report."""
    key = step(surface, capsys, "prepare")["run_key"]
    assert execute(["items", *run(surface)[1:]]) == 0
    layout = RootLayout(surface.parent / "store").run(DATE, key)
    table = layout.items(0, 1)
    whole = table.read_bytes()
    table.write_bytes(whole[:-1] + b"!")

    assert fails(["index", *run(surface)[1:]], capsys)[0] == 4

    page = page_of(surface, DATE).read_text("utf-8")
    assert f"Refused in the step index: {table}" in page
    table.write_bytes(whole)
    for verb in ("index", "interests", "score"):
        assert execute([verb, *run(surface)[1:]]) == 0
    assert page_of(surface, DATE).exists()  # its other groups may be refused still
    assert execute(["check", *run(surface)[1:]]) == 0
    assert not page_of(surface, DATE).exists()
    assert told(surface, DATE, capsys)["is"] == "not published"


def test_a_date_that_was_published_before_names_its_release(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Done again of bad inputs, the date's page is that of the refusal; its release keeps its own."""
    assert execute(run(surface)) == 0
    (surface.parent / "data" / "items.parquet").write_bytes(b"no table")
    assert fails(run(surface), capsys)[0] == 4

    refused = told(surface, DATE, capsys)

    version = refused["is"].split()[4].rstrip(",")
    assert refused["is"] == f"refused before its gates; {version}, which was made of it before, has a report of its own"
    assert told(surface, version, capsys)["is"] == "published: readers of LATEST have it"


def test_a_page_that_cannot_be_written_hides_no_refusal(surface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The refusal ends as it would have; what is wrong with the page is a line before it."""
    page_of(surface, "2026-02-28").mkdir(parents=True)

    code, err = fails(run(surface, date="2026-02-28"), capsys)

    assert code == 3
    first, last = err.splitlines()[-2:]
    assert first.startswith("nightrec: the page about the refusal could not be made; IsADirectoryError")
    assert "it has seen the future" in last
