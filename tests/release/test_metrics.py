"""Numbers for dashboards: every sample is worked out from the record, and Prometheus' own tool finds no fault."""

import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import CorruptError
from release.metrics import (
    METRICS,
    json_lines,
    prometheus_text,
    read_json_lines,
    with_nights,
    write_beside,
)
from release.nights import Outcome, Recorded, Step
from release.verdicts import State, Verdict

NIGHT = Recorded(
    date="2026-03-31",
    outcome=Outcome.REFUSED,
    run_key="0123456789abcdef",
    end=1_774_994_400,
    verdicts=(
        Verdict("users_lost", State.FAIL, 0.25, "at most", 0.2, "2026-03-30-0123456789ab", "is the input whole?"),
        Verdict('users_lost[country=c"\\d]', State.PASS, 0.0, "at most", 0.2, "2026-03-30-0123456789ab", ""),
        Verdict("score_psi", State.FAIL, None, "at most", 0.25, "2026-03-30-0123456789ab", "not finite"),
        Verdict("model_age", State.WARN, 61.0, "at most", 60, "absolute", "fit the model again"),
        Verdict("churn", State.SKIP, None, "at most", 0.8, "absolute", "first night"),
    ),
    figures={"users": 750, "model_age": 61, "recall": 0.97},
    counts={"interactions_null": 4},
    steps={"score": Step(2.5, 7500)},
)


def samples(text: str) -> dict[tuple[str, ...], str]:
    """Read a textfile: name and labels of each sample, but for surface and channel, to its value."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels, value = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line).groups()  # type: ignore[union-attr]
            own, channel, *rest = re.findall(r'\w+="(?:[^"\\]|\\.)*"', labels)
            assert (own, channel) == ('surface="shop"', 'channel="LATEST"')
            assert (name, *rest) not in found
            found[name, *rest] = value
    return found


def test_every_number_of_a_night_is_a_sample() -> None:
    """Units are seconds and shares; a gate that does not apply has no sample; NaN is one of a gate that fails."""
    found = samples(prometheus_text(NIGHT, surface="shop", channel="LATEST"))

    lost, psi, age = ('gate="users_lost"', 'gate="score_psi"', 'gate="model_age"')
    assert found["nightrec_night_data_end_timestamp_seconds",] == "1774994400"
    assert (found["nightrec_night_refused",], found["nightrec_night_published",]) == ("1", "0")
    assert found["nightrec_users",] == "750"
    assert found["nightrec_model_age_seconds",] == str(61 * 86_400)
    assert found["nightrec_recall_ratio",] == "0.97"
    assert found["nightrec_gate_value", lost] == "0.25"
    assert found["nightrec_gate_bound", lost] == "0.2"
    assert found["nightrec_gate_breached", lost] == "1"
    assert found["nightrec_gate_breached", age] == "1"
    assert math.isnan(float(found["nightrec_gate_value", psi]))
    assert found["nightrec_gate_breached", 'gate="users_lost"', r'segment="country=c\"\\d"'] == "0"
    assert found["nightrec_step_duration_seconds", 'step="score"'] == "2.5"
    assert found["nightrec_prepare_rows", 'counted="interactions_null"'] == "4"
    assert not [key for key in found if 'gate="churn"' in key]
    assert not [key for key in found if key[0] == "nightrec_release_size_bytes"]


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not there; Debian's package prometheus has it")
def test_prometheus_finds_no_fault_in_names_and_units() -> None:
    """``promtool check metrics`` is silent about a night that has every metric."""
    named = {"cold_share": 0.1, "hit_rate": 0.2, "hit_rate_earlier": 0.1, "rows": 9, "rows_fallback": 1, "events": 9}
    more = dict.fromkeys(
        ("users_cold", "items", "items_eligible", "items_indexed", "items_recommended", "coverage", "exposure_top"), 1
    )
    last = dict.fromkeys(("behaviours", "unknown_share", "interest_vectors", "churn", "score_psi"), 1)
    night = replace(NIGHT, figures={**NIGHT.figures, **named, **more, **last}, size=17)
    text = prometheus_text(night, surface="shop", channel="LATEST")
    assert {key[0] for key in samples(text)} == {metric.name for metric in METRICS}
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_json_lines_come_back_as_they_were(tmp_path: Path) -> None:
    """A line holds all that is on record of a night."""
    path = tmp_path / "nights.jsonl"
    nights = (replace(NIGHT, date="2026-03-30", outcome=Outcome.PUBLISHED, version="2026-03-30-0123456789ab"), NIGHT)
    write_beside(path, json_lines(nights, surface="shop", channel="LATEST"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    assert [(line["surface"], line["channel"], line["date"]) for line in lines] == [
        ("shop", "LATEST", "2026-03-30"),
        ("shop", "LATEST", "2026-03-31"),
    ]
    assert lines[1]["verdicts"][0]["value"] == 0.25
    assert read_json_lines(path, surface="shop", channel="LATEST") == nights
    assert read_json_lines(tmp_path / "none.jsonl", surface="shop", channel="LATEST") == ()


def changed(**changes: Any) -> str:
    document = json.loads(json_lines([NIGHT], surface="shop", channel="LATEST"))
    return json.dumps({**document, **changes})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (changed(date="yesterday"), "date"),
        (changed(outcome="lost"), "lost"),
        (changed(end=-1), "end"),
        (changed(figures={"users": "many"}), "users: expected a finite number"),
        (changed(figures=[1]), "figures: expected an object"),
        (changed(steps={"score": {"seconds": 1}}), "rows"),
        (changed(verdicts=[{"name": "churn"}]), "side"),
        (changed(more=1), "more"),
        (changed(format=2), "format 1"),
        ("{}", "line 1"),
        ("[]", "line 1"),
        ("half a li", "line 1"),
        (json_lines([NIGHT], surface="other", channel="LATEST"), "is of other, channel LATEST, not of shop, LATEST"),
    ],
)
def test_a_line_of_another_is_an_error_that_names_it(line: str, expected: str, tmp_path: Path) -> None:
    """What is no night of ours is neither read over nor written over."""
    path = tmp_path / "nights.jsonl"
    path.write_text(line)
    with pytest.raises(CorruptError, match=re.escape(expected)) as caught:
        read_json_lines(path, surface="shop", channel="LATEST")
    assert str(path) in str(caught.value)


def test_a_night_takes_the_place_of_its_date() -> None:
    """One line a night: told again, it is replaced, and the order is that of the dates."""
    later, again = replace(NIGHT, date="2026-04-01"), replace(NIGHT, outcome=Outcome.PUBLISHED)
    told = with_nights(with_nights([later], [NIGHT]), [again])

    assert told == (again, later)


def test_a_collector_never_meets_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file comes by a rename, from a name that a collector of ``*.prom`` does not read; anyone may read it."""
    path = tmp_path / "collector" / "shop.prom"
    write_beside(path, "old\n")
    renamed: list[Path] = []
    replace_as_before = Path.replace

    def watched(self: Path, target: Path) -> Path:
        assert path.read_text() == "old\n"
        renamed.append(self)
        return replace_as_before(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    write_beside(path, "new\n")

    assert path.read_text() == "new\n"
    assert [one.parent == path.parent and one.suffix != ".prom" for one in renamed] == [True]
    assert [one.name for one in path.parent.iterdir()] == ["shop.prom"]
    assert path.stat().st_mode & 0o444 == 0o444
