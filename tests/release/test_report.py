"""The report: every part is there for every night, tells what the tables hold, and never stands in a night's way."""

import json
import re
from collections.abc import Callable, Sequence
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from artifacts.documents import write_sealed
from artifacts.errors import CorruptError, RefusedError, UsageError
from artifacts.layout import ReleaseLayout
from artifacts.release import read_record, record_problems
from artifacts.run import Run
from artifacts.tables import read_table
from release import evidence, report
from release.check import check
from release.page import Part
from release.publish import Published, publish
from release.report import SECTIONS, write_report
from release.subject import Subject
from release.verdicts import GateReport, find_report, report_stands
from tests.release.conftest import Night, make_run

EVIL = "</script><script>alert('a title')</script>"
PEOPLE = [f"customer-{number:03d}" for number in range(60)]


def reported(run: Run, root: Path, sample_users: str = "pseudonym", refused: bool = False) -> str:
    """Check *run*, make its report, and give the page; no part of it may be missing."""
    try:
        check(run, root, threads=1)
    except RefusedError:
        assert refused
    assert write_report(run, root, (), sample_users=sample_users) == []
    return find_report(run.layout.record).read_text("utf-8")


def charts_of(page: str) -> dict[str, dict[str, Any]]:
    """Give the specification of each chart by its title."""
    found = re.findall(
        r"<figure><figcaption>(.*?)</figcaption>.*?<script type=\"application/json\" id=\"c\d+\">(.*?)</script>",
        page,
        re.DOTALL,
    )
    return {unescape(title): json.loads(spec) for title, spec in found}


def rows_of(spec: dict[str, Any], layer: int | None = None) -> list[dict[str, Any]]:
    data = spec["data"] if layer is None else spec["layer"][layer]["data"]
    rows: list[dict[str, Any]] = data["values"]
    return rows


def test_a_report_answers_in_the_order_in_which_people_ask(night: Callable[..., Run], tmp_path: Path) -> None:
    """Verdict first, digests last; it is small, listed with its checksum, and stands beside the verdict."""
    run = night(popular=[1000, 1001])
    page = reported(run, tmp_path)

    headings = re.findall(r"<h2 id=\"h\d\">(.*?)</h2>", page)
    assert headings == [heading for heading, _ in SECTIONS]
    assert page.index("as a release it is 2026-03-01-") < page.index("The gates let it pass: all") < page.index("<h2")
    assert "`nightrec report 2026-03-01` says it at any time" in page
    assert len(page.encode()) < 2_000_000
    assert report_stands(run.layout.record)
    assert "report.html" in read_record(run.layout.record)
    assert not list(record_problems(run.layout.record))


def test_a_refused_night_has_a_report(
    night: Callable[..., Run], released: Callable[..., Published], tmp_path: Path
) -> None:
    """It names what refuses, first of all, with value, bound and what to do."""
    released(date="2026-03-01")
    page = reported(night(date="2026-03-02", users=list(range(100, 130))), tmp_path, refused=True)

    head = page[: page.index("<h2")]
    assert head.index("; as a release it is 2026-03-02-") < head.index("Refused, by ")
    assert "tonight the last one; those before it are the last releases that readers have had." in page
    (lost,) = re.findall(r'<p class="note bad">(users_lost: .*?)</p>', page)
    assert lost.startswith("users_lost: 0.5, expected at most 0.2 against 2026-03-01-")
    assert "60 before, 30 now" in lost
    nights = {row["night"] for row in rows_of(charts_of(page)["The gates, tonight and on the nights before"])}
    assert nights == {"2026-03-01", "2026-03-02"}


def test_a_first_night_shows_the_gates_that_it_has(night: Callable[..., Run], tmp_path: Path) -> None:
    """One night is no picture: each gate that judged it has a row with value and bound, the others are counted."""
    run = night()
    page = reported(run, tmp_path)
    (table,) = re.findall(r"<caption>The gates of a first night</caption>(.*?)</table>", page, re.DOTALL)
    rows = [re.findall(r"<td.*?>(.*?)</td>", row) for row in re.findall(r"<tr>(<td.*?)</tr>", table)]
    verdicts = GateReport.read(run.layout.record).verdicts

    assert [row[0] for row in rows] == [one.name for one in verdicts if one.value is not None]
    assert rows[0] == ["rows", '<span class="mark good">holds</span>', "600", "at least", "1"]
    assert f"{len(verdicts) - len(rows)} more do not apply" in page
    assert "The gates, tonight and on the nights before" not in page


