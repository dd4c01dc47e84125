"""The report on the work, of nights with many shards."""

from types import SimpleNamespace
from typing import Any, cast

from release.page import Chart, Table
from release.report_work import work
from release.subject import Subject

SHARDS = 1_201


def test_of_very_many_shards_neighbours_are_drawn_as_one_bar() -> None:
    """1,202 bars would be too many: of each step three neighbours become one, and nothing of their work is lost."""
    spans = [
        {"shard": shard, "began": 100.0 + shard, "seconds": 1.0, "rows": 10, "memory": 2**30 if shard == 1 else 2**29}
        for shard in range(SHARDS)
    ]
    entry: dict[str, Any] = {"began": 100.0, "seconds": 1201.0, "rows": 10 * SHARDS, "shards": SHARDS, "memory": 2**30}
    items = {"began": 90.0, "seconds": 10.0, "rows": 500, "shards": 1, "memory": 2**28, "spans": []}
    subject = SimpleNamespace(timings={"items": [items], "score": [{**entry, "spans": spans}]})

    parts = work(cast("Subject", subject))

    (chart,) = (part for part in parts if isinstance(part, Chart))
    rows = cast("Table", chart.table).rows
    assert [row[0] for row in rows[:2]] == ["items", "score, 3 shards"]
    assert rows[-1][0] == "score, shard 1200"
    assert len(rows) == 1 + 401
    assert rows[0][1:] == (0.0, 10.0, 500, 50, 0.25)
    assert rows[1][1:] == (10.0, 13.0, 30, 10, 1.0)  # its memory is that of the greatest among them
    assert rows[-1][1:] == (1210.0, 1211.0, 10, 10, 0.5)
    assert sum(cast("int", row[3]) for row in rows[1:]) == 10 * SHARDS
    assert "Neighbouring shards are drawn together" in chart.says
