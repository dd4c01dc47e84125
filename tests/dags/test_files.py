"""What the DAG files import and ask, read from their source: no Airflow is needed for it."""

import ast
import sys
from pathlib import Path

import pytest

DAGS = Path(__file__).parents[2] / "dags"
PARSED = sorted([*DAGS.glob("*.py"), *(DAGS / "night").glob("*.py")])
ON_DEMAND = {"container.py": {"airflow.providers.docker", "docker"}, "pod.py": {"airflow.providers.cncf", "kubernetes"}}


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("path", PARSED, ids=lambda path: path.name)
def test_a_dag_needs_the_standard_library_and_the_task_sdk_alone(path: Path) -> None:
    """It is parsed every few seconds, in an environment without our packages; a provider has a module of its own."""
    allowed = {"airflow.sdk", "night"} | ON_DEMAND.get(path.name, set())

    strangers = {
        name
        for name in imported(path)
        if name.split(".")[0] not in sys.stdlib_module_names
        and not any(name == known or name.startswith(f"{known}.") for known in allowed)
    }

    assert strangers == set()


def test_the_settings_and_the_command_know_no_airflow() -> None:
    for name in ("settings.py", "command.py"):
        assert not {module for module in imported(DAGS / "night" / name) if module.startswith("airflow")}


@pytest.mark.parametrize("path", PARSED, ids=lambda path: path.name)
def test_no_day_is_taken_from_the_clock(path: Path) -> None:
    """The data date is explicit; the one clock that is read says when to look again for a day that is not there."""
    calls = [
        node.func.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]

    clocks = [name for name in calls if name in {"now", "utcnow", "today", "time", "localtime"}]
    assert clocks == (["now"] if path.name == "step.py" else [])
