"""The README's picture of the DAG, drawn from the DAG; ``python -m tests.dags.picture`` draws it, under Airflow.

Its environment is .venv-airflow, and NIGHTREC_CONFIGS a folder with a config, such as deploy/config.
"""

from collections.abc import Mapping
from graphlib import TopologicalSorter
from typing import Any

from tests.pictures import draw_into_readme, flowchart

DAG = "the DAG, drawn from dags/nightly.py"


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
    return flowchart(["flowchart LR", *shapes, *arrows])


if __name__ == "__main__":
    from tests.dags.inside import graph

    (surface, *_) = graph("nightly.py").values()
    draw_into_readme(DAG, draw(surface["tasks"]))
