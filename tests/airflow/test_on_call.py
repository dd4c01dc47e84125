"""docs/operations.md: the commands of Airflow, as the page has them and in its order; tests/night runs the others."""

from concurrent.futures import Future
from concurrent.futures import wait as ended

import pytest

from tests.airflow.conftest import Night
from tests.airflow.server import wait
from tests.airflow.surfaces import Stage
from tests.blocks import commands_of

pytestmark = pytest.mark.airflow
LOCKED = "database is locked"  # SQLite: another writer came between; nothing was done


@pytest.mark.proves("runbook", "Airflow's commands in docs/operations.md do what the page says.")
def test_the_commands_of_the_runbook(stage: Stage, nights: dict[Night, Future[None]]) -> None:
    ended(nights.values())
    airflow, surface = stage.airflow, stage.surface("job")
    airflow.known(surface.dag)

    for command in commands_of(__file__):
        if (
            command.words[1] == "backfill"
        ):  # a person looks at one thing after the other; on SQLite they get in their way
            (manual,) = (run["dag_run_id"] for run in airflow.runs(surface.dag) if run["run_type"] == "manual")
            airflow.succeeded(surface.dag, manual)
        wait(command.line, lambda words=command.words: _run(stage, words[1:]))

    try:
        runs = {run["run_type"]: run for run in airflow.runs(surface.dag)}
        assert runs["manual"]["conf"] == {"date": "2026-03-30"}
        assert len([run for run in airflow.runs(surface.dag) if run["run_type"] == "backfill"]) == 2
        assert airflow.call("GET", "/api/v2/pools/nightrec_gpu")["slots"] == 1
        assert airflow.call("GET", "/api/v2/variables/nightrec_webhook")["value"].endswith("/hooks/another-secret")
        airflow.succeeded(surface.dag, runs["manual"]["dag_run_id"])
        assert surface.latest()[:10] == "2026-03-30"
    finally:
        airflow.call("PATCH", f"/api/v2/dags/{surface.dag}?update_mask=is_paused", {"is_paused": True})
        stage.tell(stage.webhook.address)


def _run(stage: Stage, words: tuple[str, ...]) -> bool:
    try:
        stage.airflow.command(*words)
    except AssertionError as error:
        if LOCKED not in str(error):
            raise
        return False
    return True
