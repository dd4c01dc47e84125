"""Flowcharts of Markdown as pictures: the README's are in Mermaid, whose script a site without a network has not.

Nodes stand in layers, each after all that lead to it, and within a layer by the mean place of what leads to them. An
arrow over several layers has a place of its own in each that it passes, so that it crosses no node.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from textwrap import wrap
from typing import Any

_ARROW = re.compile(r"^\s*(\w+) --> (\w+)$", re.MULTILINE)
_NODE = re.compile(r'^\s*(\w+)\[+"(.*?)"\]+$', re.MULTILINE)
_LETTER, _LINE, _MOST = 7.2, 19, 30  # pixels of a letter and a line, letters in a line
_BETWEEN, _BESIDE, _INSIDE = 40, 22, 11  # pixels between layers, between nodes, around a label

Place = tuple[float, float]  # along the layers, and across them


@dataclass(frozen=True, slots=True)
class Box:
    """Where a node stands, or where an arrow passes a layer: the middle of it, and how far it goes to each side."""

    middle: Place
    half: Place


def flowchart(source: str, *_: Any, **__: Any) -> str:
    """Turn a flowchart in Mermaid, of nodes with labels in quotes and plain arrows, into an SVG in the page's colours.

    Raises:
        ValueError: If it has a line of another kind.
    """
    head, *lines = source.strip().splitlines()
    strange = [line for line in lines if not (_ARROW.match(line) or _NODE.match(line))]
    if strange or head not in {"flowchart TD", "flowchart LR"}:
        raise ValueError(f"{(strange or [head])[0]!r}: expected nodes and arrows of a flowchart TD or LR")
    arrows = _ARROW.findall(source)
    said = dict(_NODE.findall(source))
    nodes = dict.fromkeys([*said, *(node for arrow in arrows for node in arrow)])
    labels = {node: _lines(said.get(node, node)) for node in nodes}
    return _draw(labels, arrows, across=head.endswith("LR"))


def _lines(label: str) -> list[str]:
    return [line for part in label.split("<br/>") for line in wrap(re.sub(r"</?b>", "", part), _MOST)]


def layers_of(nodes: Sequence[str], arrows: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Say how many arrows lead to each node at most, one after another; no arrow leads back."""
    before = {node: [start for start, end in arrows if end == node] for node in nodes}

    def depth(node: str) -> int:
        return max((depth(start) + 1 for start in before[node]), default=0)

    return {node: depth(node) for node in nodes}


def _paths(layers: Mapping[str, int], arrows: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Give each arrow's nodes and, between them, the places where it passes a layer."""
    return [
        [start, *(f"{start} {end} {layer}" for layer in range(layers[start] + 1, layers[end])), end]
        for start, end in arrows
    ]


def _ordered(layers: Mapping[str, int], paths: Sequence[Sequence[str]]) -> list[list[str]]:
    """Put nodes and passing arrows into the order in which they stand in their layers."""
    rows: list[list[str]] = [[] for _ in range(max(layers.values()) + 1)]
    for node, layer in layers.items():
        rows[layer].append(node)
    for path in paths:
        for step, passing in enumerate(path[1:-1], start=1):
            rows[layers[path[0]] + step].append(passing)
    place: dict[str, float] = {}
    for row in rows:
        leading = {
            node: [place[one] for path in paths for one, other in pairwise(path) if other == node] for node in row
        }
        row.sort(key=lambda node: sum(leading[node]) / max(1, len(leading[node])))
        place |= {node: number - (len(row) - 1) / 2 for number, node in enumerate(row)}
    return rows


def _boxes(rows: Sequence[Sequence[str]], labels: Mapping[str, Sequence[str]], *, across: bool) -> dict[str, Box]:
    halves: dict[str, Place] = {}
    for node in (node for row in rows for node in row):
        lines = labels.get(node, [])
        wide, high = max(map(len, lines), default=0) * _LETTER / 2 + _INSIDE, len(lines) * _LINE / 2 + _INSIDE
        halves[node] = ((wide, high) if across else (high, wide)) if lines else (0, 0)
    boxes: dict[str, Box] = {}
    along = 0.0
    for row in rows:
        deep = max(halves[node][0] for node in row)
        beside = -(sum(2 * halves[node][1] for node in row) + _BESIDE * (len(row) - 1)) / 2
        for node in row:
            half = halves[node] if node in labels else (deep, 0)
            boxes[node] = Box((along + deep, beside + half[1]), half)
            beside += 2 * half[1] + _BESIDE
        along += 2 * deep + _BETWEEN
    return boxes


def _draw(labels: Mapping[str, Sequence[str]], arrows: Sequence[tuple[str, str]], *, across: bool) -> str:
    layers = layers_of(list(labels), arrows)
    paths = _paths(layers, arrows)
    boxes = _boxes(_ordered(layers, paths), labels, across=across)
    least = min(box.middle[1] - box.half[1] for box in boxes.values())
    size = (
        max(box.middle[0] + box.half[0] for box in boxes.values()) + 2,
        max(box.middle[1] + box.half[1] for box in boxes.values()) - least + 2,
    )

    def point(along: float, beside: float) -> str:
        place = (along + 1, beside - least + 1)
        return "{:.1f},{:.1f}".format(*(place if across else place[::-1]))

    wide, high = size if across else size[::-1]
    says = "; ".join(f"{start} leads to {end}" for start, end in arrows)
    body = [*(part for path in paths for part in _arrow([boxes[one] for one in path], point))]
    body += [part for node, lines in labels.items() for part in _node(boxes[node], lines, point, across)]
    return (
        f'<svg class="flowchart" role="img" aria-label="{escape(says)}" viewBox="0 0 {wide:.0f} {high:.0f}" '
        f'style="max-width: {wide:.0f}px" xmlns="http://www.w3.org/2000/svg">{"".join(body)}</svg>'
    )


def _arrow(boxes: Sequence[Box], point: Callable[[float, float], str]) -> Iterator[str]:
    first, *passed, last = boxes
    end = (last.middle[0] - last.half[0], last.middle[1])
    bends = [(box.middle[0] + side * box.half[0], box.middle[1]) for box in passed for side in (-1, 1)]
    line = [(first.middle[0] + first.half[0], first.middle[1]), *bends, (end[0] - 8, end[1])]
    yield f'<polyline points="{" ".join(point(*place) for place in line)}" fill="none" stroke="currentColor"/>'
    head = [end, (end[0] - 9, end[1] - 4), (end[0] - 9, end[1] + 4)]
    yield f'<polygon points="{" ".join(point(*place) for place in head)}" fill="currentColor"/>'


def _node(box: Box, lines: Sequence[str], point: Callable[[float, float], str], across: bool) -> Iterator[str]:
    x, y = (float(number) for number in point(*box.middle).split(","))
    wide, high = box.half if across else box.half[::-1]
    yield (
        f'<rect x="{x - wide:.1f}" y="{y - high:.1f}" width="{2 * wide:.1f}" height="{2 * high:.1f}" rx="4" '
        'fill="none" stroke="currentColor"/>'
    )
    top = y - (len(lines) - 1) * _LINE / 2
    for number, line in enumerate(lines):
        weight = "bold" if number == 0 else "normal"
        yield (
            f'<text x="{x:.1f}" y="{top + number * _LINE + 4.5:.1f}" text-anchor="middle" font-size="13" '
            f'font-weight="{weight}" fill="currentColor">{escape(line)}</text>'
        )
