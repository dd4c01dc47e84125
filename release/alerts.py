"""Alert rules for Prometheus: one for each gate, one for a refused night and one for a night that did not come."""

import json
from collections.abc import Iterable, Iterator, Mapping

from release.gate import Action, Gate
from release.gates import GATES

LATE_HOURS = 36  # after the end of the last data date that was judged: the next night should have come by then
_SEVERITY = {Action.FAIL: "critical", Action.WARN: "warning"}
_WHERE = "{{ $labels.surface }} ({{ $labels.channel }})"


def alert_rules(gates: Iterable[Gate] = GATES) -> str:
    """Write a rule file of Prometheus for *gates*; what refuses a night is critical, what warns is a warning."""
    lines = [
        "# Made by `nightrec trend --alerts`; another [gates] makes another file.",
        "groups:",
        "  - name: nightrec",
        "    rules:",
        *_rule(
            "NightrecNightLate",
            f"time() - nightrec_night_data_end_timestamp_seconds > {LATE_HOURS} * 3600",
            "critical",
            {
                "summary": f"{_WHERE}: the last night that was judged ended {{{{ $value | humanizeDuration }}}} ago",
                "description": "It waits for its day, failed, or was not started; docs/operations.md tells what to do.",
            },
        ),
        *_rule(
            "NightrecNightRefused",
            "nightrec_night_refused == 1",
            "critical",
            {
                "summary": f"{_WHERE}: the night was refused, and readers keep the release that they have",
                "description": "The gates that refuse it have alerts of their own; `nightrec report` shows all of it.",
            },
        ),
    ]
    for gate in gates:
        lines += _rule(_alert(gate), _breached(gate), _SEVERITY[gate.action], _about(gate))
    return "".join(f"{line}\n" for line in lines)


def _rule(alert: str, expr: str, severity: str, annotations: Mapping[str, str]) -> Iterator[str]:
    yield f"      - alert: {alert}"
    yield f"        expr: {expr}"
    yield f"        labels: {{severity: {severity}}}"
    yield "        annotations:"
    for name, text in annotations.items():
        yield f"          {name}: {json.dumps(text, ensure_ascii=False)}"


def _alert(gate: Gate) -> str:
    return "NightrecGate" + "".join(word.capitalize() for word in gate.name.split("_"))


def _breached(gate: Gate) -> str:
    """The figure, where the gate does not hold: it is the alert's value."""
    of = f'{{gate="{gate.name}"}}'
    return f"nightrec_gate_value{of} and nightrec_gate_breached{of} == 1"


def _about(gate: Gate) -> dict[str, str]:
    segment = "{{ if $labels.segment }}, {{ $labels.segment }}{{ end }}"
    return {
        "summary": f"{_WHERE}{segment}: {gate.name} is {{{{ $value | printf `%.4g` }}}}, "
        f"expected {gate.side} {gate.bound:g}",
        "description": f"{gate.meaning}. {gate.remedy[:1].upper()}{gate.remedy[1:]}",
    }
