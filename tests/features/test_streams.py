"""Streams: users are counted however their rows are cut into batches."""

import pyarrow as pa
import pytest

from features.streams import COUNTS, EventStream, counted


def batches(*parts):
    for part in parts:
        yield pa.RecordBatch.from_pydict({"u": pa.array(part, pa.int64())})


@pytest.mark.parametrize(
    "parts",
    [
        [[2, 2, 5, 5, 5, 5, 9]],
        [[2, 2, 5], [5], [5, 5, 9]],
        [[2], [2, 5, 5], [], [5, 5], [9], []],
        [[], [2, 2], [5, 5, 5, 5], [9]],
    ],
)
def test_who_goes_on_in_the_next_batch_is_counted_once(parts):
    """Two rows of user 2, four of 5 and one of 9, in whatever batches they come."""
    counts = pa.Table.from_batches(counted(batches(*parts)), schema=COUNTS)
    assert counts.to_pydict() == {"u": [2, 5, 9], "events": [2, 4, 1]}


@pytest.mark.parametrize("parts", [[], [[]]])
def test_without_rows_nobody_is_counted(parts):
    assert pa.Table.from_batches(counted(batches(*parts)), schema=COUNTS).num_rows == 0


def test_counts_are_taken_user_range_by_user_range():
    """The users below 5, below 6 and below 10, of batches that are cut elsewhere."""
    counts = EventStream(counted(batches([2, 2, 5], [5, 7, 9], [9, 11])), COUNTS)
    taken = [counts.before(stop).to_pydict() for stop in (5, 6, 10)]
    assert taken == [{"u": [2], "events": [2]}, {"u": [5], "events": [2]}, {"u": [7, 9], "events": [1, 2]}]
