"""A night's numbers for dashboards: the text that Prometheus reads, and JSON lines.

Names and units are by Prometheus' conventions: seconds, bytes, and ``_ratio`` for shares from 0 to 1; all are gauges.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.errors import CorruptError, UsageError
from release.nights import Outcome, Recorded
from release.verdicts import State, Verdict

Samples = Iterator[tuple[Mapping[str, str], float]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a night.

    Attributes:
        name: As Prometheus knows it.
        help: What it is.
        samples: Labels and value of each of its samples.
    """

    name: str
    help: str
    samples: Callable[[Recorded], Samples]


def _one(value: Callable[[Recorded], float | None]) -> Callable[[Recorded], Samples]:
    def samples(night: Recorded) -> Samples:
        found = value(night)
        if found is not None:
            yield {}, found

    return samples


def _figure(name: str, unit: float = 1) -> Callable[[Recorded], Samples]:
    def value(night: Recorded) -> float | None:
        found = night.figures.get(name)
        return None if found is None else found * unit

    return _one(value)


def _of_gates(value: Callable[[Verdict], float]) -> Callable[[Recorded], Samples]:
    def samples(night: Recorded) -> Samples:
        for verdict in night.verdicts:
            if verdict.state is not State.SKIP:
                gate, segment = gate_and_segment(verdict.name)
                yield {"gate": gate, **({"segment": segment} if segment else {})}, value(verdict)

    return samples


def gate_and_segment(name: str) -> tuple[str, str]:
    """Take the name of a verdict apart: ``"users_lost[country=de]"``; the segment of all users is ``""``."""
    gate, _, segment = name.partition("[")
    return gate, segment.removesuffix("]")


def _version(night: Recorded) -> Samples:
    yield {"date": night.date, "run_key": night.run_key, "version": night.version}, 1


def _steps(value: str) -> Callable[[Recorded], Samples]:
    def samples(night: Recorded) -> Samples:
        for name, step in night.steps.items():
            yield {"step": name}, getattr(step, value)

    return samples


def _counts(night: Recorded) -> Samples:
    for name, count in night.counts.items():
        yield {"counted": name}, count


METRICS = (
    Metric("nightrec_night_info", "The newest night that was judged: its data date, run and release.", _version),
    Metric(
        "nightrec_night_data_end_timestamp_seconds",
        "End of its data date.",
        _one(lambda night: night.end),
    ),
    Metric(
        "nightrec_night_refused",
        "Whether a gate refused it.",
        _one(lambda night: night.outcome is Outcome.REFUSED),
    ),
    Metric(
        "nightrec_night_published",
        "Whether the channel leads to it; a night that is stored under a hold is neither refused nor published.",
        _one(lambda night: night.outcome is Outcome.PUBLISHED),
    ),
    Metric(
        "nightrec_gate_value",
        "The figure that a gate judged, in the gate's own unit; NaN where it is not finite. Absent while the gate does "
        "not apply.",
        _of_gates(lambda verdict: float("nan") if verdict.value is None else verdict.value),
    ),
    Metric("nightrec_gate_bound", "The last figure that the gate lets pass.", _of_gates(lambda verdict: verdict.bound)),
    Metric(
        "nightrec_gate_breached",
        "Whether the figure is beyond the bound: the gate refuses the night, or warns.",
        _of_gates(lambda verdict: verdict.state is not State.PASS),
    ),
    Metric("nightrec_users", "Users.", _figure("users")),
    Metric("nightrec_users_cold", "Users without a history.", _figure("users_cold")),
    Metric("nightrec_users_cold_ratio", "Share of users without a history.", _figure("cold_share")),
    Metric("nightrec_items", "Items of the catalogue.", _figure("items")),
    Metric("nightrec_items_eligible", "Items that may be recommended.", _figure("items_eligible")),
    Metric("nightrec_items_indexed", "Items in the index.", _figure("items_indexed")),
    Metric("nightrec_items_recommended", "Items that are recommended at all.", _figure("items_recommended")),
    Metric("nightrec_coverage_ratio", "Share of items that are recommended at all.", _figure("coverage")),
    Metric(
        "nightrec_exposure_top_ratio",
        "Share of the recommendations that the most recommended 1 % of the items take.",
        _figure("exposure_top"),
    ),
    Metric("nightrec_events", "Events of the histories.", _figure("events")),
    Metric("nightrec_behaviours", "Behaviours in the histories as models see them.", _figure("behaviours")),
    Metric(
        "nightrec_behaviours_unknown_ratio",
        "Share of behaviours whose item id the model does not know.",
        _figure("unknown_share"),
    ),
    Metric("nightrec_interest_vectors", "Interest vectors of all users.", _figure("interest_vectors")),
    Metric("nightrec_recommendations", "Recommendations.", _figure("rows")),
    Metric("nightrec_recommendations_fallback", "Those that are the fallback's.", _figure("rows_fallback")),
    Metric("nightrec_recall_ratio", "Recall of the index against exact search.", _figure("recall")),
    Metric("nightrec_churn_ratio", "Share of the top 10 that is new.", _figure("churn")),
    Metric("nightrec_score_psi", "Population stability index of the scores.", _figure("score_psi")),
    Metric(
        "nightrec_hits_ratio",
        "Share of the data date's events in the lists that the night's models make of the day before.",
        _figure("hit_rate"),
    ),
    Metric(
        "nightrec_hits_earlier_ratio",
        "The same of the lists that readers had.",
        _figure("hit_rate_earlier"),
    ),
    Metric(
        "nightrec_model_age_seconds",
        "From the model's last training day to the data date.",
        _figure("model_age", 86_400),
    ),
    Metric("nightrec_release_size_bytes", "Content of the release.", _one(lambda night: night.size or None)),
    Metric("nightrec_step_duration_seconds", "Time of a step, added up over groups of shards.", _steps("seconds")),
    Metric("nightrec_step_rows", "Rows that a step wrote.", _steps("rows")),
    Metric("nightrec_prepare_rows", "What prepare read, kept, and left out by reason.", _counts),
)


