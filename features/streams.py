"""Streams of record batches, taken part by part: so many rows, or all that belongs to the users before one."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

EVENTS = pa.schema([("u", pa.int64()), ("item", pa.int32()), ("time_us", pa.int64())])


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
    """Events in the order of u, taken user range by user range."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        """Take from *batches* of ``EVENTS``."""
        super().__init__(batches, EVENTS)

    def before(self, stop: int) -> pa.Table:
        """Take what is left of the users before *stop*."""
        while (not self._held or self._held[-1].column("u")[-1].as_py() < stop) and self._fetch():
            pass
        *whole, last = self._held or [None]
        if last is None:
            return self._cut(0)
        cut = int(np.searchsorted(last.column("u").to_numpy(), stop))
        return self._cut(sum(batch.num_rows for batch in whole) + cut)
