"""An earlier night's events, carried on: they lie in order, so only what is new is read and put between them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from artifacts import schemas
from features.streams import EVENTS, EventStream, Rows

Columns = list[NDArray[Any]]  # u, item, time_us


@dataclass(frozen=True, slots=True)
class WhatWasRead:
    """What a night says of its behaviours, so that the next can carry them on.

    Attributes:
        files: What was counted in each file of behaviours.
        excluded: The excluded users who had done something, ascending: none of their events is kept.
    """

    files: Mapping[Path, Mapping[str, int]]
    excluded: pa.Array


@dataclass(frozen=True, slots=True)
class Carried:
    """All events that an earlier night kept, in the order of its users: by shard, then id.

    Attributes:
        now_us: The end of its data date; of its files it left out what happened from then on.
        files: Of its files, which tonight has too, by tonight's path: what it counted in them.
        of_excluded_users: How many of their events it dropped since the user is excluded.
        with_excluded_items: How many others it dropped since the item is excluded.
        item_ids: The items of its events, ascending.
        users: Its users who did something, as ``schemas.carried_users``; and, with 0 events, the excluded ones who did.
        events: As ``schemas.carried_events``, user after user: newest first, then greatest item id.
        rows: How many they are.
    """

    now_us: int
    files: Mapping[Path, Mapping[str, int]]
    of_excluded_users: int
    with_excluded_items: int
    item_ids: pa.Array
    users: Iterator[pa.RecordBatch]
    events: Iterator[pa.RecordBatch]
    rows: int


def carry_on(
    owners: Iterator[pa.RecordBatch],
    events: Iterator[pa.RecordBatch],
    items: NDArray[np.int32],
    fresh: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """Put fresh events between carried ones; gives all as ``EVENTS``, by u, then newest first, then greatest item.

    Args:
        owners: ``u`` and ``events`` of each user with carried events, ascending by u.
        events: The carried events, as ``schemas.carried_events``.
        items: Tonight's row of each carried item, ascending.
        fresh: The others, as ``EVENTS`` and in their order.
    """
    carried, others = Rows(events, schemas.carried_events()), EventStream(fresh)
    for batch in owners:
        u, counts = (batch.column(name).to_numpy() for name in ("u", "events"))
        rows = carried.take(int(counts.sum()))
        old = [np.repeat(u, counts), items[rows.column("item").to_numpy()], rows.column("time_us").to_numpy()]
        new = others.before(int(u[-1]) + 1 if len(u) else 0)
        columns = _merged(u, counts, old, [new.column(name).to_numpy() for name in EVENTS.names])
        yield pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=EVENTS)
    yield from others.rest()


def _merged(users: NDArray[np.int64], counts: NDArray[np.int64], old: Columns, new: Columns) -> Columns:
    """Sort new events among the old ones that are not older than they; what is older lies behind them as it did."""
    if not len(new[0]):
        return old
    last = np.flatnonzero(np.append(new[0][1:] != new[0][:-1], True))  # of each user's new ones, the oldest
    place = np.minimum(np.searchsorted(new[0][last], users), len(last) - 1)
    since = np.where(new[0][last][place] == users, new[2][last][place], np.iinfo(np.int64).max)
    among = old[2] >= np.repeat(since, counts)
    u, item, time_us = both = [np.concatenate([was[among], now]) for was, now in zip(old, new, strict=True)]
    order = np.lexsort((-item, -time_us, u))
    behind = [was[~among] for was in old]
    before = np.searchsorted(behind[0], u[order])
    return [np.insert(was, before, now[order]) for was, now in zip(behind, both, strict=True)]
