"""The gates' own laws, on figures made by hand."""

import json
import math
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.errors import CorruptError, UsageError
from artifacts.layout import RecordLayout
from artifacts.release import write_record
from release.changes import stability_index
from release.gate import Action, Against, Change, Gate
from release.gates import GATES, configured_gates
from release.verdicts import Figure, GateReport, State, Verdict, judge, name_in

AT_MOST = Gate("share", "share of things", 0.25, "look at the things")
AT_LEAST = replace(AT_MOST, side="at least")


@pytest.mark.parametrize(
    ("gate", "value", "state"),
    [
        (AT_MOST, 0.25, State.PASS),
        (AT_MOST, math.nextafter(0.25, 1), State.FAIL),
        (AT_LEAST, 0.25, State.PASS),
        (AT_LEAST, math.nextafter(0.25, 0), State.FAIL),
        (replace(AT_MOST, action=Action.WARN), 0.3, State.WARN),
        (AT_MOST, math.nan, State.FAIL),
        (AT_LEAST, math.nan, State.FAIL),
        (AT_MOST, -math.inf, State.FAIL),
        (AT_LEAST, math.inf, State.FAIL),
    ],
)
def test_bound_itself_passes_and_what_is_no_number_never_does(gate: Gate, value: float, state: State) -> None:
    """The bound is the last value that passes; NaN and Inf pass no gate."""
    (verdict,) = judge([gate], {"share": Figure(value)})
    assert verdict.state is state
    if state is not State.PASS:
        assert "look at the things" in verdict.why
        assert "0.25" in verdict.line()


@pytest.mark.parametrize(
    ("gate", "figure", "expected", "line"),
    [
        (
            AT_MOST,
            Figure(0.25, "1 of 4", "2026-03-01"),
            Verdict("share", State.PASS, 0.25, "at most", 0.25, "2026-03-01", "1 of 4"),
            "share: 0.25, expected at most 0.25 against 2026-03-01; 1 of 4",
        ),
        (
            AT_LEAST,
            Figure(0.123456),
            Verdict("share", State.FAIL, 0.123456, "at least", 0.25, "absolute", "share of things; look at the things"),
            "share: 0.1235, expected at least 0.25; share of things; look at the things",
        ),
        (
            replace(AT_MOST, action=Action.WARN, remedy=""),
            Figure(math.inf, "2 of 0", "a median"),
            Verdict("share", State.WARN, None, "at most", 0.25, "a median", "share of things; 2 of 0"),
            "share: not a finite number, expected at most 0.25 against a median; share of things; 2 of 0",
        ),
        (
            AT_MOST,
            Figure(None, "first night", "nothing"),
            Verdict("share", State.SKIP, None, "at most", 0.25, "nothing", "first night"),
            "share: does not apply: first night",
        ),
        (
            AT_MOST,
            Figure(0),
            Verdict("share", State.PASS, 0, "at most", 0.25, "absolute", ""),
            "share: 0, expected at most 0.25",
        ),
    ],
)
def test_a_verdict_says_what_was_found_and_allowed(gate: Gate, figure: Figure, expected: Verdict, line: str) -> None:
    """Field by field, and in the one line that people read."""
    (verdict,) = judge([gate], {"share": figure})

    assert verdict == expected
    assert verdict.line() == line


def test_a_gate_looks_at_its_own_number_or_at_another() -> None:
    """The level is the gate's own name unless the gate names another."""
    assert (AT_MOST.level, replace(AT_MOST, of="things").level) == ("share", "things")


def test_gate_without_a_figure_is_an_error() -> None:
    """A gate is never passed by because its figure is missing."""
    with pytest.raises(KeyError):
        judge(GATES, {})


def test_skip_says_why_and_names_what_it_was_against() -> None:
    """A gate that does not apply carries its declared reason, and a comparison what it is against."""
    figures = [Figure(None, "first night"), Figure(0.5, against="2026-03-01-aaaaaaaaaaaa")]
    skipped, judged = (judge([AT_MOST], {"share": figure})[0] for figure in figures)
    assert (skipped.state, skipped.why) == (State.SKIP, "first night")
    assert skipped.line() == "share: does not apply: first night"
    assert "expected at most 0.25 against 2026-03-01-aaaaaaaaaaaa; share of things" in judged.line()


def test_pass_may_say_why() -> None:
    """A change within its bound passes, and the verdict says what changed."""
    (verdict,) = judge([AT_MOST], {"share": Figure(0.1, "100 before, 110 now")})
    assert (verdict.state, verdict.why) == (State.PASS, "100 before, 110 now")


