"""The nightly DAG: each task calls one verb of the command ``nightrec``, for one explicit data date."""

import signal
import subprocess
from datetime import UTC, date, datetime, timedelta
from types import FrameType
from typing import Any, NoReturn

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowFailException

PARAMS = {
    "config": Param("/job/job.toml", type="string", description="The config of the surface, where workers see it."),
    "date": Param(None, type=["null", "string"], format="date", description="The data date; empty: the day before."),
}
VERBS = ("prepare", "items", "index", "interests", "score", "check", "publish")
NOT_RETRIED = {2, 3, 4}  # wrong usage, refused by a gate, wrong input: another try changes nothing


def data_date(params: dict[str, Any], logical_date: datetime | None) -> str:
    """Take the data date that was asked for, or the day before the run's logical date; never "now"."""
    if params["date"]:
        return date.fromisoformat(params["date"]).isoformat()
    if logical_date is None:
        raise AirflowFailException('this run has no logical date: trigger it with {"date": "YYYY-MM-DD"}')
    return (logical_date.astimezone(UTC).date() - timedelta(days=1)).isoformat()


def call(verb: str, context: dict[str, Any]) -> None:
    """Run one verb; a stop that is asked of the task is passed on, so that the run stays resumable."""
    params = context["params"]
    day = data_date(params, context.get("logical_date"))
    process = subprocess.Popen(["nightrec", verb, "--config", params["config"], "--date", day])

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        process.terminate()
        process.wait()
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    code = process.wait()
    if code in NOT_RETRIED:
        raise AirflowFailException(f"nightrec {verb} ended with exit code {code}; its message stands in the log")
    if code != 0:
        raise RuntimeError(f"nightrec {verb} ended with exit code {code}; it is tried again, from where it stopped")


@dag(
    schedule="0 3 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    default_args={"retries": 12, "retry_delay": timedelta(minutes=10)},
)
def nightly() -> None:
    """Draw ``prepare -> items -> index``, ``prepare -> interests``, and then ``score -> check -> publish``."""

    @task
    def step(verb: str, **context: Any) -> None:
        call(verb, context)

    verbs = {verb: step.override(task_id=verb)(verb) for verb in VERBS}
    verbs["prepare"] >> [verbs["items"], verbs["interests"]]
    verbs["items"] >> verbs["index"]
    [verbs["index"], verbs["interests"]] >> verbs["score"] >> verbs["check"] >> verbs["publish"]


nightly()
