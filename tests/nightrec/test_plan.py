"""The plan: what it counts and how its estimates grow."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.inputs import Inputs, Source
from nightrec.inputs import count_inputs
from nightrec.plan import Means, Workload, estimate, total
from nightrec.values import bytes_of

SIZES = Workload(
    events=4_000_000, users=200_000, items=200_000, features=2, history=20, interests=4, width=64, ranked=True
)
MEANS = Means(cores=2, workers=1, memory=4_000_000_000, index_type="Flat", candidates=100, top_n=50)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4_000_000_000), ("1KiB", 1024), ("512 MiB", 512 * 1024**2), ("1.5GB", 1_500_000_000), ("70B", 70)],
)
def test_sizes_are_read_as_duckdb_reads_them(text: str, size: int) -> None:
    """GB are thousands, GiB are 1024."""
    assert bytes_of(text) == size


def test_the_night_is_the_sum_of_its_steps() -> None:
    """Disk and minutes add up, memory is the highest peak."""
    *steps, night = estimate(SIZES, MEANS)

    assert night.disk == sum(step.disk for step in steps)
    assert night.minutes == pytest.approx(sum(step.minutes for step in steps))
    assert night.memory == max(step.memory for step in steps)


def test_vectors_take_the_bytes_they_have() -> None:
    """200,000 items of 64 float32 are 51.2 MB, on disk and in a Flat index."""
    efforts = {effort.step: effort for effort in estimate(SIZES, MEANS)}

    assert efforts["items"].disk == 200_000 * 64 * 4
    assert efforts["index"].disk == 200_000 * 64 * 4
    assert efforts["score"].rows == 200_000 * 50


@pytest.mark.parametrize("more", [{"users": 400_000, "events": 8_000_000}, {"items": 400_000}, {"width": 128}])
def test_more_work_is_never_less_effort(more: dict[str, int]) -> None:
    """Doubling what goes in makes no step cheaper, and the night dearer."""
    before, after = estimate(SIZES, MEANS), estimate(replace(SIZES, **more), MEANS)  # type: ignore[arg-type]

    assert all(a.minutes >= b.minutes and a.disk >= b.disk for a, b in zip(after, before, strict=True))
    assert total(after)["minutes"] > total(before)["minutes"]


def test_no_users_are_no_error() -> None:
    """An empty day can be planned."""
    assert estimate(replace(SIZES, users=0, events=0, items=0), MEANS)


@pytest.mark.parametrize("lists", [False, True])
def test_events_are_counted_in_either_form(tmp_path: Path, lists: bool) -> None:
    """Rows of interactions and elements of ready-made histories are the same events; users of both tables count."""
    users = pa.array([1, 1, 2, 3], pa.int64())
    items = pa.array([10, 11, 10, 12], pa.int64())
    times = pa.array([0, 1, 2, 3], pa.timestamp("s", tz="UTC"))
    events = pa.table({"user": users, "item id": items, "time": times})
    if lists:
        events = events.group_by("user").aggregate([("item id", "list"), ("time", "list")])
        events = events.rename_columns(["user", "item id", "time"])
    pq.write_table(events, tmp_path / "events.parquet")
    pq.write_table(pa.table({"user_id": pa.array([3, 4, 5], pa.int64())}), tmp_path / "users.parquet")
    pq.write_table(pa.table({"item_id": pa.array([10, 11, 12], pa.int64())}), tmp_path / "items.parquet")
    names = ("item_ids", "times") if lists else ("item_id", "time")
    columns = {"user_id": "user", names[0]: "item id", names[1]: "time"}
    behaviours = Source(str(tmp_path / "events.parquet"), columns)
    inputs = Inputs(
        interactions=None if lists else behaviours,
        histories=behaviours if lists else None,
        users=Source(str(tmp_path / "users.parquet"), {"user_id": "user_id"}),
        items=Source(str(tmp_path / "items.parquet"), {"item_id": "item_id"}),
    )

    counted = count_inputs(inputs)

    assert (counted.events, counted.users, counted.items) == (4, 5, 3)
