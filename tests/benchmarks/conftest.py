"""A shop small enough to count by hand."""

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.quality import protocol
from benchmarks.quality.data import DataSet
from features.inputs import Inputs, Source

# user, item, day of March 2026, hour
EVENTS = [
    (1, 10, 1, 9), (1, 11, 1, 9), (1, 12, 2, 9), (1, 10, 11, 9), (1, 13, 11, 20), (1, 14, 12, 9),
    (2, 10, 3, 9), (2, 11, 3, 9), (2, 14, 13, 9),
    (3, 12, 12, 9),
    (4, 11, 9, 9), (4, 13, 9, 9),
]  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> DataSet:
    users, items, days, hours = zip(*EVENTS, strict=True)
    times = [datetime(2026, 3, day, hour, tzinfo=UTC) for day, hour in zip(days, hours, strict=True)]
    events = pa.table({"user_id": users, "item_id": items, "time": pa.array(times, pa.timestamp("us", tz="UTC"))})
    pq.write_table(events, tmp_path / "interactions.parquet")
    pq.write_table(pa.table({"item_id": [10, 11, 12, 13, 14, 15]}), tmp_path / "items.parquet")
    columns = {name: name for name in ("user_id", "item_id", "time")}
    inputs = Inputs(
        interactions=Source(f"{tmp_path}/interactions.parquet", columns),
        histories=None,
        users=None,
        items=Source(f"{tmp_path}/items.parquet", {"item_id": "item_id"}),
    )
    return DataSet("made", inputs, (), (), "UTC", date(2026, 3, 5), date(2026, 3, 11), date(2026, 3, 20))


@pytest.fixture
def part(made: DataSet) -> protocol.Part:
    return protocol.test(made)
