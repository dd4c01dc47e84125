"""The gates' own laws, on figures made by hand."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.errors import UsageError
from release.figures import stability_index
from release.gates import GATES, Against, Figure, Gate, GateReport, State, configured_gates, judge

AT_MOST = Gate("share", "share of things", 0.25, "look at the things")
AT_LEAST = replace(AT_MOST, side="at least")


@pytest.mark.parametrize(
    ("gate", "value", "state"),
    [
        (AT_MOST, 0.25, State.PASS),
        (AT_MOST, math.nextafter(0.25, 1), State.FAIL),
        (AT_LEAST, 0.25, State.PASS),
        (AT_LEAST, math.nextafter(0.25, 0), State.FAIL),
        (replace(AT_MOST, action=State.WARN), 0.3, State.WARN),
        (AT_MOST, math.nan, State.FAIL),
        (AT_LEAST, math.nan, State.FAIL),
        (AT_MOST, -math.inf, State.FAIL),
        (AT_LEAST, math.inf, State.FAIL),
    ],
)
def test_bound_itself_passes_and_what_is_no_number_never_does(gate: Gate, value: float, state: State) -> None:
    """The bound is the last value that passes; NaN and Inf pass no gate."""
    (verdict,) = judge([gate], {"share": Figure(value)}, earlier=None)
    assert verdict.state is state
    if state is not State.PASS:
        assert "look at the things" in verdict.why
        assert "0.25" in verdict.line()


def test_gate_without_a_figure_is_an_error() -> None:
    """A gate is never passed by because its figure is missing."""
    with pytest.raises(KeyError):
        judge(GATES, {}, earlier=None)


def test_skip_says_why_and_names_what_it_was_against() -> None:
    """A gate that does not apply carries its declared reason, and a comparison the version it is against."""
    gate = replace(AT_MOST, against=Against.EARLIER)
    skipped, judged = judge([gate], {"share": Figure(None, "first night")}, earlier=None) + judge(
        [gate], {"share": Figure(0.5)}, earlier="2026-03-01-aaaaaaaaaaaa"
    )
    assert (skipped.state, skipped.why) == (State.SKIP, "first night")
    assert "against 2026-03-01-aaaaaaaaaaaa" in judged.line()


def test_every_gate_is_documented_once() -> None:
    """Names are unique; each gate has a meaning and a remedy."""
    assert len({gate.name for gate in GATES}) == len(GATES)
    assert all(gate.meaning and gate.remedy and gate.side in {"at most", "at least"} for gate in GATES)
    assert {gate.action for gate in GATES} == {State.FAIL, State.WARN}


def test_config_moves_bounds_and_actions() -> None:
    """A number moves the bound, a table moves bound and action, and the order of the gates stays."""
    gates = {gate.name: gate for gate in configured_gates({"churn": 0.5, "recall": {"action": "warn", "bound": 0.8}})}
    assert list(gates) == [gate.name for gate in GATES]
    assert gates["churn"].bound == 0.5
    assert (gates["recall"].bound, gates["recall"].action) == (0.8, State.WARN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chrun": 0.5}, "did you mean churn"),
        ({"rows": 0}, "cannot be moved"),
        ({"churn": "high"}, "gates.churn.bound"),
        ({"churn": True}, "gates.churn.bound"),
        ({"churn": math.nan}, "gates.churn.bound"),
        ({"churn": math.inf}, "gates.churn.bound: expected a finite number, found inf"),
        ({"recall": {"bound": -math.inf}}, "gates.recall.bound"),
        ({"churn": 10**400}, "gates.churn.bound"),
        ({"churn": {"limit": 1}}, "gates.churn.limit"),
        ({"churn": {"action": "ignore"}}, "gates.churn.action"),
    ],
)
def test_wrong_config_is_named(changes: dict[str, object], message: str) -> None:
    """What cannot be configured is an error that names the key."""
    with pytest.raises(UsageError, match=message):
        configured_gates(changes)  # type: ignore[arg-type]


def test_report_survives_its_json() -> None:
    """What is written to gates.json reads back equal, a value that is no number included."""
    verdicts = judge([AT_MOST, AT_LEAST], {"share": Figure(math.nan)}, earlier=None)
    report = GateReport("2026-03-01", "k", "d", "a", None, verdicts, {"rows": 3})
    assert not report.passed
    assert GateReport.from_document(json.loads(json.dumps(report.document(), allow_nan=False))) == report


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
