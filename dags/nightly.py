"""The nightly DAG, one for each config: every task calls one verb of ``nightrec``, for one explicit data date."""

import os
from datetime import UTC, datetime, time
from functools import partial

from airflow.sdk import DAG, CronDataIntervalTimetable, Param
from night.settings import Surface, read_surfaces
from night.step import asked_date, prepared, step

PARAMS = {
    "date": Param(None, type=["null", "string"], format="date", description="The data date; empty: by the schedule."),
    "seen_future": Param("", type="string", description="Why a model that was trained on later days may be used."),
    "supersede": Param("", type="string", description="Why another release of the same date may be replaced."),
}
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def night(surface: Surface) -> DAG:
    """Make the DAG of a surface, without its tasks: when it runs, and what a person may say to it."""
    cron = surface.texts["SCHEDULE"]
    return DAG(
        surface.dag_id,
        description=f"The night of {surface.name}: from the day's events to one release",
        schedule=None if cron == "none" else CronDataIntervalTimetable(cron, surface.texts["TIMEZONE"]),
        start_date=datetime.combine(surface.start, time(), surface.zone) if surface.start else LONG_AGO,
        catchup=surface.start is not None,
        max_active_runs=4,  # a night that waits for its day does not hold the next, or one that is started by hand
        params=PARAMS,
        user_defined_macros={"data_date": partial(asked_date, surface, PARAMS), "prepared": prepared},
        tags=["nightrec"],
    )


for surface in read_surfaces(os.environ, os.listdir):
    with night(surface):
        prepare, items, index = step("prepare", surface), step("items", surface), step("index", surface)
        interests, score = step("interests", surface), step("score", surface)
        check, publish = step("check", surface), step("publish", surface)

        prepare >> items >> index
        prepare >> interests
        [index, interests] >> score >> check >> publish