def test_gate_about_users_judges_each_segment() -> None:
    """What is good on average and bad for one country is refused by a verdict that names the country."""
    gates = [replace(AT_MOST, by_segment=True), replace(AT_MOST, name="recall")]
    figures = {name: Figure(0.1) for name in ("share", "share[country=de]", "share[country=fr]", "recall")}
    figures["share[country=de]"] = Figure(0.9)
    verdicts = judge(gates, figures, segments=["country=de", "country=fr"])
    assert [(v.name, v.state) for v in verdicts] == [
        ("share", State.PASS),
        ("share[country=de]", State.FAIL),
        ("share[country=fr]", State.PASS),
        ("recall", State.PASS),
    ]
    with pytest.raises(KeyError):
        judge(gates, figures, segments=["country=it"])


def test_a_segments_figure_is_named_by_gate_and_segment() -> None:
    """The figure of all users has the gate's own name."""
    assert (name_in("churn", "country=de"), name_in("churn", "")) == ("churn[country=de]", "churn")


def test_every_gate_is_documented_once() -> None:
    """Names are unique; each gate has a meaning and a remedy."""
    assert len({gate.name for gate in GATES}) == len(GATES)
    assert all(gate.meaning and gate.remedy and gate.side in {"at most", "at least"} for gate in GATES)
    assert {gate.action for gate in GATES} == set(Action)
    assert all((gate.change is Change.NONE) == (gate.against is Against.ABSOLUTE) for gate in GATES)


def test_config_moves_bounds_actions_and_what_a_gate_is_against() -> None:
    """A number moves the bound, a table moves what it names, and the order of the gates stays."""
    said = {"churn": 0.5, "recall": {"action": "warn", "bound": 0.8}, "users_lost": {"against": "median"}}
    gates = {gate.name: gate for gate in configured_gates(said)}
    assert list(gates) == [gate.name for gate in GATES]
    assert gates["churn"].bound == 0.5
    assert (gates["recall"].bound, gates["recall"].action) == (0.8, Action.WARN)
    assert (gates["users_lost"].bound, gates["users_lost"].against) == (0.2, Against.MEDIAN)
    rise = configured_gates({"cold_share": {"against": "last", "bound": 0.05}})
    assert [(g.bound, g.against) for g in rise if g.name == "cold_share"] == [(0.05, Against.LAST)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chrun": 0.5}, "gates.chrun: there is no such gate; did you mean churn?"),
        ({"qqqq": 0.5}, f"gates.qqqq: there is no such gate; there are {', '.join(gate.name for gate in GATES)}"),
        ({"rows": 0}, f"gates.rows: this gate cannot be moved: {GATES[0].meaning}, at least 1"),
        ({"churn": "high"}, "gates.churn.bound: expected a finite number, found 'high'"),
        ({"churn": True}, "gates.churn.bound: expected a finite number, found True"),
        ({"churn": math.nan}, "gates.churn.bound: expected a finite number, found nan"),
        ({"churn": math.inf}, "gates.churn.bound: expected a finite number, found inf"),
        ({"recall": {"bound": -math.inf}}, "gates.recall.bound: expected a finite number, found -inf"),
        ({"churn": 10**400}, f"gates.churn.bound: expected a finite number, found {10**400}"),
        ({"churn": {"limit": 1}}, "gates.churn.limit: expected bound, action, against"),
        ({"churn": {"action": "ignore"}}, 'gates.churn.action: expected "fail" or "warn", found \'ignore\''),
        ({"churn": {"against": "absolute"}}, 'gates.churn.against: expected "last" or "median", found \'absolute\''),
        ({"churn": {"against": 7}}, 'gates.churn.against: expected "last" or "median", found 7'),
        (
            {"recall": {"against": "first"}},
            'gates.recall.against: expected "absolute" or "last" or "median", found \'first\'',
        ),
        (
            {"recall": {"against": "last"}},
            "gates.recall: against last its bound is about the rise, and no more 0.9; give the bound too",
        ),
    ],
)
def test_wrong_config_is_named(changes: dict[str, object], message: str) -> None:
    """What cannot be configured is an error that names the key, what was expected and what was found."""
    with pytest.raises(UsageError) as raised:
        configured_gates(changes)  # type: ignore[arg-type]
    assert str(raised.value) == message


def test_what_a_gate_is_against_already_needs_no_other_bound() -> None:
    """Saying the default again changes nothing; the greatest finite number is a bound."""
    most = sys.float_info.max
    gates = {gate.name: gate for gate in configured_gates({"recall": {"against": "absolute"}, "churn": most})}
    assert gates["recall"] == next(gate for gate in GATES if gate.name == "recall")
    assert gates["churn"].bound == most
    (whole,) = configured_gates({"share": 1}, [AT_MOST])
    assert (type(whole.bound), whole.bound, whole.action) == (float, 1.0, Action.FAIL)


