"""Bad nights: each is refused once, nothing of it is published, and nobody is told of a new release."""

import json

import pyarrow.parquet as pq

from tests.airflow.surfaces import Stage, Surface
from tests.night.shop import DATE

DAY_BEFORE = "2026-03-30"


def bad_catalogue(stage: Stage) -> None:
    """A catalogue cut to a third: check fails once, is not retried, nothing is published, the consumer does not run."""
    surface = stage.open("cut")
    good = stage.airflow.trigger(surface.dag, conf={"date": DAY_BEFORE})
    stage.airflow.succeeded(surface.dag, good)
    items = surface.store.parent / "items.parquet"
    table = pq.read_table(items)
    pq.write_table(table.slice(0, table.num_rows // 3), items)

    because = ["items_lost: 0.6", "expected at most 0.2", "is the catalogue whole?"]
    _refused(stage, surface, "check", because, after=[DAY_BEFORE])


def missing_day(stage: Stage) -> None:
    """Interactions without the last day, past the deadline: prepare fails once, nothing is published."""
    surface = stage.open("gap")

    because = [
        "interactions: the newest event is of 2026-03-30 20:56:59 UTC",
        "more than 86400 s before the end of 2026-03-31",
        "wait for the day's files",
    ]
    _refused(stage, surface, "prepare", because, after=[])


def model_of_the_future(stage: Stage) -> None:
    """A night before the last day that its models were trained on is refused, and not tried again."""
    surface = stage.open("future")

    _refused(stage, surface, "prepare", ["2026-03-01", "2026-02-20"], after=[], date="2026-02-20")


def _refused(
    stage: Stage, surface: Surface, step: str, because: list[str], *, after: list[str], date: str = DATE
) -> None:
    """Run the night of *date*, and see that it is refused once and nothing more happens.

    Args:
        stage: What all nights share.
        surface: Of the night.
        step: That is to refuse it.
        because: What people are told in the log, by the webhook, in the task's note and in its XCom ``error``.
        after: Dates of the releases that were there before, and stay.
        date: The data date.
    """
    run = stage.airflow.trigger(surface.dag, conf={"date": date})
    assert stage.airflow.ended(surface.dag, run) == "failed"
    refusing = stage.airflow.task(surface.dag, run, step)
    assert (refusing["state"], refusing["try_number"]) == ("failed", 1)
    assert stage.airflow.task(surface.dag, run, "publish")["state"] == "upstream_failed"
    assert [release[:10] for release in surface.releases()] == after
    assert surface.latest()[:10] == (after[-1] if after else "")
    assert [version[:10] for version in stage.consumed(surface, len(after))] == after

    (called,) = stage.called(surface, run)
    assert (called["state"], called["task_id"]) == ("failed", step)
    log = stage.airflow.log(surface.dag, run, step)
    error = json.dumps(stage.airflow.result(surface.dag, run, step, key="error"))
    note = stage.airflow.note(surface.dag, run, step)
    for part in because:
        assert part in log
        assert part in note
        assert part in called["text"]
        assert part in error
