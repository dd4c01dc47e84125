"""The page over the last nights: outcomes, gates, counts, metrics and durations, with every gap shown as one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date as calendar_date
from datetime import timedelta
from statistics import median
from typing import Any

from release.charts import colour, number
from release.gate import Gate
from release.nights import Outcome, Recorded
from release.page import Cell, Chart, Folded, Kind, Mark, Note, Part, Section, Table, page, shown_number
from release.verdicts import State, Verdict

_NEWEST = 14  # days that are shown as rows; those before them are folded
_NO_NIGHT = "no night"
NIGHT_COLUMNS = (
    "date",
    "outcome",
    "gates that did not hold",
    "users",
    "items",
    "recommendations",
    "seconds",
    "release",
)
_OUTCOMES: dict[str, tuple[Kind, str]] = {  # its mark, and its colour in a chart: no green beside red
    Outcome.PUBLISHED: ("good", "#4c84c4"),
    Outcome.STORED: ("none", "#9fc0e6"),
    Outcome.BLESSED: ("none", "#3a9c76"),
    Outcome.REFUSED: ("bad", "#d45c62"),
    Outcome.UNFINISHED: ("warn", "#dd7f2f"),
    Outcome.UNREADABLE: ("bad", "#b46fb8"),
    _NO_NIGHT: ("none", "#8a8f98"),
}
_STATES: dict[str, tuple[Kind, str]] = {
    State.PASS: ("good", "#4c84c4"),
    State.WARN: ("warn", "#dd7f2f"),
    State.FAIL: ("bad", "#d45c62"),
    State.SKIP: ("none", "#8a8f98"),
}
_LABELS = {"labelOverlap": "greedy", "labelSeparation": 8}
_DAY = {
    "field": "date",
    "type": "temporal",
    "scale": {"type": "utc"},
    "title": None,
    "axis": {"format": "%-d %b", "tickCount": 6, **_LABELS},
}
_BAND = {
    "field": "date",
    "type": "ordinal",
    "title": None,
    "axis": {
        "labelExpr": "utcFormat(toDate(datum.value), '%-d %b')",
        "labelAngle": 0,
        "labelFlush": 20,  # pixels from an end, within which a label is pushed inwards
        **_LABELS,
    },
}


@dataclass(frozen=True, slots=True)
class _Line:
    """A number of each night that a chart follows."""

    name: str
    of: Callable[[Recorded], float | None]


def _figure(figure: str, name: str) -> _Line:
    return _Line(name, lambda night: night.figures.get(figure))


_COUNTS = {
    "Users": [_figure("users", "users"), _figure("users_cold", "without history")],
    "Items": [
        _figure("items", "in the catalogue"),
        _figure("items_eligible", "eligible"),
        _figure("items_indexed", "in the index"),
        _figure("items_recommended", "recommended"),
    ],
    "Recommendations": [_figure("rows", "all"), _figure("rows_fallback", "the fallback's")],
    "Events": [_figure("events", "events of the histories")],
    "Bytes of the release": [_Line("bytes", lambda night: night.size or None)],
}
_METRICS = {
    "Retrieval": [_figure("recall", "recall of the index against exact search")],
    "Share of the day's real events that the lists held": [
        _figure("hit_rate", "tonight's models"),
        _figure("hit_rate_earlier", "the lists before"),
    ],
    "Change of the lists": [_figure("churn", "share of the top 10 that is new")],
    "Change of the scores": [_figure("score_psi", "population stability index")],
    "Spread, as shares": [
        _figure("coverage", "items recommended"),
        _figure("exposure_top", "rows of the top 1 %"),
    ],
    "What the models do not know, as shares": [
        _figure("unknown_share", "unknown items"),
        _figure("cold_share", "cold users"),
    ],
    "Age of the models": [_figure("model_age", "days since their last training day")],
}


def trend_page(nights: Sequence[Recorded], gates: Iterable[Gate], *, surface: str, channel: str) -> str:
    """Write the page over *nights*.

    Args:
        nights: Oldest first, at least one; days between them without one are gaps.
        gates: What their figures mean.
        surface: Whose nights.
        channel: Whose readers have them.
    """
    days = _days(nights)
    by_date = {night.date: night for night in nights}
    sections = [
        Section("Nights", _nights(days, by_date)),
        Section("Gates", _gates(days, by_date, {gate.name: gate for gate in gates})),
        Section("Counts", _followed(days, by_date, _COUNTS)),
        Section("Metrics", _followed(days, by_date, _METRICS)),
        Section("Durations", _durations(days, by_date)),
    ]
    return page(f"Nights of {surface}, {channel}", _lead(days, by_date), sections, verdict=_newest(nights[-1]))


def _days(nights: Sequence[Recorded]) -> list[str]:
    """Name every day from the first night to the last."""
    first, last = (calendar_date.fromisoformat(nights[place].date) for place in (0, -1))
    return [(first + timedelta(days=day)).isoformat() for day in range((last - first).days + 1)]


def _outcome(night: Recorded | None) -> str:
    return str(night.outcome) if night else _NO_NIGHT


def _lead(days: Sequence[str], by_date: Mapping[str, Recorded]) -> str:
    found = [_outcome(by_date.get(day)) for day in days]
    counted = ", ".join(f"{found.count(one)} {one}" for one in map(str, _OUTCOMES) if one in found)
    return f"{days[0]} to {days[-1]}, {len(days)} days: {counted}."


def _newest(night: Recorded) -> Note:
    kind, _ = _OUTCOMES[night.outcome]
    said = f"The newest night, {night.date}, is {night.outcome}"
    if night.problem:
        return Note(f"{said}: {night.problem}", kind)
    if night.failed:
        reasons = "; ".join(verdict.line() for verdict in night.failed)
        return Note(f"{said}{'' if night.outcome is Outcome.REFUSED else ', in spite of its gates'}. {reasons}", kind)
    warned = f", with {len(night.warned)} warnings" if night.warned else ""
    return Note(f"{said}{warned}.", "warn" if night.warned and kind == "good" else kind)


def _nights(days: Sequence[str], by_date: Mapping[str, Recorded]) -> list[Part]:
    rows = [night_row(day, by_date.get(day)) for day in reversed(days)]
    spec = _heat([{"date": day, "of": "night", "is": _outcome(by_date.get(day))} for day in days], _OUTCOMES)
    spec["encoding"]["y"] = {"field": "of", "type": "nominal", "axis": None}
    found: list[Part] = [Chart("What became of each night", _lead(days, by_date), spec, _short(days, by_date))]
    found.append(Table(NIGHT_COLUMNS, rows[:_NEWEST], "Newest first"))
    if older := rows[_NEWEST:]:
        found.append(Folded(f"The {len(older)} days before", [Table(NIGHT_COLUMNS, older)]))
    return found


def _short(days: Sequence[str], by_date: Mapping[str, Recorded]) -> Table:
    return Table(("date", "outcome"), [(day, _outcome(by_date.get(day))) for day in days])


def night_row(day: str, night: Recorded | None) -> tuple[Cell, ...]:
    """Tell of a day in a row below ``NIGHT_COLUMNS``; a day without a night says so."""
    mark = Mark(_outcome(night), _OUTCOMES[_outcome(night)][0])
    if night is None:
        return (day, mark, "", None, None, None, None, "")
    says = ", ".join(verdict.name for verdict in (*night.failed, *night.warned)) or night.problem
    counts = (int(night.figures[name]) if name in night.figures else None for name in ("users", "items", "rows"))
    return (day, mark, says, *counts, night.seconds if night.steps else None, night.version)


def _gates(days: Sequence[str], by_date: Mapping[str, Recorded], gates: Mapping[str, Gate]) -> list[Part]:
    """Show each gate's states over the days, and the figures of those that moved."""
    names = list(dict.fromkeys(verdict.name for night in by_date.values() for verdict in night.verdicts))
    if not names:
        return ["No night has a verdict."]
    verdicts = {day: {one.name: one for one in by_date[day].verdicts} if day in by_date else {} for day in days}
    followed = {name: [(day, verdicts[day][name]) for day in days if name in verdicts[day]] for name in names}
    drawn = {name: one for name, one in followed.items() if "[" not in name or _breached(one)}
    values = [{"date": day, "of": name, "is": str(one.state)} for name in drawn for day, one in drawn[name]]
    spec = {**_heat(values, _STATES), "height": 16 * len(drawn)}
    spec["encoding"]["x"]["scale"] = {"domain": list(days)}
    spec["encoding"]["y"] = {"field": "of", "type": "ordinal", "sort": list(drawn), "title": None}
    table = Table(
        ("gate", "newest", "expected", "median", "least", "greatest", "warned", "failed"),
        [_gate_row(name, followed[name]) for name in names],
        "The figures of each gate",
    )
    charts = [_gate_chart(name, days, dict(one), gates) for name, one in drawn.items() if _moved(one)]
    return [
        Chart("What each gate said", _breaches(followed, len(days)), spec, table),
        Folded("Figures of the gates that moved; of segments, those that did not hold", charts),
    ]


