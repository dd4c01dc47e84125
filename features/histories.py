"""Histories: what the models are told about each user, and all that each has had, shard by shard."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from artifacts import schemas
from artifacts.bundle import FeatureSpec
from features.carried import WhatWasRead
from features.day import data_day
from features.encode import behaviour_features, bucket_gaps, item_features, places
from features.inputs import Inputs
from features.ordered import Engine, Ordered, open_ordered, profile_columns
from features.streams import COUNTS, EventStream
from features.times import SECOND
from features.vocabulary import Vocabulary

CHUNK_USERS = 4_096
CHUNK_EVENTS = 131_072

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cut:
    """What the tables of a night depend on, besides the inputs.

    Attributes:
        date: The data date; nothing after it is read.
        zone: Time zone in which it ends.
        shards: Into how many shards the users are split.
        popular_days: How many days, the data date included, count for ``popular``.
        sample_users: How many users with behaviours, those of the smallest hashes, are in the sample.
    """

    date: date
    zone: str = "UTC"
    shards: int = 1
    popular_days: int = 30
    sample_users: int = 4_096


@dataclass(frozen=True, slots=True)
class Replayed:
    """A sample of the data date's users as they stood when it began; rows ascend by user id and go together.

    Attributes:
        histories: As ``schemas.histories``.
        seen: As ``schemas.seen``.
        happened: What they did on the data date, as ``schemas.happened``.
        popular: As ``schemas.popular``, of the days up to the one before the data date.
    """

    histories: pa.Table
    seen: pa.Table
    happened: pa.Table
    popular: pa.Table


@dataclass(frozen=True, slots=True)
class Histories:
    """Streams of the prepared tables; made by :func:`open_histories`.

    Attributes:
        counts: What was read, dropped and kept: ``interactions_read``, ``interactions_null``,
            ``interactions_future``, ``interactions_before_1970`` (not dropped), ``interactions_of_excluded_users``,
            ``interactions_with_excluded_items``, ``interactions`` (kept), ``interactions_uncatalogued`` (among them),
            ``gaps_negative``, ``users``, ``users_excluded``, ``users_cold``, ``users_NAME_unknown`` of each profile
            feature (null, never seen in training, or of a user who is not listed).
    """

    counts: dict[str, int]
    _ordered: Ordered
    _catalogue: pa.Table
    _features: Mapping[str, NDArray[np.int32]]
    _spec: FeatureSpec
    _events_of: pa.Table  # per item with events: item (row in item_ids), events, recent, recent_before
    _sample_users: int
    _began_us: int  # start of the data date

    def users(self, shard: int) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
        """Stream the users of *shard*, ascending by id, as ``schemas.histories`` and, row by row, ``schemas.seen``."""
        for users, behaviours in self._chunks(shard):
            ids, now_us = users.column("user_id"), self._ordered.now_us
            seen = [ids, *seen_lists(behaviours, now_us=now_us)]
            yield (
                self._history_batch(users, behaviours, now_us),
                pa.RecordBatch.from_arrays(seen, schema=schemas.seen(ids.type)),
            )

    def scanning(self) -> AbstractContextManager[None]:
        """Hold less while nothing is asked for but :meth:`users` and what is carried on."""
        return self._ordered.scanning()

    def sample(self) -> pa.Table:
        """Give the users with behaviours whose hashes are smallest, ascending by id, as ``schemas.histories``."""
        users, behaviours = self._sampled("warm")
        return pa.Table.from_batches([self._history_batch(users, behaviours, self._ordered.now_us)]).sort_by("user_id")

    def popular(self) -> pa.Table:
        """Count the events of the last days as ``schemas.popular``; items that are not eligible are counted too."""
        return self._popular("recent")

    def replay(self) -> Replayed:
        """Take the users of the data date whose hashes are smallest, as they stood when it began."""
        users, behaviours = self._sampled(f"events WHERE time_us >= {self._began_us}")
        before, after = behaviours.split(self._began_us)
        ids = users.column("user_id")
        seen = [ids, *seen_lists(before, now_us=self._began_us)]
        happened = [ids, seen_lists(after, now_us=self._ordered.now_us)[0]]
        histories = pa.Table.from_batches([self._history_batch(users, before, self._began_us)])
        return Replayed(
            histories.sort_by("user_id"),
            pa.table(seen, schema=schemas.seen(ids.type)).sort_by("user_id"),
            pa.table(happened, schema=schemas.happened(ids.type)).sort_by("user_id"),
            self._popular("recent_before"),
        )

    @property
    def read(self) -> WhatWasRead:
        """What the next night is told of the behaviours."""
        return self._ordered.read

    def carried_items(self) -> pa.Table:
        """Give every item of an event, as ``schemas.carried_items``."""
        ids = self._ordered.item_ids.take(self._events_of.column("item").combine_chunks())
        return pa.table([ids], schema=schemas.carried_items(ids.type))

    def carried_users(self) -> Iterator[pa.RecordBatch]:
        """Stream every user who did something, as ``schemas.carried_users``: with excluded items alone, 0 events."""
        counts = EventStream(self._ordered.stream("SELECT u, events FROM warm", CHUNK_EVENTS), COUNTS)
        for batch in self._ordered.stream("SELECT users.rowid AS u, user_id FROM users WHERE did", CHUNK_EVENTS):
            users, ids = batch.column("u").to_numpy(), batch.column("user_id")
            some = counts.before(int(users[-1]) + 1 if len(users) else 0)
            events = np.zeros(len(users), np.int64)
            events[np.searchsorted(users, some.column("u").to_numpy())] = some.column("events").to_numpy()
            yield pa.RecordBatch.from_arrays([ids, pa.array(events)], schema=schemas.carried_users(ids.type))

    def carried_events(self) -> Iterator[pa.RecordBatch]:
        """Stream every event, as ``schemas.carried_events``."""
        rows = np.empty(len(self._ordered.item_ids), np.int32)
        rows[self._events_of.column("item").to_numpy()] = np.arange(len(self._events_of), dtype=np.int32)
        for batch in self._ordered.stream("SELECT item, time_us FROM events", CHUNK_EVENTS):
            items = pa.array(rows[batch.column("item").to_numpy()])
            yield pa.RecordBatch.from_arrays([items, batch.column("time_us")], schema=schemas.carried_events())

    def _sampled(self, among: str) -> tuple[pa.RecordBatch, "Behaviours"]:
        """Take, of the users u *among* which to choose, those whose hashes are smallest, and all that they did."""
        users = self._ordered.query(f"""
            SELECT users.rowid AS u, user_id{self._profile} FROM users
            WHERE users.rowid IN (SELECT u FROM {among})
            ORDER BY hash, user_id LIMIT {self._sample_users}
        """).sort_by("u")
        rows = users.column("u").to_numpy()
        picked = ", ".join(map(str, rows.tolist())) or "-1"
        # A long IN list becomes a join, which does not keep the order of the table.
        events = self._ordered.query(
            f"SELECT u, item, time_us FROM events WHERE u IN ({picked}) ORDER BY u, time_us DESC, item DESC"
        )
        owners = np.searchsorted(rows, events.column("u").to_numpy())
        behaviours = self._behaviours(owners, events.drop_columns("u"), len(rows))
        named = users.drop_columns("u").combine_chunks()
        columns = [column.combine_chunks() for column in named.columns]
        return pa.RecordBatch.from_arrays(columns, names=named.column_names), behaviours

    def _popular(self, counted: str) -> pa.Table:
        rows = self._ordered.codes[self._events_of.column("item").to_numpy()]
        events = self._events_of.column(counted).to_numpy()
        there = (rows >= 0) & (events > 0)
        rows, events = rows[there], events[there]
        order = np.lexsort((rows, -events))
        ids = self._catalogue.column("item_id").combine_chunks().take(pa.array(rows[order]))
        return pa.table([ids, pa.array(rows[order]), pa.array(events[order])], schema=schemas.popular(ids.type))

    @property
    def _profile(self) -> str:
        return "".join(f", {column}" for column in profile_columns(self._spec))

    def _chunks(self, shard: int) -> Iterator[tuple[pa.RecordBatch, "Behaviours"]]:
        """Walk users and events side by side: both lie in the order of u."""
        first, end = (int(bound) for bound in self._ordered.bounds[shard : shard + 2])
        users = self._ordered.stream(f"SELECT user_id{self._profile} FROM users WHERE shard = {shard}", CHUNK_USERS)
        events = EventStream(
            self._ordered.stream(f"SELECT u, item, time_us FROM events WHERE u >= {first} AND u < {end}", CHUNK_EVENTS)
        )
        for batch in users:
            taken = events.before(first + batch.num_rows)
            yield batch, self._behaviours(taken.column("u").to_numpy() - first, taken, batch.num_rows)
            first += batch.num_rows

    def _behaviours(self, owners: Ints, events: pa.Table, users: int) -> "Behaviours":
        codes = self._ordered.codes[events.column("item").to_numpy()]
        return Behaviours(np.bincount(owners, minlength=users), codes, events.column("time_us").to_numpy())

    def _history_batch(self, users: pa.RecordBatch, behaviours: "Behaviours", now_us: int) -> pa.RecordBatch:
        spec = self._spec
        newest = behaviours.newest(spec.history_length)
        features = behaviour_features(newest.codes, self._features)
        features["gap"] = bucket_gaps((now_us - newest.times_us) // SECOND, spec.gap_edges)
        offsets = _offsets(newest.counts)
        lists = [_lists(offsets, values, pa.int32()) for values in features.values()]
        ids, *profile = users.columns
        schema = schemas.histories(ids.type, spec.item_features, spec.profile_features)
        lengths = pa.array(newest.counts.astype(np.int32))
        return pa.RecordBatch.from_arrays([ids, *lists, *profile, lengths], schema=schema)


@contextmanager
def open_histories(
    inputs: Inputs,
    *,
    catalogue: pa.Table,
    spec: FeatureSpec,
    vocabularies: Mapping[str, Vocabulary],
    cut: Cut,
    engine: Engine,
) -> Iterator[Histories]:
    """Read the behaviours once and give them shard by shard, in record batches; memory does not grow with users.

    The same rows come out whatever the order of files and rows, and whatever *engine* says.

    Args:
        inputs: The tables.
        catalogue: Of :func:`features.catalogue.encode_catalogue`.
        spec: The bundle's.
        vocabularies: By feature.
        cut: Data date, shards and the like.
        engine: Memory, threads, scratch folder, and what is carried on from an earlier night.

    Raises:
        InputError: If a table is wrong; the message names file and column.
        UsageError: If a feature has no column.
        NightrecError: If memory or disk do not suffice.
    """
    with open_ordered(
        inputs,
        catalogue=catalogue,
        spec=spec,
        vocabularies=vocabularies,
        until=cut.date,
        zone=cut.zone,
        shards=cut.shards,
        engine=engine,
    ) as ordered:
        since, before = (data_day(cut.date - timedelta(days=cut.popular_days + late), cut.zone)[1] for late in (0, 1))
        began = data_day(cut.date, cut.zone)[0]
        events_of = ordered.query(f"""
            SELECT item, count(*) AS events, count(*) FILTER (time_us >= {since}) AS recent,
                   count(*) FILTER (time_us >= {before} AND time_us < {began}) AS recent_before
            FROM events GROUP BY item ORDER BY item
        """)
        uncatalogued = ordered.codes[events_of.column("item").to_numpy()] < 0
        elsewhere = int(events_of.column("events").to_numpy()[uncatalogued].sum())
        counts = ordered.counts | {"interactions_uncatalogued": elsewhere}
        yield Histories(
            counts, ordered, catalogue, item_features(catalogue, spec), spec, events_of, cut.sample_users, began
        )


@dataclass(frozen=True, slots=True)
class Behaviours:
    """What some users did, user after user, newest first.

    Attributes:
        counts: Behaviours of each user, [users].
        codes: Catalogue rows, negative for items that are not in the catalogue, [sum of counts].
        times_us: When, aligned with *codes*.
    """

    counts: Ints
    codes: NDArray[np.int32]
    times_us: Ints

    def split(self, moment_us: int) -> tuple["Behaviours", "Behaviours"]:
        """Tell apart what was done before a moment and what was done from it on."""
        owners = np.repeat(np.arange(len(self.counts)), self.counts)

        def part(kept: NDArray[np.bool_]) -> "Behaviours":
            counts = np.bincount(owners[kept], minlength=len(self.counts))
            return Behaviours(counts, self.codes[kept], self.times_us[kept])

        earlier = self.times_us < moment_us
        return part(earlier), part(~earlier)

    def newest(self, length: int) -> "Behaviours":
        """Keep the newest *length* of each user."""
        kept = places(self.counts) < length
        return Behaviours(np.minimum(self.counts, length), self.codes[kept], self.times_us[kept])


def seen_lists(behaviours: Behaviours, *, now_us: int) -> tuple[pa.ListArray, pa.ListArray, pa.ListArray]:
    """Sum up what each user has had: the lists ``items``, ``times`` and ``last_gap`` of ``schemas.seen``."""
    users = np.repeat(np.arange(len(behaviours.counts)), behaviours.counts)
    known = behaviours.codes >= 0
    rows = behaviours.codes[known].astype(np.int64)
    span = int(rows.max(initial=0)) + 1
    keys, newest, times = np.unique(users[known] * span + rows, return_index=True, return_counts=True)
    offsets = _offsets(np.bincount(keys // span, minlength=len(behaviours.counts)))
    gaps = (now_us - behaviours.times_us[known][newest]) // SECOND
    return (
        _lists(offsets, (keys % span).astype(np.int32), pa.int32()),
        _lists(offsets, times.astype(np.int32), pa.int32()),
        _lists(offsets, gaps, pa.int64()),
    )


def _offsets(counts: Ints) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))


def _lists(offsets: pa.Array, values: NDArray[np.integer], kind: pa.DataType) -> pa.ListArray:
    return pa.ListArray.from_arrays(offsets, pa.array(values, kind), type=schemas.rows_of(kind))