def test_a_night_without_a_row_has_a_report(night: Callable[..., Run], tmp_path: Path) -> None:
    """What can never be published needs its page most: nobody was given anything, and every part of it says so."""
    run = night(scores=lambda table: table.slice(0, 0))
    with pytest.raises(RefusedError, match="rows: 0, expected at least 1"):
        check(run, tmp_path, threads=1)

    page = reported(run, tmp_path, refused=True)

    assert page.index("Refused, by ") < page.index("<h2")
    assert '<p class="says">0 rows.</p>' in page
    with pytest.raises(RefusedError, match="zero rows are never published"):
        publish(run, tmp_path, override="no matter")


def test_a_night_published_all_the_same_says_so_and_why(night: Callable[..., Run], tmp_path: Path) -> None:
    """Below what refuses it stand the reason that was given and what was found, in the run and in the release."""
    run = night(parameters={"recall": 0.5})
    before = reported(run, tmp_path, refused=True)
    published = publish(run, tmp_path, override="<b>sale</b> starts today")

    for record in (run.layout.record, ReleaseLayout(published.folder).record):
        page = find_report(record).read_text("utf-8")
        first = unescape(page[: page.index("</header>")])
        assert first.index("Refused, by 1 of ") < first.index(f"Published all the same, as {published.version}. ")
        assert "Reason given: <b>sale</b> starts today." in first
        assert 'Overridden: "the gates bless the run" (2026-03-01: refused by the gates recall).' in first
        assert "<b>" not in page
        assert not list(record_problems(record))
    assert "Published all the same" not in before
    assert publish(run, tmp_path, override="again").stored is False
    assert find_report(run.layout.record).read_text("utf-8").count("Reason given") == 1


def test_what_changed_is_told_against_the_last_release(
    night: Callable[..., Run], released: Callable[..., Published], tmp_path: Path
) -> None:
    """Counts move by what was added; parameters that differ are named; a first night says that it is one."""
    assert "This is the first night" in reported(night(date="2026-02-28"), tmp_path)
    version = released(date="2026-03-01").version
    page = reported(night(date="2026-03-02", users=list(range(100, 163)), parameters={"recall_target": 0.9}), tmp_path)

    moved = {row["what"]: row["change"] for row in rows_of(charts_of(page)[f"Tonight against {version}"])}
    assert moved["users"] == pytest.approx(3 / 60)
    assert moved["items"] == 0
    assert re.search(r"<td[^>]*>index\.recall_target</td><td[^>]*>0\.95</td><td[^>]*>0\.9</td>", page)


def test_the_flow_accounts_for_everything(night: Callable[..., Run], tmp_path: Path) -> None:
    """What is read is kept or gone for a reason, and the parts of each stage add up."""
    page = reported(night(cold=(100, 101)), tmp_path)

    charts = charts_of(page)
    read = {row["name"]: row["count"] for row in rows_of(charts["Interactions"], 1)}
    assert (read["read"], read["kept"], read["after the data date"], read["without an id or time"]) == (110, 100, 2, 1)
    assert (read["of excluded users"], read["with excluded items"]) == (3, 4)
    users = {row["name"]: row["count"] for row in rows_of(charts["Users"], 1)}
    assert (users["users"], users["with a history"], users["cold: popular items"]) == (60, 58, 2)
    rows = {row["name"]: row["count"] for row in rows_of(charts["Rows of recommendations"], 1)}
    assert rows == {"rows": 600, "ranked": 580, "popular items": 20}


def test_retrieval_shows_the_curve_and_the_lists(night: Callable[..., Run], tmp_path: Path) -> None:
    """The curve has the recorded points, the chosen one its interval; the lists' sizes add up to the index."""
    page = reported(night(eligible=lambda item: item < 1030), tmp_path)

    charts = charts_of(page)
    curve = charts["Recall@10 by the number of lists searched"]
    assert [(row["nprobe"], row["recall"]) for row in rows_of(curve, 0)] == [(1, 0.7), (2, 0.99)]
    assert rows_of(curve, 3) == [{"nprobe": 2, "recall": 0.99, "low": 0.985, "high": 0.995}]
    assert sum(row["lists"] for row in rows_of(charts["Sizes of the index's lists"])) == 2
    assert re.search(r"2 lists hold 15 items in the middle", page)
    assert [row["users"] for row in rows_of(charts["Interests of a user"])] == [0, 0, 60]


