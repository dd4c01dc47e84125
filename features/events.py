"""Events as a stream of record batches, out of interactions or out of ready-made histories: one shape for both."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from artifacts.errors import InputError
from features.encode import list_parts
from features.inputs import Inputs, Source, read_batches
from features.times import to_micros
from features.types import widen
from features.weights import Weighing, weights_of


def event_schema(user_id: pa.DataType, item_id: pa.DataType, *, weighed: bool = False) -> pa.Schema:
    """The columns of :func:`read_events`; each may be null where the files have a null, but for the weight."""
    weight = [("weight", pa.float32())] if weighed else []
    return pa.schema([("user_id", user_id), ("item_id", item_id), ("time_us", pa.int64()), *weight])


def read_events(
    inputs: Inputs, weighing: Weighing | None = None, files: Sequence[Path] | None = None
) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
    """Stream all events in the order of the files: ``user_id``, ``item_id``, ``time_us`` (microseconds UTC).

    Beside each batch come the users whose ready-made history is empty: they have no event, but are users.

    Args:
        inputs: The tables.
        weighing: With it comes a fourth column, ``weight``; of interactions alone.
        files: Those that are read; all if None.

    Raises:
        InputError: If a file is damaged, a time or a weight is out of range, or the lists of a user differ in length.
    """
    if inputs.behaviours == "histories":
        yield from _unfolded(inputs, files)
        return
    source = inputs.sources["interactions"]
    more = weighing.names if weighing else []
    for path, batch in read_batches(source, ["user_id", "item_id", "time", *more], files):
        users, items = widen(batch.column("user_id")), widen(batch.column("item_id"))
        times = _micros(path, source, "time", batch.column("time"), inputs.naive_zone)
        weights = [weights_of(path, source, batch, weighing)] if weighing else []
        schema = event_schema(users.type, items.type, weighed=weighing is not None)
        yield pa.RecordBatch.from_arrays([users, items, times, *weights], schema=schema), users.slice(0, 0)


def read_times(inputs: Inputs) -> Iterator[pa.Array]:
    """Stream when the events happened, int64 microseconds UTC; reads no other column.

    Raises:
        InputError: If a file is damaged or a time is out of range.
    """
    name = "time" if inputs.behaviours == "interactions" else "times"
    source = inputs.sources[inputs.behaviours]
    for path, batch in read_batches(source, [name]):
        times = batch.column(name) if name == "time" else list_parts(batch.column(name))[1]
        yield _micros(path, source, name, times, inputs.naive_zone)


def _unfolded(inputs: Inputs, files: Sequence[Path] | None) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
    source = inputs.sources["histories"]
    for path, batch in read_batches(source, ["user_id", "item_ids", "times"], files):
        lengths, items = list_parts(batch.column("item_ids"))
        time_lengths, times = list_parts(batch.column("times"))
        if (wrong := np.flatnonzero(lengths != time_lengths)).size:
            row = int(wrong[0])
            raise InputError(
                f"{path}: user {batch.column('user_id')[row]} has {lengths[row]} items in column "
                f"{source.columns['item_ids']}, but {time_lengths[row]} times in {source.columns['times']}; "
                "expected one time for each item"
            )
        owners = widen(batch.column("user_id"))
        users = owners.take(pa.array(np.repeat(np.arange(len(lengths)), lengths)))
        items = widen(items)
        micros = _micros(path, source, "times", times, inputs.naive_zone)
        events = pa.RecordBatch.from_arrays([users, items, micros], schema=event_schema(users.type, items.type))
        yield events, owners.filter(pa.array(lengths == 0)).drop_null()


def _micros(path: Path, source: Source, name: str, times: pa.Array, naive_zone: str) -> pa.Array:
    try:
        return to_micros(times, naive_zone=naive_zone, unit=source.time_unit)
    except ValueError as error:
        raise InputError(f"{path}: column {source.columns[name]}: {error}") from error