def test_report_survives_its_json() -> None:
    """What is written to gates.json reads back equal, a value that is no number included."""
    verdicts = judge([AT_MOST, AT_LEAST], {"share": Figure(math.nan)})
    segments = {"country=de": {"figures": {"rows": 2}, "score_bins": [1, 1]}}
    recent = {"first": 7, "counts": [1, 2]}
    report = GateReport("2026-03-01", "k", "d", "a", None, verdicts, {"rows": 3}, segments, recent, ["b", "a"])
    assert not report.passed
    assert GateReport.from_document(json.loads(json.dumps(report.document(), allow_nan=False))) == report


def test_a_report_is_read_from_a_record(tmp_path: Path) -> None:
    """Its bytes are checked first; another document is an error that may end with what to do."""
    gates = [AT_MOST, replace(AT_MOST, name="other", action=Action.WARN), replace(AT_MOST, name="third")]
    verdicts = judge(gates, {"share": Figure(1), "other": Figure(1), "third": Figure(0)})
    report = GateReport("2026-03-01", "k", "d", "a", "v", verdicts, {}, {}, {}, [])
    record = RecordLayout(tmp_path / "record")
    write_record(record, {record.gates: report.document()})

    assert GateReport.read(record) == report
    assert [verdict.name for verdict in report.failed] == ["share"]
    assert [verdict.name for verdict in report.warned] == ["other"]
    assert replace(report, verdicts=verdicts[1:]).passed
    assert report.document()["format"] == 1
    assert report.document()["passed"] is False

    document = report.document()
    for strange in (
        {**document, "verdicts": 3},
        {**document, "verdicts": [{**document["verdicts"][0], "state": "maybe"}]},
        {key: value for key, value in document.items() if key != "recent"},
    ):
        write_record(record, {record.gates: strange})
        with pytest.raises(CorruptError, match=rf"^{record.gates}: expected the gates' verdict, found .*\)$"):
            GateReport.read(record)
        with pytest.raises(CorruptError, match=r"\); check again$"):
            GateReport.read(record, remedy="check again")
    record.gates.write_text("{}")
    with pytest.raises(
        CorruptError, match=r"gates\.json: expected \d+ bytes by record\.json, found 2; was it cut short"
    ):
        GateReport.read(record)


counts = st.lists(st.integers(0, 1000), min_size=5, max_size=5).filter(any)


@given(a=counts, b=counts)
@settings(max_examples=25, deadline=None)
def test_stability_index_is_a_symmetric_distance(a: list[int], b: list[int]) -> None:
    """The index is zero for equal shares, never negative, and the same both ways."""
    one, two = np.array(a), np.array(b)
    assert stability_index(one, one * 3) == pytest.approx(0, abs=1e-9)
    assert stability_index(one, two) >= 0
    assert stability_index(one, two) == pytest.approx(stability_index(two, one))


def test_stability_index_by_hand() -> None:
    """Half moved from one bin to the other: (0.5 - 0.25) ln 2 + (0.5 - 0.75) ln(2/3)."""
    expected = 0.25 * math.log(2) - 0.25 * math.log(2 / 3)
    assert stability_index(np.array([50, 50]), np.array([25, 75])) == pytest.approx(expected)


def test_the_page_has_every_gate_with_its_default_and_a_reason() -> None:
    """docs/gates.md and the table of gates agree, row by row."""
    text = (Path(__file__).parents[2] / "docs" / "gates.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:3] == "| `"]

    def judged(gate: Gate) -> str:
        said = [("each segment", gate.by_segment), ("not at a model change", gate.of_model)]
        return ", ".join(words for words, holds in said if holds)

    def bound(gate: Gate) -> str:
        return f"{gate.side} {gate.bound:g}{', fixed' if gate.fixed else ''}"

    assert [row[:6] for row in rows] == [
        [f"`{gate.name}`", gate.meaning, bound(gate), gate.against, gate.action, judged(gate)] for gate in GATES
    ]
    assert all(row[6] for row in rows)


def test_the_pages_example_is_a_config() -> None:
    """What docs/gates.md shows can be written into a config as it stands."""
    text = (Path(__file__).parents[2] / "docs" / "gates.md").read_text("utf-8")
    shown = tomllib.loads(text.partition("```toml\n")[2].partition("```")[0])
    gates = {gate.name: gate for gate in configured_gates(shown["gates"])}
    assert gates["users_lost"].against is Against.MEDIAN
    assert set(shown["segments"]) == {"columns", "min_users"}
