"""What all the nights before left in Airflow's database."""

import sqlite3
from collections.abc import Callable

import pytest

from tests.airflow.surfaces import Stage

pytestmark = pytest.mark.airflow
LIMIT = 1_000  # bytes


@pytest.mark.proves("xcom", "Every XCom of every night, in the database itself, is under 1,000 bytes.")
def test_what_tasks_hand_on_is_small(stage: Stage, record_property: Callable[[str, object], None]) -> None:
    database = sqlite3.connect(f"file:{stage.airflow.home}/airflow.db?mode=ro", uri=True)
    try:
        sizes = database.execute("select length(cast(value as blob)), dag_id, task_id, key from xcom").fetchall()
    finally:
        database.close()

    record_property("xcom_bytes", max(sizes)[0])
    assert [row for row in sizes if row[0] >= LIMIT] == []
    assert {row[2] for row in sizes} >= {"prepare", "items", "index", "interests", "score", "check", "publish"}