def test_scores_are_compared_with_last_night(
    night: Callable[..., Run], released: Callable[..., Published], tmp_path: Path
) -> None:
    """Every night's shares add up to one, and the middle of each rank is what all users have there."""
    released(date="2026-03-01")
    charts = charts_of(reported(night(date="2026-03-02", shift=1), tmp_path))

    shares: dict[str, float] = {}
    for row in rows_of(charts["Scores"]):
        shares[row["night"]] = shares.get(row["night"], 0.0) + row["share"]
    assert shares == {"tonight": pytest.approx(1), "last release": pytest.approx(1)}
    ranks = [row for row in rows_of(charts["Scores by rank"], 1) if row["night"] == "tonight"]
    assert [(row["rank"], row["score"]) for row in ranks] == [
        (rank, pytest.approx(1 / rank)) for rank in (1, 2, 3, 5, 10)
    ]


def test_calibration_is_of_what_came_true(night: Callable[..., Run], tmp_path: Path) -> None:
    """In each group of scores, what happened on the data date is counted; too few hits are said and not drawn."""
    users = list(range(100, 160))
    true = {user: [(user + 0) % 40, (user + 5) % 40] for user in users}  # ranks 1 and 6 of each list
    page = reported(night(replayed=true), tmp_path)

    rows = rows_of(charts_of(page)["Calibration: scores against what came true"], 1)
    assert [(row["rows"], row["hits"]) for row in rows] == [(60, 0)] * 4 + [(60, 60)] + [(60, 0)] * 4 + [(60, 60)]
    assert [row["predicted"] for row in rows] == pytest.approx([1 / rank for rank in range(10, 0, -1)])
    few = reported(night(date="2026-03-02", replayed={100: [20]}), tmp_path)
    assert "No calibration: of 10 recommendations" in few


def test_movers_are_the_items_that_moved(
    night: Callable[..., Run], released: Callable[..., Published], tmp_path: Path
) -> None:
    """Shares of recommendations are compared item by item with the last release."""
    released(date="2026-03-01", users=list(range(100, 220)), items=list(range(1000, 1080)))
    run = night(date="2026-03-02", users=list(range(100, 220)), items=list(range(1000, 1080)), shift=30)
    page = reported(run, tmp_path, refused=True)

    def share(shift: int, item: int) -> float:
        lists = [[1000 + (user + shift + rank) % 80 for rank in range(10)] for user in range(100, 220)]
        return sum(one.count(item) for one in lists) / 1200 * 1000

    rows = {row["item"]: row for row in rows_of(charts_of(page)["What moved most"])}
    assert rows
    for name, row in rows.items():
        item = int(name.removeprefix("item "))
        assert (row["was"], row["is"]) == (pytest.approx(share(0, item)), pytest.approx(share(30, item)))
        assert row["change"] == pytest.approx(row["is"] - row["was"])


def test_no_title_is_obeyed(night: Callable[..., Run], tmp_path: Path) -> None:
    """A title is shown as its shop wrote it, wherever it stands, and is never markup."""
    page = reported(night(title=lambda item: EVIL, popular=[1000]), tmp_path)

    assert "<script>alert" not in page
    assert escape(EVIL) in page
    assert EVIL in {row["title"] for row in rows_of(charts_of(page)["A map of the items' vectors"])}


@pytest.mark.parametrize(
    ("sample_users", "shown", "ids"), [("none", False, 0), ("pseudonym", True, 0), ("id", True, 10)]
)
def test_people_are_shown_as_the_config_says(
    night: Callable[..., Run], tmp_path: Path, sample_users: str, shown: bool, ids: int
) -> None:
    """Not at all, numbered, or by their ids; nowhere else in the page is an id of a user."""
    page = reported(night(user_type="string", users=PEOPLE), tmp_path, sample_users)

    assert len({user for user in PEOPLE if user in page}) == ids
    assert ("given, best first" in page) is shown
    if shown:
        assert page.count("had, newest first") == 10
        assert "item 1000 (on the last day)" in page


def test_the_sample_is_the_same_every_night(night: Callable[..., Run], tmp_path: Path) -> None:
    """The same people are shown the next night, with one more user who comes last."""
    pages = [
        reported(night(date=date, user_type="string", users=users), tmp_path, "id")
        for date, users in (("2026-03-01", PEOPLE), ("2026-03-02", [*PEOPLE, "zzz"]))
    ]

    before, after = ({user for user in PEOPLE if user in page} for page in pages)
    assert len(before & after) >= 9


