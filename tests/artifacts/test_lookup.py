"""An id is found in a table that ascends by it, wherever it stands."""

import pyarrow as pa
import pytest

from artifacts.lookup import batches_around

IDS = [[1, 1, 3], [3, 3, 3], [3, 5, 8], [9, 9, 12]]  # one id may fill batches


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [(0, [0]), (1, [0]), (2, [0]), (3, [0, 1, 2]), (5, [2]), (8, [2, 3]), (9, [3]), (12, [3]), (13, [3])],
)
def test_the_batches_of_an_id_are_given(wanted: int, numbers: list[int]) -> None:
    """All that hold it, and, where there is none, the one that it would stand in."""
    schema = pa.schema([("user_id", pa.int64())])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for ids in IDS:
            writer.write_batch(pa.record_batch({"user_id": ids}))

    with pa.ipc.open_file(sink.getvalue()) as reader:
        found = list(batches_around(reader, "user_id", pa.scalar(wanted)))

    assert [number for number, _ in found] == numbers
    assert [batch["user_id"].to_pylist() for _, batch in found] == [IDS[number] for number in numbers]


def test_an_empty_table_has_none() -> None:
    """A shard without users has no batch."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, pa.schema([("user_id", pa.string())])):
        pass

    with pa.ipc.open_file(sink.getvalue()) as reader:
        assert list(batches_around(reader, "user_id", pa.scalar("u"))) == []
