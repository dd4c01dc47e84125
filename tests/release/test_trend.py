"""The page over the last nights: what it says is what the records say, and a gap is a gap."""

import json
import re
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from release.gates import GATES
from release.nights import Outcome, Recorded, Step
from release.trend import trend_page
from release.verdicts import State, Verdict

FIRST = date(2026, 3, 1)


def verdict(name: str, value: float | None, state: State = State.PASS, bound: float = 0.2) -> Verdict:
    return Verdict(name, state, value, "at most", bound, "2026-02-28-0123456789ab", "is the input whole?")


def night(day: int, **changes: Any) -> Recorded:
    when = (FIRST + timedelta(days=day)).isoformat()
    plain = Recorded(
        date=when,
        outcome=Outcome.PUBLISHED,
        version=f"{when}-0123456789ab",
        verdicts=(verdict("users_lost", 0.01 * day), verdict("churn", None, State.SKIP, 0.8)),
        figures={"users": 100 + day, "recall": 0.95},
        steps={"prepare": Step(10, 100), "score": Step(20.5, 1000)},
    )
    return replace(plain, **changes)


REFUSED = night(
    4,
    outcome=Outcome.REFUSED,
    version="",
    verdicts=(verdict("users_lost", 0.5, State.FAIL), verdict("churn", 0.9, State.WARN, 0.8)),
)


def written(*nights: Recorded) -> str:
    return trend_page(nights, GATES, surface="shop", channel="LATEST")


def specs(page: str) -> dict[str, dict[str, Any]]:
    """Read the charts of a page, by title."""
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    found = re.findall(r'<script type="application/json" id="c\d+">(.*?)</script>', page, re.DOTALL)
    return dict(zip(titles, map(json.loads, found), strict=True))


def followed(page: str, title: str, field: str = "value") -> list[tuple[str, Any]]:
    return [(row["date"], row[field]) for row in specs(page)[title]["data"]["values"]]


def table(page: str, caption: str) -> list[list[str]]:
    (body,) = re.findall(rf"<caption>{caption}</caption>.*?<tbody>(.*?)</tbody>", page, re.DOTALL)
    return [
        [re.sub("<.*?>", "", cell) for cell in re.findall("<td.*?>(.*?)</td>", row)]
        for row in re.findall("<tr>(.*?)</tr>", body)
    ]


def test_a_day_without_a_night_is_a_gap() -> None:
    """It is named, and no line is drawn over it."""
    page = written(night(0), night(1), night(3))
    (line,) = {spec["mark"]["type"] for title, spec in specs(page).items() if title == "Users"}

    assert "2026-03-01 to 2026-03-04, 4 days: 3 published, 1 no night." in page
    assert followed(page, "What became of each night", "is") == [
        ("2026-03-01", "published"),
        ("2026-03-02", "published"),
        ("2026-03-03", "no night"),
        ("2026-03-04", "published"),
    ]
    assert line == "line"  # Vega-Lite breaks it where there is no number
    assert followed(page, "Users") == [
        ("2026-03-01", 100),
        ("2026-03-02", 101),
        ("2026-03-03", None),
        ("2026-03-04", 103),
    ]
    assert "from 100 to 103, none on 1 days" in page


def test_a_refused_night_says_why() -> None:
    """Its gates and their figures stand first, and in its row."""
    page = written(night(3), REFUSED)
    newest, before = table(page, "Newest first")

    assert "The newest night, 2026-03-05, is refused. users_lost: 0.5, expected at most 0.2" in page
    assert newest[:4] == ["2026-03-05", "refused", "users_lost, churn", "104"]
    assert newest[-2:] == ["30.5", ""]
    assert before[:3] == ["2026-03-04", "published", ""]


def test_what_was_overridden_is_said() -> None:
    """A night that was published in spite of its gates is no good night."""
    page = written(replace(REFUSED, outcome=Outcome.PUBLISHED, version="2026-03-05-0123456789ab"))

    assert "is published, in spite of its gates. users_lost: 0.5" in page


def test_each_gate_is_followed() -> None:
    """States by day; newest, median, least and greatest figure; a chart with the bound where the figure moves."""
    page = written(night(0), night(2), night(3), REFUSED)
    (lost, churn) = table(page, "The figures of each gate")

    assert lost == ["users_lost", "0.5", "at most 0.2", "0.025", "0", "0.5", "0", "1"]
    assert churn == ["churn", "0.9", "at most 0.8", "0.9", "0.9", "0.9", "1", "0"]
    states = specs(page)["What each gate said"]["data"]["values"]
    assert [row["is"] for row in states if row["of"] == "churn"] == ["skip", "skip", "skip", "warn"]
    assert followed(page, "users_lost") == [
        ("2026-03-01", 0.0),
        ("2026-03-02", None),
        ("2026-03-03", 0.02),
        ("2026-03-04", 0.03),
        ("2026-03-05", 0.5),
    ]
    assert specs(page)["users_lost"]["data"]["values"][0]["bound"] == 0.2
    assert "churn" not in specs(page)  # one figure is no movement
    assert "2 gates over 5 days: 1 fail at least once (users_lost); 1 warn at least once (churn)." in page


def test_seconds_of_steps_are_stacked() -> None:
    """A night that was not timed has no bar; the sum is what all steps took."""
    page = written(night(0), night(1, steps={}))
    rows = specs(page)["Seconds of each step"]["data"]["values"]

    assert [(row["date"], row["step"], row["seconds"]) for row in rows] == [
        ("2026-03-01", "prepare", 10),
        ("2026-03-01", "score", 20.5),
        ("2026-03-02", "prepare", None),
        ("2026-03-02", "score", None),
    ]
    assert "All steps of a night: 30.5 at first" in page


def test_a_night_that_cannot_be_read_is_told_as_one() -> None:
    """Its problem stands where its numbers would; the page is written all the same, and so is one of it alone."""
    broken = Recorded("2026-03-02", Outcome.UNREADABLE, problem="manifest.json: was it <b>changed</b>?")

    for page in (written(night(0), broken), written(broken)):
        assert "is unreadable: manifest.json: was it &lt;b&gt;changed&lt;/b&gt;?" in page
        assert "<b>" not in page
    assert "No night has a verdict." in written(broken)
    assert "No night was timed." in written(broken)


def test_sixty_nights_fit_in_one_small_page() -> None:
    """With every gate of 20 segments it stays under 5 MB, and draws no chart of a segment that kept its bounds."""
    names = [
        name for gate in GATES for name in [gate.name, *([f"{gate.name}[c={s}]" for s in range(20)] * gate.by_segment)]
    ]
    nights = [night(day, verdicts=tuple(verdict(name, day / 100) for name in names)) for day in range(60)]
    page = written(*nights)

    assert len(page.encode()) < 5_000_000
    assert len(specs(page)) < len(GATES) + 20
    assert len(table(page, "Newest first")) == 14
    assert "The 46 days before" in page
    assert page == written(*nights)
