"""Nights that are started in every way: by hand, twice, as a backfill, again, and before their data is there."""

from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from artifacts.documents import read_json
from examples import demo
from tests.airflow.server import ENDED, ApiError, processes, wait
from tests.airflow.surfaces import Stage, ordinary_night, write_demo
from tests.night.shop import DATE, content_of, only_release

MODEL_STEPS = ("prepare", "items", "index", "interests", "score")


def whole_night(stage: Stage) -> None:
    """A whole night of the demo's data through the scheduler is released, with the bytes of `nightrec run`."""
    surface = stage.open("demo")
    run = stage.airflow.trigger(surface.dag, conf={"date": demo.DATE})
    beside = stage.folder / "beside"
    wanted = ordinary_night(write_demo(beside, "demo"), beside / "demo" / "store", demo.DATE)

    stage.airflow.succeeded(surface.dag, run)
    assert content_of(only_release(surface.store)) == wanted
    assert surface.latest() == only_release(surface.store).name
    assert [task["state"] for task in stage.airflow.tasks(surface.dag, run) if task["state"] != "success"] == []
    assert stage.consumed(surface, 1) == [surface.latest()]
    (called,) = stage.called(surface, run)
    assert called["state"] == "success"
    assert surface.latest() in stage.airflow.note(surface.dag, run, "publish")


def double_trigger(stage: Stage) -> None:
    """Two runs at once for one date: one release, the other says so; one slot of the GPU's pool; cleared: a no-op."""
    surface = stage.open("double")
    first = stage.airflow.trigger(surface.dag, dag_run_id="night-31", conf={"date": DATE})
    second = stage.airflow.trigger(surface.dag, run_after="2026-04-01T02:00:00+02:00")  # the date is by the rule
    with pytest.raises(ApiError) as again:
        stage.airflow.trigger(surface.dag, dag_run_id="night-31", conf={"date": DATE})
    assert again.value.status == 409

    runs = (first, second)
    for run in runs:
        stage.airflow.succeeded(surface.dag, run)
    results = {run: stage.airflow.result(surface.dag, run, "publish") for run in runs}
    (moved,) = (run for run in runs if results[run]["moved"])
    (idle,) = (run for run in runs if not results[run]["moved"])
    assert {result["date"] for result in results.values()} == {DATE}
    assert not results[idle]["stored"]
    assert "LATEST names it already" in stage.airflow.log(surface.dag, idle, "publish")
    assert content_of(only_release(surface.store)) == stage.wanted
    assert set(stage.consumed(surface, 1)) == {surface.latest()}  # said at least once
    _one_at_a_time([task for run in runs for task in stage.airflow.tasks(surface.dag, run)])

    before = surface.finished()
    stage.airflow.call(
        "POST", f"/api/v2/dags/{surface.dag}/dagRuns/{moved}/clear", {"dry_run": False, "only_failed": False}
    )
    wait("the cleared run runs", lambda: stage.airflow.runs(surface.dag)[runs.index(moved)]["state"] not in ENDED)
    stage.airflow.succeeded(surface.dag, moved)
    assert stage.airflow.task(surface.dag, moved, "publish")["try_number"] == 2
    assert surface.finished() == before
    assert content_of(only_release(surface.store)) == stage.wanted
    assert set(stage.consumed(surface, 1)) == {surface.latest()}


def backfill(stage: Stage) -> None:
    """A backfill of three days makes three releases, and LATEST ends on the newest."""
    surface = stage.open("backfill")
    asked = {
        "dag_id": surface.dag,
        "from_date": "2026-03-29T00:00:00+01:00",
        "to_date": "2026-03-31T12:00:00+02:00",
        "max_active_runs": 3,
    }

    def taken() -> Any:
        try:
            return stage.airflow.call("POST", "/api/v2/backfills", asked)
        except ApiError as error:
            if error.status != 503:  # SQLite: another writer came between its look and its write; nothing was made
                raise

    made = wait("the backfill is taken", taken)
    runs = [run for run in stage.airflow.runs(surface.dag) if run["run_type"] == "backfill"]
    assert len(runs) == 3, made
    for run in runs:
        stage.airflow.succeeded(surface.dag, run["dag_run_id"])
    days = ["2026-03-29", "2026-03-30", "2026-03-31"]
    assert [release[:10] for release in surface.releases()] == days
    assert surface.latest() == surface.releases()[-1]


def late_day(stage: Stage) -> None:
    """The schedule's own night waits without a slot while its day is not there, and is done when it arrives."""
    surface = stage.open("late")
    (run,) = wait("the night is scheduled", lambda: stage.airflow.runs(surface.dag))
    name = run["dag_run_id"]

    def waits() -> bool:
        return bool(stage.airflow.task(surface.dag, name, "prepare")["state"] == "up_for_reschedule")

    wait("the night waits", waits)
    assert processes("--config", str(surface.config)) == []
    night = datetime.fromisoformat(run["data_interval_end"]).astimezone(ZoneInfo("Europe/Berlin"))
    day = night.date() - timedelta(days=1)
    table = pq.read_table(stage.shop.data / "interactions.parquet")
    moved = pc.add(table["time"], pa.scalar(day - date.fromisoformat(DATE), pa.duration("s")))
    pq.write_table(table.set_column(2, "time", moved), surface.store.parent / "arriving.parquet")
    (surface.store.parent / "arriving.parquet").rename(surface.store.parent / "interactions.parquet")

    stage.airflow.succeeded(surface.dag, name)
    assert stage.airflow.task(surface.dag, name, "prepare")["try_number"] == 1
    assert read_json(only_release(surface.store) / "manifest.json")["date"] == day.isoformat()


def _one_at_a_time(tasks: list[dict[str, Any]]) -> None:
    """The pool has one slot: no model step starts before the one before it has ended."""
    spans = sorted((task["start_date"], task["end_date"]) for task in tasks if task["task_id"] in MODEL_STEPS)
    assert len(spans) == 2 * 7
    for (_, end), (start, _) in pairwise(spans):
        assert end <= start
