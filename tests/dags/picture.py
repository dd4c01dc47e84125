"""The README's picture of the DAG, drawn from the DAG; under Airflow: ``python tests/dags/picture.py`` writes it."""

from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- the DAG, drawn from dags/nightly.py -->\n", "<!-- end of the DAG -->\n"


def draw(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw tasks and what comes after each in Mermaid, as ``graph`` of inside.py describes them."""
    before = {name: {other for other in tasks if name in tasks[other]["next"]} for name in tasks}
    sorter = TopologicalSorter(before)
    sorter.prepare()
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += ready
        sorter.done(*ready)
    shapes = [f'    {name}[["{name}, by groups of shards"]]' for name in order if tasks[name]["mapped"]]
    arrows = [f"    {name} --> {after}" for name in order for after in sorted(tasks[name]["next"], key=order.index)]
    return "\n".join(["```mermaid", "flowchart LR", *shapes, *arrows, "```", ""])


def drawn_in(text: str) -> str:
    """The picture that stands in a text."""
    return text.partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    from inside import graph

    (surface, *_) = graph("nightly.py").values()
    text = README.read_text("utf-8")
    README.write_text(text.replace(drawn_in(text), draw(surface["tasks"])), "utf-8")
