"""Alert rules: one for each gate, valid for Prometheus, and each fires when its gate does not hold."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from release.alerts import alert_rules
from release.gates import GATES, configured_gates
from release.metrics import prometheus_text
from tests.release.test_metrics import NIGHT

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yml"
needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is not there; Debian's package prometheus has it"
)


def rules(text: str) -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load(text)["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def promtool(*arguments: str | Path) -> None:
    checked = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def unit_test(folder: Path, series: list[dict[str, str]], tests: list[dict[str, Any]]) -> None:
    """Let ``promtool test rules`` play *series*, a value a minute, and compare the alerts of *tests*."""
    played = {"interval": "1m", "input_series": series, "alert_rule_test": tests}
    document = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [played]}
    (folder / "unit.yml").write_text(yaml.safe_dump(document))
    promtool("test", "rules", folder / "unit.yml")


def test_the_rules_in_the_repository_are_those_of_the_defaults() -> None:
    """Stale? ``nightrec trend --alerts`` with a config without ``[gates]`` writes them."""
    assert RULES.read_text("utf-8") == alert_rules()


def test_each_gate_has_a_rule_of_its_weight() -> None:
    """What refuses is critical, what warns is a warning; a config's gates make other rules."""
    found = rules(alert_rules(configured_gates({"recall": {"action": "warn", "bound": 0.5}})))

    assert len(found) == len(GATES) + 2
    assert found["NightrecGateUsersLost"]["labels"] == {"severity": "critical"}
    assert found["NightrecGateModelAge"]["labels"] == {"severity": "warning"}
    assert found["NightrecGateRecall"]["labels"] == {"severity": "warning"}
    assert "expected at least 0.5" in found["NightrecGateRecall"]["annotations"]["summary"]


@needs_promtool
def test_prometheus_reads_the_rules() -> None:
    """``promtool check rules`` finds no fault."""
    promtool("check", "rules", RULES)


@needs_promtool
def test_rules_fire_on_a_refused_night(tmp_path: Path) -> None:
    """The samples of a night, as they are written, make the alerts of its breached gates, and of no other."""
    lines = [line for line in prometheus_text(NIGHT, surface="shop", channel="LATEST").splitlines() if line[0] != "#"]
    series = [
        {"series": name, "values": f"{value} {value}"} for name, _, value in (line.rpartition(" ") for line in lines)
    ]
    named = {"surface": "shop", "channel": "LATEST"}

    def of(gate: str) -> dict[str, str]:
        return {"gate": gate}

    expected = {
        "NightrecNightRefused": ("critical", {}, "the night was refused, and readers keep the release that they have"),
        "NightrecGateUsersLost": ("critical", of("users_lost"), "users_lost is 0.25, expected at most 0.2"),
        "NightrecGateModelAge": ("warning", of("model_age"), "model_age is 61, expected at most 60"),
        "NightrecGateScorePsi": ("critical", of("score_psi"), "score_psi is NaN, expected at most 0.25"),
        "NightrecGateChurn": None,
        "NightrecGateRecall": None,
    }
    tests = []
    for alert, told in expected.items():
        alerts = []
        if told:
            severity, labels, summary = told
            annotations = {**rules(alert_rules())[alert]["annotations"], "summary": f"shop (LATEST): {summary}"}
            alerts = [{"exp_labels": {**named, **labels, "severity": severity}, "exp_annotations": annotations}]
        tests.append({"eval_time": "1m", "alertname": alert, "exp_alerts": alerts})
    unit_test(tmp_path, series, tests)


@needs_promtool
def test_a_night_that_does_not_come_is_told_after_36_hours(tmp_path: Path) -> None:
    """The end of the last judged data date is what the clock is compared with."""
    series = {"series": 'nightrec_night_data_end_timestamp_seconds{surface="shop"}', "values": "0x2400"}
    late = {
        "exp_labels": {"surface": "shop", "severity": "critical"},
        "exp_annotations": {
            **rules(alert_rules())["NightrecNightLate"]["annotations"],
            "summary": "shop (): the last night that was judged ended 1d 12h 1m 0s ago",
        },
    }
    tests = [
        {"eval_time": "36h", "alertname": "NightrecNightLate", "exp_alerts": []},
        {"eval_time": "36h1m", "alertname": "NightrecNightLate", "exp_alerts": [late]},
    ]
    unit_test(tmp_path, [series], tests)
