"""The report on the work: how long each step and shard took, with how much memory, and what the night was made with."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from release.charts import BAR, drawn, hover, name, number
from release.page import Cell, Chart, Code, Facts, Folded, Heading, Note, Part, Table
from release.subject import Subject

STEPS = ("prepare", "items", "index", "interests", "score", "check")
_MOST_BARS = 600  # of the Gantt; above, groups of shards are drawn as one
_MOST_IDLE = 0.1  # of the seconds of work, that one gap may take in the Gantt
_GIB = 1 << 30


def work(subject: Subject) -> list[Part]:
    """How long, how fast and how large each step was, and when each shard was done."""
    steps = {step: subject.timings[step] for step in STEPS if subject.timings.get(step)}
    if not steps:
        return [Note("How long the steps took was not recorded.", "warn")]
    return ["Seconds of groups of shards that ran side by side are added up.", _steps(steps), _gantt(steps)]


def _steps(steps: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    rows: list[Sequence[Cell]] = []
    for step, entries in steps.items():
        seconds = sum(entry["seconds"] for entry in entries)
        count = sum(entry["rows"] for entry in entries)
        memory = max(entry.get("memory", 0) for entry in entries)
        shards = sum(entry["shards"] for entry in entries)
        rows.append(
            (
                step,
                shards,
                count,
                float(seconds),
                round(count / seconds) if seconds and count else None,
                round(memory / _GIB, 2) if memory else None,
            )
        )
    return Table(("step", "shards", "rows", "seconds", "rows/s", "GiB of one process"), rows)


def _gantt(steps: Mapping[str, Sequence[Mapping[str, Any]]]) -> Chart | Note:
    spans = [
        _span(step, entry, span)
        for step, entries in steps.items()
        for entry in entries
        if "began" in entry
        for span in (entry.get("spans") or [{}])
    ]
    if not spans:
        return Note("When the steps ran was not recorded.")
    bars = _lanes(spans if len(spans) <= _MOST_BARS else _joined(spans))
    idle = _place(bars)
    lanes = list(dict.fromkeys(bar["lane"] for bar in bars))
    slowest = max(bars, key=lambda bar: bar["seconds"])
    whole = max(bar["to"] for bar in bars)
    joined = "" if len(spans) <= _MOST_BARS else " Neighbouring shards are drawn together: there are many."
    waited = f" Not drawn are {idle:,.0f} seconds in which nothing was done." if idle else ""
    says = (
        f"From the first to the last, {whole:,.1f} seconds of work went by. The longest bar is {slowest['what']} with "
        f"{slowest['seconds']:,.1f} seconds.{waited}{joined}"
    )
    spec = drawn(
        bars,
        {"type": "bar", "cornerRadius": 2, "stroke": "#ffffff", "strokeWidth": 0.6},
        height=BAR * len(lanes) + 10,
        x=number("from", "seconds of work since the night began"),
        x2={"field": "to"},
        y=name("lane", order=lanes),
        color={"field": "step", "type": "nominal", "legend": None, "scale": {"domain": list(STEPS)}},
        tooltip=hover(
            ("what", "what", ""),
            ("seconds", "seconds", ",.2f"),
            ("rows", "rows", ","),
            ("speed", "rows/s", ","),
            ("memory", "GiB", ".2f"),
        ),
    )
    columns = ("what", "from, s", "to, s", "rows", "rows/s", "GiB")
    table = Table(
        columns, [(bar["what"], bar["from"], bar["to"], bar["rows"], bar["speed"], bar["memory"]) for bar in bars]
    )
    return Chart("When each shard was done", says, spec, table)


def _place(bars: list[dict[str, Any]]) -> float:
    """Give each bar its ``from`` and ``to`` in seconds since the first began, and the idle seconds that are left out.

    A night that waited, for a scheduler or for its next try, would otherwise be a few dots far apart.
    """
    most = max(1.0, _MOST_IDLE * sum(bar["seconds"] for bar in bars))
    end = origin = min(bar["began"] for bar in bars)
    idle = 0.0
    for bar in sorted(bars, key=lambda bar: bar["began"]):
        idle += max(0.0, bar["began"] - end - most)
        end = max(end, bar["began"] + bar["seconds"])
        bar["from"] = round(bar.pop("began") - origin - idle, 3)
        bar["to"] = round(bar["from"] + bar["seconds"], 3)
    return idle


def _span(step: str, entry: Mapping[str, Any], span: Mapping[str, Any]) -> dict[str, Any]:
    """Give a bar of a shard, or of a step without shards."""
    said = span or entry
    what = f"{step}, shard {span['shard']}" if span else step
    seconds, rows = float(said["seconds"]), int(said["rows"])
    return {
        "step": step,
        "what": what,
        "began": float(said["began"]),
        "seconds": seconds,
        "rows": rows,
        "speed": round(rows / seconds) if seconds and rows else None,
        "memory": round(said.get("memory", 0) / _GIB, 3),
    }


def _joined(spans: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Draw spans of one step that follow each other as one bar, few enough of them."""
    ordered = sorted(spans, key=lambda span: (STEPS.index(span["step"]), span["began"]))
    size = -(-len(ordered) // _MOST_BARS)
    found = []
    for step in STEPS:
        own = [span for span in ordered if span["step"] == step]
        for start in range(0, len(own), size):
            part = own[start : start + size]
            began, rows = part[0]["began"], sum(span["rows"] for span in part)
            seconds = max(span["began"] + span["seconds"] for span in part) - began
            what = part[0]["what"] if len(part) == 1 else f"{step}, {len(part)} shards"
            found.append(
                {
                    "step": step,
                    "what": what,
                    "began": began,
                    "seconds": round(seconds, 3),
                    "rows": rows,
                    "speed": round(rows / seconds) if seconds and rows else None,
                    "memory": max(span["memory"] for span in part),
                }
            )
    return found


def _lanes(spans: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give each bar a lane of its step that is free when it begins: as many lanes as ran side by side."""
    bars = []
    ends: dict[str, list[float]] = {}
    for span in sorted(spans, key=lambda span: (STEPS.index(span["step"]), span["began"], span["what"])):
        lanes = ends.setdefault(span["step"], [])
        free = next((place for place, end in enumerate(lanes) if end <= span["began"] + 0.002), len(lanes))
        lanes[free : free + 1] = [span["began"] + span["seconds"]]
        bars.append({**span, "lane": span["step"] if free == 0 else f"{span['step']} {free + 1}"})
    return bars


def made_with(subject: Subject) -> list[Part]:
    """Versions, digests and the config."""
    run, index = subject.run, subject.layout.index
    bundles = [
        (bundle.role.value, bundle.trained_through or "not said", bundle.model_id, bundle.bundle_id)
        for bundle in subject.bundles
    ]
    return [
        Facts(
            [
                ("Data date", run.date),
                ("Run", run.run_key),
                ("Release, once published", subject.version),
                ("Compared with", subject.last.version if subject.last else "nothing: the first night"),
                ("Digest of the inputs", run.inputs),
                ("Digest of what was judged", subject.verdict.judged),
            ]
        ),
        Heading("Models"),
        Table(("role", "trained through", "model", "bundle"), bundles),
        Heading("Execution profile"),
        Table(("what", "is"), [(key, str(value)) for key, value in sorted(run.profile.items())]),
        Heading("Index"),
        Table(
            ("what", "is"),
            [
                (key, str(value))
                for key, value in sorted(subject.parameters.items())
                if key not in {"metadata", "curve", "counts"}
            ],
            index.parameters.name,
        ),
        Folded(
            "The config, as far as content depends on it",
            [Code(json.dumps(run.semantic, indent=2, sort_keys=True, ensure_ascii=False))],
        ),
        Folded("What prepare counted", [Table(("what", "how many"), sorted(run.counts.items()))]),
    ]
