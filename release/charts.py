"""What our charts look like: plain Vega-Lite, from rows of names and numbers; the page gives them colours and width."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Rows = Sequence[Mapping[str, Any]]
Channel = dict[str, Any]

BAR = 20  # pixels of a bar and the gap below it
_BEND = 16  # straight pieces of a flow's edge
_GAP = 0.03  # between what a flow is split into, of its height
_TALL = 210  # pixels of a flow
_LEAST = 0.16  # of a flow's height, that a label takes


def number(field: str, title: str | None = None, *, form: str = "", zero: bool = True, log: bool = False) -> Channel:
    """Place marks by a number.

    Args:
        field: Of the rows.
        title: Of the axis; None for none.
        form: Of its labels, as d3-format writes it, such as ``".0%"``; ``"d"`` is whole numbers.
        zero: Whether the axis begins at 0.
        log: Whether it is logarithmic; then nothing may be 0.
    """
    scale: Channel = {"type": "log", "nice": False} if log else {"zero": zero}
    axis: Channel = ({"format": form} if form else {}) | ({"tickMinStep": 1} if form == "d" else {})
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": axis}


def name(field: str, title: str | None = None, *, order: Sequence[str] | None = None) -> Channel:
    """Place marks by a name, in the order of the rows or in the one given."""
    return {"field": field, "type": "nominal", "title": title, "sort": list(order) if order else None}


def colour(field: str, order: Sequence[str], chosen: Sequence[str] = (), *, title: str | None = None) -> Channel:
    """Colour marks by a name; *chosen* are the colours of *order* where they mean something, such as a verdict."""
    scale: Channel = {"domain": list(order)} | ({"range": list(chosen)} if chosen else {})
    return {"field": field, "type": "nominal", "title": title, "scale": scale}


def hover(*fields: tuple[str, str, str]) -> list[Channel]:
    """Say what is shown where a pointer rests: field, title and number format of each line; ``""`` is plain text."""
    return [
        {"field": field, "title": title} | ({"type": "quantitative", "format": form} if form else {"type": "nominal"})
        for field, title, form in fields
    ]


def drawn(rows: Rows, mark: str | Mapping[str, Any], *, height: int, **channels: Any) -> dict[str, Any]:
    """Draw each of *rows* by one mark; *channels* say where and how."""
    return {"height": height, "data": {"values": list(rows)}, "mark": mark, "encoding": channels}


def bars(rows: Rows, *, value: Channel, of: Channel, beside: Channel | None = None, **channels: Any) -> dict[str, Any]:
    """Draw lying bars, one below the other; *beside* names those that lie beside each other for each name."""
    names = len({row[of["field"]] for row in rows})
    several = len({row[beside["field"]] for row in rows}) if beside else 1
    if beside:
        channels = {
            "color": beside,
            "yOffset": {"field": beside["field"], "sort": beside["scale"]["domain"]},
            **channels,
        }
    return drawn(rows, "bar", height=names * BAR * max(1, several) + 10, x=value, y=of, **channels)


def heat(rows: Rows, *, across: Channel, down: Channel, colour: Channel, tooltip: list[Channel]) -> dict[str, Any]:
    """Draw a field for each pair of names."""
    names = len({row[down["field"]] for row in rows})
    across = {**across, "axis": {"orient": "top", "labelAngle": -90, "labelLimit": 80, **across.get("axis", {})}}
    mark = {"type": "rect", "cornerRadius": 2}
    return drawn(
        rows,
        mark,
        height=names * BAR + 10,
        x=across,
        y={**down, "scale": {"paddingInner": 0.15}},
        color=colour,
        tooltip=tooltip,
    )


@dataclass(frozen=True, slots=True)
class Part:
    """What a part of a flow became.

    Attributes:
        name: Short.
        count: How many.
        kind: ``"kept"``, ``"apart"`` (kept, but treated otherwise) or ``"gone"``.
    """

    name: str
    count: int
    kind: str = "kept"


KINDS = {"kept": "#4c84c4", "apart": "#dd9a2f", "gone": "#9aa1ab"}


def flow(stages: Sequence[Sequence[Part]]) -> dict[str, Any]:
    """Draw how a number is split, stage after stage.

    Args:
        stages: The first has one part; each one after it splits the first part of the one before it.
    """
    total = max(1, stages[0][0].count)
    nodes: list[dict[str, Any]] = []
    ribbons: list[dict[str, Any]] = []
    top = 1.0
    for stage, parts in enumerate(stages):
        level = top
        for place, part in enumerate(part for part in parts if part.count or not stage):
            tall = part.count / total
            label = f"{part.name}\n{part.count:,}"
            nodes.append(
                {
                    "x": stage,
                    "x2": stage + 0.04,
                    "y": level - tall,
                    "y2": level,
                    "kind": part.kind,
                    "label": label,
                    "count": part.count,
                    "name": part.name,
                }
            )
            if stage:
                ribbons += _ribbon(
                    f"{stage}.{place}", stage - 1 + 0.04, stage, top - _before(parts, part) / total, level, tall, part
                )
            level -= tall + _GAP
    _spread(nodes)
    return _flow_spec(nodes, ribbons, len(stages))


def _before(parts: Sequence[Part], part: Part) -> int:
    """Count what the parts before *part* have taken of the one that they split."""
    return sum(one.count for one in parts[: parts.index(part)])


def _ribbon(
    key: str, x: float, x2: float, source: float, target: float, tall: float, part: Part
) -> list[dict[str, Any]]:
    """Give the edges of a band from one stage to the next; its ends are level."""
    rows = []
    for step in range(_BEND + 1):
        t = step / _BEND
        upper = source + (target - source) * t * t * (3 - 2 * t)
        rows.append(
            {
                "key": key,
                "x": round(x + (x2 - x) * t, 4),
                "y": round(upper - tall, 5),
                "y2": round(upper, 5),
                "kind": part.kind,
                "name": part.name,
                "count": part.count,
            }
        )
    return rows


def _spread(nodes: list[dict[str, Any]]) -> None:
    """Place the labels beside their nodes, so far apart that they can be read."""
    free: dict[int, float] = {}
    for node in nodes:
        wanted = node["y2"] - min(node["y2"] - node["y"], _LEAST) / 2
        node["at"] = round(min(wanted, free.get(node["x"], 2.0)), 4)
        free[node["x"]] = node["at"] - _LEAST
        node["y"], node["y2"] = round(node["y"], 5), round(node["y2"], 5)


def _flow_spec(nodes: list[dict[str, Any]], ribbons: list[dict[str, Any]], stages: int) -> dict[str, Any]:
    least = min(min(node["y"], node["at"] - _LEAST / 2) for node in nodes)
    plain: Channel = {"type": "quantitative", "axis": None}
    x: Channel = {**plain, "field": "x", "scale": {"domain": [0, stages], "nice": False}}
    y: Channel = {**plain, "field": "y", "scale": {"domain": [round(least, 4), 1.02], "nice": False, "zero": False}}
    kinds = colour("kind", list(KINDS), list(KINDS.values()))
    tooltip = hover(("name", "what", ""), ("count", "how many", ","))
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": nodes},
            "mark": {"type": "rect"},
            "encoding": {
                "x": x,
                "x2": {"field": "x2"},
                "y": y,
                "y2": {"field": "y2"},
                "color": kinds,
                "tooltip": tooltip,
            },
        },
        {
            "data": {"values": nodes},
            "mark": {"type": "text", "align": "left", "dx": 5, "lineBreak": "\n", "baseline": "middle", "fontSize": 12},
            "encoding": {
                "x": {**x, "field": "x2"},
                "y": {**y, "field": "at"},
                "text": {"field": "label", "type": "nominal"},
            },
        },
    ]
    if ribbons:
        layers.insert(
            0,
            {
                "data": {"values": ribbons},
                "mark": {"type": "area", "opacity": 0.3, "line": False},
                "encoding": {
                    "x": x,
                    "y": y,
                    "y2": {"field": "y2"},
                    "color": kinds,
                    "detail": {"field": "key", "type": "nominal"},
                    "tooltip": tooltip,
                },
            },
        )
    return {"height": round(_TALL * (1.02 - least)), "layer": layers}