def prometheus_text(night: Recorded, *, surface: str, channel: str) -> str:
    """Write *night* as a textfile of node_exporter: the newest values, without a time of their own."""
    lines = []
    for metric in METRICS:
        samples = list(metric.samples(night))
        if samples:
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} gauge"]
        for labels, value in samples:
            named = {"surface": surface, "channel": channel, **labels}
            pairs = ",".join(f'{name}="{_escaped(text)}"' for name, text in named.items())
            lines.append(f"{metric.name}{{{pairs}}} {_number(value)}")
    return "".join(f"{line}\n" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else repr(value + 0)  # True and False are 1 and 0


def json_lines(nights: Iterable[Recorded], *, surface: str, channel: str) -> str:
    """Write one JSON object a night and line, all its numbers in it, oldest first."""
    said = ({"surface": surface, "channel": channel, **night.document()} for night in nights)
    return "".join(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n" for line in said)


def read_json_lines(path: Path, *, surface: str, channel: str) -> tuple[Recorded, ...]:
    """Read the nights of a surface's channel that :func:`json_lines` wrote; none if there is no such file.

    Raises:
        CorruptError: If a line is none of ours, or of another surface or channel; the message names it.
    """
    if not path.is_file():
        return ()
    nights = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            document: dict[str, Any] = json.loads(line)
            found = document.pop("surface"), document.pop("channel")
            nights.append(Recorded.from_document(document))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CorruptError(
                f"{path}, line {number}: expected a night as JSON ({error!r}); move the file away and "
                "`nightrec trend --jsonl` writes what is stored"
            ) from error
        if found != (surface, channel):
            raise CorruptError(
                f"{path}, line {number}: is of {found[0]}, channel {found[1]}, not of {surface}, {channel}; "
                "each surface and channel has a file of its own"
            )
    return tuple(nights)


def with_nights(told: Iterable[Recorded], nights: Iterable[Recorded]) -> tuple[Recorded, ...]:
    """Put *nights* in the place of what was told of their dates before, oldest first."""
    by_date = {night.date: night for night in (*told, *nights)}
    return tuple(by_date[date] for date in sorted(by_date))


def write_beside(path: Path, text: str) -> None:
    """Write *text* under *path* whole or not at all; anyone may read it.

    The file that is renamed does not end as *path* does: a collector that reads ``*.prom`` never meets it.

    Raises:
        UsageError: If it cannot be written there.
    """
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging.write_text(text, "utf-8")
        staging.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); name another place") from error
    finally:
        with suppress(OSError):
            staging.unlink(missing_ok=True)
