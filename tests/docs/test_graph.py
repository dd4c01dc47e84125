"""Flowcharts as SVG: all nodes and arrows are there, nothing hides anything, and what is not understood is said."""

import re
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest

from docs.graph import flowchart, layers_of
from tests.blocks import ROOT

SVG = "{http://www.w3.org/2000/svg}"
PICTURES = re.findall(r"```mermaid\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
SKEWED = "flowchart TD\n    a --> b\n    b --> c\n    c --> d\n    a --> d\n    a --> c\n    x --> d\n"

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


def drawn(picture: str) -> tuple[ElementTree.Element, list[Rectangle], list[list[tuple[float, float]]]]:
    """Give the picture, its rectangles, and the points of its arrows' lines."""
    svg = ElementTree.fromstring(flowchart(picture))
    sides = [[float(box.attrib[name]) for name in ("x", "y", "width", "height")] for box in svg.iter(f"{SVG}rect")]
    lines = [
        [(float(x), float(y)) for x, y in (place.split(",") for place in line.attrib["points"].split())]
        for line in svg.iter(f"{SVG}polyline")
    ]
    return svg, [(x, y, x + wide, y + high) for x, y, wide, high in sides], lines


def inside(box: Rectangle, x: float, y: float) -> bool:
    """Whether a place is within a rectangle, and not on its edge."""
    left, top, right, bottom = box
    return left + 1 < x < right - 1 and top + 1 < y < bottom - 1


@pytest.mark.parametrize("picture", [*PICTURES, SKEWED])
def test_all_is_there_and_nothing_hides_anything(picture: str) -> None:
    """One rectangle a node, one line an arrow; rectangles meet no other, and no line; all is within the picture."""
    svg, boxes, lines = drawn(picture)
    arrows = re.findall(r"(\w+) --> (\w+)", picture)
    nodes = {node for arrow in arrows for node in arrow}
    wide, high = map(float, svg.attrib["viewBox"].split()[2:])

    assert (len(boxes), len(lines)) == (len(nodes), len(arrows))
    assert all(f"{start} leads to {end}" in svg.attrib["aria-label"] for start, end in arrows)
    assert {text.text for text in svg.iter(f"{SVG}text")} >= {node for node in nodes if f"{node}[[" not in picture}
    assert all(0 < left < right < wide and 0 < top < bottom < high for left, top, right, bottom in boxes)
    for one, two in combinations(boxes, 2):
        assert one[2] < two[0] or two[2] < one[0] or one[3] < two[1] or two[3] < one[1]
    for line in lines:
        for (x, y), (to_x, to_y) in pairwise(line):
            steps = [(x + (to_x - x) * part / 50, y + (to_y - y) * part / 50) for part in range(51)]
            assert not [box for box in boxes for place in steps if inside(box, *place)]


def test_a_layer_is_the_longest_way_to_a_node() -> None:
    """Worked out by hand."""
    arrows = [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d"), ("x", "d")]
    assert layers_of(["a", "b", "c", "d", "x"], arrows) == {"a": 0, "b": 1, "c": 2, "d": 3, "x": 0}


@pytest.mark.parametrize("line", ["    a -.-> b", "    a --> b --> c", "    subgraph a", "    a{b}"])
def test_what_is_not_understood_is_said(line: str) -> None:
    """A picture that lacks a part would be worse than none."""
    with pytest.raises(ValueError, match=re.escape(line.strip())):
        flowchart(f"flowchart TD\n    a --> b\n{line}\n")


def test_another_kind_of_picture_is_refused() -> None:
    """Only flowcharts are drawn."""
    with pytest.raises(ValueError, match="sequenceDiagram"):
        flowchart("sequenceDiagram\n    a --> b\n")
