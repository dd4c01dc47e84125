"""Streams of record batches, taken part by part: so many rows, or all of the users before one; or counted by user."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

EVENTS = pa.schema([("u", pa.int64()), ("item", pa.int32()), ("time_us", pa.int64())])
COUNTS = pa.schema([("u", pa.int64()), ("events", pa.int64())])


class Rows:
    """Rows of a stream, taken in order."""

    def __init__(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
        """Take from *batches*, of *schema*, each as late as it can be."""
        self._batches = batches
        self._schema = schema
        self._held: list[pa.RecordBatch] = []

    def take(self, rows: int) -> pa.Table:
        """Take the next *rows*, or what is left."""
        held = sum(batch.num_rows for batch in self._held)
        while held < rows and self._fetch():
            held += self._held[-1].num_rows
        return self._cut(min(rows, held))

    def rest(self) -> Iterator[pa.RecordBatch]:
        """Give what is left, batch by batch."""
        yield from self._held
        self._held = []
        yield from self._batches

    def _fetch(self) -> bool:
        """Hold one batch more, if there is one."""
        for batch in self._batches:
            if batch.num_rows:
                self._held.append(batch)
                return True
        return False

    def _cut(self, rows: int) -> pa.Table:
        whole = pa.Table.from_batches(self._held, schema=self._schema)
        self._held = [batch for batch in whole.slice(rows).to_batches() if batch.num_rows]
        return whole.slice(0, rows)


class EventStream(Rows):
    """Events, or other rows of users, in the order of u, taken user range by user range."""

    def __init__(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema = EVENTS) -> None:
        """Take from *batches* of *schema*, which has a column ``u``."""
        super().__init__(batches, schema)

    def before(self, stop: int) -> pa.Table:
        """Take what is left of the users before *stop*."""
        while (not self._held or self._held[-1].column("u")[-1].as_py() < stop) and self._fetch():
            pass
        *whole, last = self._held or [None]
        if last is None:
            return self._cut(0)
        cut = int(np.searchsorted(last.column("u").to_numpy(), stop))
        return self._cut(sum(batch.num_rows for batch in whole) + cut)


def counted(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Count the rows of each user who has any, of a stream in the order of u; gives ``COUNTS`` in that order."""
    users, events = np.empty(0, np.int64), np.empty(0, np.int64)
    for batch in batches:
        found, rows = np.unique(batch.column("u").to_numpy(), return_counts=True)
        if len(users) and len(found) and users[0] == found[0]:  # who was last in one batch goes on in the next
            rows[0] += events[0]
            users, events = found, rows
        else:
            users, events = np.append(users, found), np.append(events, rows)
        yield _counts(users[:-1], events[:-1])
        users, events = users[-1:], events[-1:]
    yield _counts(users, events)


def _counts(users: NDArray[np.int64], events: NDArray[np.int64]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(users), pa.array(events)], schema=COUNTS)