def _breached(followed: Sequence[tuple[str, Verdict]]) -> bool:
    return any(verdict.state in {State.WARN, State.FAIL} for _, verdict in followed)


def _numbers(followed: Sequence[tuple[str, Verdict]]) -> list[float]:
    return [verdict.value for _, verdict in followed if verdict.value is not None]


def _moved(followed: Sequence[tuple[str, Verdict]]) -> bool:
    return len(set(_numbers(followed))) > 1


def _breaches(followed: Mapping[str, Sequence[tuple[str, Verdict]]], days: int) -> str:
    said = []
    for state in (State.FAIL, State.WARN):
        found = [name for name, one in followed.items() if any(verdict.state is state for _, verdict in one)]
        said.append(f"{len(found)} {state} at least once{' (' + ', '.join(found) + ')' if found else ''}")
    return f"{len(followed)} gates over {days} days: {'; '.join(said)}."


def _gate_row(name: str, followed: Sequence[tuple[str, Verdict]]) -> tuple[Cell, ...]:
    _, newest = followed[-1]
    numbers = _numbers(followed)
    least, middle, greatest = (min(numbers), median(numbers), max(numbers)) if numbers else (None, None, None)
    expected = f"{newest.side} {newest.bound:g}"
    warned, failed = (sum(one.state is state for _, one in followed) for state in (State.WARN, State.FAIL))
    return (name, newest.value, expected, middle, least, greatest, warned, failed)


