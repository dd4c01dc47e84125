"""How `score` cuts the tables of a shard into batches of users."""

from collections import deque
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from artifacts import schemas, tables
from artifacts.tables import reading_table, writing_table
from batch.score import _parts

ROWS, WIDTH, HELD = 1024, 64, 7  # users of a record batch; d; parts that are still in work while others are read


def write_users(folder: Path, users: int) -> list[Path]:
    """Tables of interests, four of each user, and of what they had: item 7."""
    ids = pa.array(np.arange(users))
    vectors = np.arange(users * 4 * WIDTH, dtype=np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors), WIDTH)
    ones = [pa.array([[7]] * users, schemas.seen(pa.int64()).field(name).type) for name in ("items", "times")]
    made = {
        "interests": pa.table(
            [
                ids,
                pa.ListArray.from_arrays(np.arange(users + 1, dtype=np.int32) * 4, lists),
                pa.array(np.full(users, 20, np.int32)),
                pa.array(np.zeros(users, bool)),
            ],
            schema=schemas.interests(pa.int64(), WIDTH),
        ),
        "seen": pa.table([ids, *ones, pa.array([[7]] * users)], schema=schemas.seen(pa.int64())),
    }
    for name, table in made.items():
        with writing_table(folder / f"{name}-{users}.arrow", table.schema, metadata={}, inputs="") as writer:
            writer.write(table)
    return [folder / f"{name}-{users}.arrow" for name in made]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BATCH_ROWS", ROWS)


class Watched:
    """A reader that notes how much memory Arrow holds whenever a record batch is asked of it."""

    def __init__(self, reader: pa.RecordBatchFileReader) -> None:
        """Read from *reader*."""
        self.num_record_batches = reader.num_record_batches
        self.allocated: list[int] = []
        self._reader = reader

    def get_batch(self, number: int) -> pa.RecordBatch:
        """Note, then read."""
        self.allocated.append(pa.total_allocated_bytes())
        return self._reader.get_batch(number)


def test_parts_are_all_rows_in_order(tmp_path: Path) -> None:
    """Parts hold each user once, in order, with their own vectors, across record batches and into the last one."""
    paths = write_users(tmp_path, 2 * ROWS + 100)
    with ExitStack() as stack:
        parts = list(_parts(paths, [stack.enter_context(reading_table(path)) for path in paths], None, 200))

    interests = pa.Table.from_batches([part.interests for part in parts])
    assert max(part.interests.num_rows for part in parts) == 200
    assert interests["user_id"].to_pylist() == list(range(2 * ROWS + 100))
    vectors = interests["vectors"].combine_chunks().flatten().flatten().to_numpy()
    assert np.array_equal(vectors, np.arange((2 * ROWS + 100) * 4 * WIDTH, dtype=np.float32))
    assert pa.Table.from_batches([part.seen for part in parts])["user_id"].equals(interests["user_id"])


def test_a_record_batch_is_gone_before_the_next_is_read(tmp_path: Path) -> None:
    """While the last parts of a record batch are still in work the next is read, and only these parts are held."""
    paths = write_users(tmp_path, 3 * ROWS)
    with ExitStack() as stack:
        readers = [Watched(stack.enter_context(reading_table(path))) for path in paths]
        held = deque(_parts(paths, readers, None, 16), maxlen=HELD)

    first, *later = readers[0].allocated
    assert len(held) == HELD
    assert len(later) == 2
    assert max(later) - first < ROWS * 4 * WIDTH * 4 / 4
