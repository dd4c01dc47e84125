"""The page of a night that never came to its gates: it says why, and what readers have, whatever else is broken."""

import re
from collections.abc import Callable
from html import escape, unescape
from pathlib import Path

from artifacts.documents import write_json
from artifacts.errors import InputError, RefusedError
from artifacts.layout import RootLayout
from artifacts.run import Run
from release.check import check
from release.gates import GATES
from release.nights import newest_night, recorded_nights
from release.publish import Published
from release.refusal import write_refusal
from release.releases import rollback
from release.trend import trend_page

LATE = RefusedError("data/events: expected events of 2026-03-04, found none; the deadline has passed")
Release = Callable[..., Published]


def page_of(root: Path, date: str = "2026-03-04", error: RefusedError | InputError = LATE, **said: str) -> str:
    """Write the page of a night that ``prepare`` refused, and give it; no part of it may be missing."""
    assert write_refusal(root, date, "prepare", error, **said) == []
    return RootLayout(root).refusal(date).read_text("utf-8")


def rows_of(page: str) -> list[list[str]]:
    """Give the cells of the page's one table."""
    rows = re.findall(r"<tr>(<td.*?)</tr>", page)
    return [[unescape(re.sub("<.*?>", "", cell)) for cell in re.findall(r"<td.*?>(.*?)</td>", row)] for row in rows]


def test_it_says_first_of_all_which_step_refused_the_night_and_why(tmp_path: Path) -> None:
    """Who opens it reads step and reason before anything else, and the command that does the night again."""
    page = page_of(tmp_path, channel="shadow")

    assert page.index(f"Refused in the step prepare: {LATE}") < page.index("</header>") < page.index("<h2")
    assert "<dt>exit code</dt><dd>3: a rule said no</dd>" in page
    assert "nightrec run --date 2026-03-04 --channel shadow</pre>" in page
    assert "shadow names no release yet: readers have nothing." in page
    wrong = page_of(tmp_path, error=InputError("data/items.parquet: column item_id is missing"))
    assert "4: an input or a stored file is wrong: trying again changes nothing" in wrong
    assert str(LATE) not in wrong


def test_the_days_before_are_told_and_what_still_stands(released: Release, tmp_path: Path) -> None:
    """Seven days and the refused one, newest first, gaps too; and the release that readers keep."""
    released(date="2026-02-24")
    first = released(date="2026-03-01")
    last = released(date="2026-03-02", shift=1)
    page = page_of(tmp_path)
    rows = rows_of(page)

    assert [row[0] for row in rows] == [
        *("2026-03-04", "2026-03-03", "2026-03-02", "2026-03-01"),
        *("2026-02-28", "2026-02-27", "2026-02-26", "2026-02-25"),
    ]
    assert [row[1] for row in rows] == ["refused", "no night", "published", "published", *["no night"] * 4]
    assert rows[0][2] == "in prepare, before its gates"
    assert rows[2][3:6] == ["60", "40", "600"]  # users, items, and ten recommendations each
    assert (rows[2][-1], rows[3][-1]) == (last.version, first.version)
    assert f"<dt>release</dt><dd>{last.version}</dd>" in page
    assert "<dt>recommendations</dt><dd>600</dd>" in page
    assert "<dt>held</dt><dd>no</dd>" in page
    assert page_of(tmp_path) == page

    rollback(tmp_path, first.version, who="ada", why="a drill")
    held = page_of(tmp_path)
    assert f"<dt>release</dt><dd>{first.version}</dd>" in held
    assert "<dt>held</dt><dd>by ada: a drill</dd>" in held


def test_a_night_that_was_done_before_is_not_forgotten(released: Release, tmp_path: Path) -> None:
    """Asked for again and refused, the page names the release that the date has."""
    published = released(date="2026-03-04")

    assert f"done before, as {published.version}: `nightrec report {published.version}`" in page_of(tmp_path)


def test_what_is_broken_takes_no_reason_away(night: Callable[..., Run], released: Release, tmp_path: Path) -> None:
    """A pointer that cannot be read costs its part of the page, which says so; the rest is there."""
    released(date="2026-03-03")
    RootLayout(tmp_path).latest.write_text("{}")

    troubles = write_refusal(tmp_path, "2026-03-04", "prepare", LATE)

    assert [trouble.partition(":")[0] for trouble in troubles] == ["What readers have", "The last 7 days"]
    page = RootLayout(tmp_path).refusal("2026-03-04").read_text("utf-8")
    assert page.count("This part could not be made") == 2
    assert str(LATE) in page


def test_no_message_is_obeyed(tmp_path: Path) -> None:
    """A message may quote a file of others: it is text, never markup."""
    evil = "<script>alert('a path')</script>"
    page = page_of(tmp_path, error=InputError(f"{evil}: column item_id is missing"))

    assert "<script" not in page
    assert escape(evil) in page


def test_the_nights_on_record_tell_of_it(night: Callable[..., Run], released: Release, tmp_path: Path) -> None:
    """It is refused on the page over the nights, and no newest night for dashboards: there is no figure of it."""
    released(date="2026-03-02")
    page_of(tmp_path)
    unfinished = night(date="2026-03-05", shift=2)
    write_json(RootLayout(tmp_path).current_run(unfinished.date), {"run_key": unfinished.run_key})
    page_of(tmp_path, "2026-03-05")

    nights = recorded_nights(tmp_path, nights=60)

    assert [(one.date, str(one.outcome), one.problem) for one in nights] == [
        ("2026-03-02", "published", ""),
        ("2026-03-04", "refused", "before its gates; `nightrec report 2026-03-04` shows why"),
        ("2026-03-05", "refused", "before its gates; `nightrec report 2026-03-05` shows why"),
    ]
    assert newest_night(tmp_path) == nights[0]
    said = trend_page(nights, GATES, surface="shop", channel="LATEST")
    assert "The newest night, 2026-03-05, is refused: before its gates; `nightrec report 2026-03-05` shows why" in said
    check(unfinished, tmp_path, threads=1)
    assert str(recorded_nights(tmp_path, nights=1)[0].outcome) == "blessed"  # what is judged tells of itself