def _gate_chart(name: str, days: Sequence[str], of: Mapping[str, Verdict], gates: Mapping[str, Gate]) -> Chart:
    values = [
        {"date": day, "value": of[day].value, "is": str(of[day].state), "bound": of[day].bound}
        if day in of and of[day].state is not State.SKIP
        else {"date": day, "value": None}
        for day in days
    ]
    y = {"field": "value", "type": "quantitative", "title": None}
    spec = {
        "height": 110,
        "data": {"values": values},
        "encoding": {"x": _DAY},
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 1, "color": "#8a8f98"}, "encoding": {"y": y}},
            {
                "mark": {"type": "line", "strokeDash": [4, 3], "color": "#8a8f98"},
                "encoding": {"y": {**y, "field": "bound"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 36, "opacity": 1, "tooltip": {"content": "data"}},
                "encoding": {"y": y, "color": _colours(values, _STATES)},
            },
        ],
    }
    newest = of[max(of)]
    meaning = gates[name.partition("[")[0]].meaning if name.partition("[")[0] in gates else name
    value = "no figure" if newest.value is None else f"{newest.value:.4g}"
    says = f"{meaning}: {value} on {max(of)}, expected {newest.side} {newest.bound:g} (dashed)."
    rows = [(day, of[day].value, of[day].bound, str(of[day].state)) for day in days if day in of]
    return Chart(name, says[:1].upper() + says[1:], spec, Table(("date", "figure", "bound", "state"), rows))


