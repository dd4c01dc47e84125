"""An id that a person names is read, found in a table that ascends by it, or answered by those that are near."""

import pyarrow as pa
import pytest

from artifacts.errors import UsageError
from artifacts.lookup import batches_around, ids_beside, nearest_ids, typed_id

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


def test_an_id_is_read_as_the_tables_have_it() -> None:
    """Text stays as it is, digits too; a number must be one that fits."""
    assert typed_id("item", "007", pa.string()).as_py() == "007"
    assert typed_id("user", "7", pa.int64()) == pa.scalar(7, pa.int64())
    for said, kind in (("seven", pa.int64()), ("-1", pa.uint64()), ("9223372036854775808", pa.int64())):
        with pytest.raises(UsageError, match=f"item '{said}': the ids of items are {kind}, expected such a number"):
            typed_id("item", said, kind)


def test_the_nearest_ids_are_by_distance_or_by_common_beginning() -> None:
    """Three at most, the nearest first, and none twice."""
    assert nearest_ids(10, [4, 30, 11, 11, 12]) == [11, 12, 4]
    assert nearest_ids("item-07", ["item-1", "other", "item-08"]) == ["item-08", "item-1", "other"]
    assert nearest_ids(1, []) == []


def test_the_ids_beside_a_place() -> None:
    """One before and one behind, or the one that stands there; an end has one neighbour."""
    ids = pa.array([2, 4, 4, 9])

    assert ids_beside(ids, pa.scalar(5)) == [4, 9]
    assert ids_beside(ids, pa.scalar(1)) == [2, 4]
    assert ids_beside(ids, pa.scalar(99)) == [9]
