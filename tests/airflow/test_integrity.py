"""The DAGs as Airflow itself sees them, before any night."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.airflow.server import REPOSITORY
from tests.airflow.surfaces import Stage
from tests.dags.picture import DAG, draw
from tests.pictures import README, drawn_in

pytestmark = pytest.mark.airflow


@pytest.mark.proves("integrity", "Every config has its DAG and its consumer; no import errors, no warnings.")
def test_every_dag_is_there_without_an_error(stage: Stage, record_property: Callable[[str, object], None]) -> None:
    wanted = {dag for name in stage.surfaces() for dag in (stage.surface(name).dag, stage.surface(name).consumer)}
    for dag in wanted:
        stage.airflow.known(dag)

    dags = stage.airflow.call("GET", "/api/v2/dags?limit=100")["dags"]
    record_property("parse_seconds", round(max(dag["last_parse_duration"] for dag in dags), 3))
    assert {dag["dag_id"] for dag in dags} == wanted
    assert stage.airflow.call("GET", "/api/v2/importErrors")["import_errors"] == []
    assert stage.airflow.call("GET", "/api/v2/dagWarnings")["dag_warnings"] == []


@pytest.mark.proves("integrity", "ruff's rules for Airflow 3 hold.")
def test_nothing_of_airflow_2_is_left() -> None:
    ruff = Path(sys.executable).with_name("ruff")

    checked = subprocess.run(
        [ruff, "check", "--select", "AIR", "dags"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stdout


@pytest.mark.proves("integrity", "Python warns of nothing while the DAG files are read.")
def test_python_warns_of_nothing(stage: Stage) -> None:
    dags = REPOSITORY / "dags"
    code = f"""
from airflow.dag_processing.dagbag import BundleDagBag
bag = BundleDagBag(dag_folder={str(dags)!r}, bundle_path={str(dags)!r}, bundle_name="dags-folder")
print(len(bag.dags), bag.import_errors, bag.captured_warnings)
"""

    said = stage.airflow.python("-c", code)

    assert said.splitlines()[-1] == f"{2 * len(stage.surfaces())} {{}} {{}}"


@pytest.mark.proves("integrity", "The graph of each DAG is the one that is drawn in the README.")
def test_the_graph_is_the_one_in_the_readme(stage: Stage) -> None:
    for name in stage.surfaces():
        tasks = stage.airflow.call("GET", f"/api/v2/dags/{stage.surface(name).dag}/tasks")["tasks"]
        drawn = draw(
            {task["task_id"]: {"next": task["downstream_task_ids"], "mapped": task["is_mapped"]} for task in tasks}
        )

        assert drawn == drawn_in(README.read_text("utf-8"), DAG)