def _followed(
    days: Sequence[str], by_date: Mapping[str, Recorded], charts: Mapping[str, Sequence[_Line]]
) -> list[Part]:
    """Draw the numbers that some night has; a day without one is a gap in its line."""
    found: list[Part] = []
    for title, lines in charts.items():
        known = [line for line in lines if any(line.of(night) is not None for night in by_date.values())]
        if known:
            found.append(_lines(title, days, by_date, known))
    return found or ["No night has such numbers."]


def _lines(title: str, days: Sequence[str], by_date: Mapping[str, Recorded], lines: Sequence[_Line]) -> Chart:
    numbers = {day: [line.of(by_date[day]) if day in by_date else None for line in lines] for day in days}
    values = [
        {"date": day, "of": line.name, "value": value}
        for day in days
        for line, value in zip(lines, numbers[day], strict=True)
    ]
    large = any(number is not None and number >= 100_000 for row in numbers.values() for number in row)
    spec = {
        "height": 180,
        "data": {"values": values},
        "mark": {"type": "line", "point": {"size": 16}, "tooltip": {"content": "data"}},
        "encoding": {
            "x": _DAY,
            "y": number("value", form="~s" if large else "", zero=False),
            "color": colour("of", [line.name for line in lines]) | ({"legend": None} if len(lines) == 1 else {}),
        },
    }
    says = "; ".join(
        f"{line.name}: {_between([numbers[day][place] for day in days])}" for place, line in enumerate(lines)
    )
    rows = [(day, *numbers[day]) for day in days]
    return Chart(title, f"{says}.", spec, Table(("date", *(line.name for line in lines)), rows))


def _between(numbers: Sequence[float | None]) -> str:
    known = [number for number in numbers if number is not None]
    missing = f", none on {len(numbers) - len(known)} days" if len(known) < len(numbers) else ""
    first, last, least, greatest = map(shown_number, (known[0], known[-1], min(known), max(known)))
    return f"{first} at first, {last} at last, from {least} to {greatest}{missing}"


def _durations(days: Sequence[str], by_date: Mapping[str, Recorded]) -> list[Part]:
    steps = list(dict.fromkeys(step for night in by_date.values() for step in night.steps))
    if not steps:
        return ["No night was timed."]
    seconds = {
        day: [
            by_date[day].steps[step].seconds if day in by_date and step in by_date[day].steps else None
            for step in steps
        ]
        for day in days
    }
    values = [
        {"date": day, "step": step, "seconds": took}
        for day in days
        for step, took in zip(steps, seconds[day], strict=True)
    ]
    spec = {
        "height": 220,
        "data": {"values": values},
        "mark": {"type": "bar", "tooltip": {"content": "data"}},
        "encoding": {
            "x": _BAND,
            "y": {"field": "seconds", "type": "quantitative", "title": "seconds"},
            "color": colour("step", steps),
        },
    }
    totals = [by_date[day].seconds for day in days if day in by_date and by_date[day].steps]
    says = f"All steps of a night: {_between(totals)} seconds; a step's time is added up over its groups of shards."
    rows = [(day, *seconds[day]) for day in days]
    return [Chart("Seconds of each step", says, spec, Table(("date", *steps), rows))]


def _heat(values: Sequence[Mapping[str, Any]], looks: Mapping[str, tuple[Kind, str]]) -> dict[str, Any]:
    """Draw a field for each day and row, coloured by what it ``is``; what says nothing of the night is pale."""
    pale = {"test": {"field": "is", "oneOf": [_NO_NIGHT, State.SKIP]}, "value": 0.4}
    return {
        "height": 40,
        "data": {"values": list(values)},
        "mark": {"type": "rect", "tooltip": {"content": "data"}},
        "encoding": {"x": {**_BAND}, "color": _colours(values, looks), "opacity": {"condition": pale, "value": 1}},
    }


def _colours(values: Sequence[Mapping[str, Any]], looks: Mapping[str, tuple[Kind, str]]) -> dict[str, Any]:
    there = {value.get("is") for value in values}
    colours = {str(name): look for name, (_, look) in looks.items() if name in there}
    return colour("is", list(colours), list(colours.values()))