def test_a_part_that_cannot_be_made_stands_in_nobodys_way(night: Callable[..., Run], tmp_path: Path) -> None:
    """It says so in its place and to whoever asked; the rest is there, and the night is published with it."""
    run = night(parameters={"curve": "none"})
    check(run, tmp_path, threads=1)

    troubles = write_report(run, tmp_path, (), sample_users="pseudonym")

    assert [trouble.partition(":")[0] for trouble in troubles] == ["Retrieval"]
    page = (publish(run, tmp_path).folder / "record" / "report.html").read_text("utf-8")
    assert page.count("This part could not be made") == 1
    assert "Scores by rank" in page


def test_whatever_a_part_raises_is_said(
    night: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours in a part is no mistake of the night."""

    def broken(subject: Subject) -> Sequence[Part]:
        raise ZeroDivisionError(f"of {subject.run.date}")

    monkeypatch.setattr(report, "SECTIONS", (*SECTIONS[:2], ("Broken", broken), *SECTIONS[2:]))
    run = night()
    check(run, tmp_path, threads=1)

    assert write_report(run, tmp_path, (), sample_users="none") == ["Broken: ZeroDivisionError: of 2026-03-01"]


def test_the_same_night_and_timings_give_the_same_page(night: Callable[..., Run], tmp_path: Path) -> None:
    """Only what is measured by a clock may differ between two reports of one night."""
    run = night()
    spans = [
        {"shard": shard, "began": 100.0 + shard, "seconds": 1.0, "rows": 300, "memory": 1 << 30} for shard in range(2)
    ]
    entry = {"shards": 2, "rows": 600, "seconds": 2.0, "began": 99.5, "memory": 1 << 30, "counts": {}, "spans": spans}
    write_sealed(run.layout.timings, {"score": [entry]}, version=1)
    first = reported(run, tmp_path)

    assert reported(run, tmp_path) == first
    bars = rows_of(charts_of(first)["When each shard was done"])
    assert [(bar["what"], bar["from"], bar["to"], bar["speed"]) for bar in bars] == [
        ("score, shard 0", 0.0, 1.0, 300),
        ("score, shard 1", 1.0, 2.0, 300),
    ]
    assert {bar["lane"] for bar in bars} == {"score"}


def test_a_new_verdict_ends_the_old_report(
    night: Callable[..., Run], released: Callable[..., Published], tmp_path: Path
) -> None:
    """A report speaks of the verdict beside it: judged again with another one, the night has none until it is made."""
    run = night(date="2026-03-02")
    reported(run, tmp_path)
    released(date="2026-03-01")

    check(run, tmp_path, threads=1)

    assert not report_stands(run.layout.record)
    assert not run.layout.record.report.exists()
    assert not list(record_problems(run.layout.record))
    with pytest.raises(UsageError, match="there is no report"):
        find_report(run.layout.record)


def test_a_changed_report_is_found(night: Callable[..., Run], tmp_path: Path) -> None:
    """Its bytes are compared before it is believed; then it does not stand, and is made anew."""
    run = night()
    page = reported(run, tmp_path)
    path = run.layout.record.report
    path.write_text(page.replace("let it pass", "like it much"), "utf-8")

    assert not report_stands(run.layout.record)
    with pytest.raises(CorruptError, match=r"report\.html"):
        find_report(run.layout.record)
    assert reported(run, tmp_path) == page


def test_only_a_part_of_many_rows_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many rows whole shards are taken, the first ones, and the report says so; counts are those of their rows."""
    run = make_run(tmp_path, Night(shards=3))
    everything = read_table(run.layout.scores(0, 3))
    monkeypatch.setattr(evidence, "SAMPLE_ROWS", 150)

    sampled = evidence.scores_of_run(run)

    assert sampled.paths == (run.layout.scores(0, 3),)
    assert (sampled.rows, sampled.shards, sampled.step) == (600, 3, 1)
    assert "1 of 3 shards" in sampled.words()
    ids = pa.array(range(1000, 1040), pa.int64())
    lists = evidence.measure_lists(sampled, ids, ranked=True)
    found = np.bincount(np.array(everything["item_id"].to_pylist()) - 1000, minlength=40)
    assert lists.exposure.tolist() == found.tolist()
    assert (lists.rows, lists.fallback, lists.bins.sum()) == (len(everything), 0, len(everything))


def test_items_that_are_gone_are_counted_nowhere() -> None:
    """An id that tonight's catalogue does not have has no row; neither has one of another type."""
    ids = pa.array([3, 5, 9], pa.int64())

    assert evidence.rows_of(ids, pa.array([9, 4, 3, 9], pa.int64())).tolist() == [2, -1, 0, 2]
    assert evidence.rows_of(ids, pa.array(["3"])).tolist() == [-1]
