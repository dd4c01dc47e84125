"""Users' events: some users' at a time, whose each is, how often and when one had an item, and everybody; no torch."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from features.day import data_day
from features.encode import places
from features.mapped import blocks, joined
from features.sequences import Sequences

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
DAY_US = 86_400_000_000


def users_at_a_time(sequences: Sequences) -> Iterator[tuple[int, int, Sequences]]:
    """Cut all users into runs of about a block of events, or of one user who has more.

    Yields:
        The first user's row, the first event's position, and the run as sequences of its own; there is at least one.
    """
    starts = sequences.starts
    cuts = [block.start for block in blocks(len(sequences.items))]
    for first, last in pairwise([*np.unique(np.searchsorted(starts, cuts)).tolist(), len(starts) - 1]):
        events = slice(int(starts[first]), int(starts[last]))
        part = replace(
            sequences,
            user_ids=sequences.user_ids[first:last],
            starts=starts[first : last + 1] - starts[first],
            items=sequences.items[events],
            times_us=sequences.times_us[events],
            profiles={name: rows[first:last] for name, rows in sequences.profiles.items()},
            weights=None if sequences.weights is None else sequences.weights[events],
        )
        yield first, events.start, part


def users_of(sequences: Sequences) -> Ints:
    """Name the user of every event, [E]."""
    return np.repeat(np.arange(len(sequences.starts) - 1), np.diff(sequences.starts))


def first_of_moment(sequences: Sequences) -> Ints:
    """Find the first position of each event's moment: the same user at the same time, [E].

    All positions before it are strictly earlier events of that user, or another user's.
    """
    times = sequences.times_us
    positions = np.arange(len(times))
    begins = np.ones(len(times), dtype=bool)
    begins[1:] = times[1:] != times[:-1]
    begins[sequences.starts[:-1][np.diff(sequences.starts) > 0]] = True
    return np.maximum.accumulate(np.where(begins, positions, 0))


def runs(starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """List the whole numbers from each of *starts* [N] to before its end, flat: rows of *starts*, and places from 0."""
    lengths = ends - starts
    return np.repeat(np.arange(len(starts)), lengths), places(lengths)


def earlier_events(sequences: Sequences, users: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """List what each of *users* had before *ends*: rows into *users*, and positions of events, flat and aligned."""
    starts = sequences.starts[users]
    rows, at = runs(starts, ends)
    return rows, starts[rows] + at


def known_events(sequences: Sequences, until_us: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Give the events of catalogue items before *until_us*, a block at a time: positions, catalogue rows and times."""
    for block in blocks(len(sequences.items)):
        known = (sequences.items[block] >= 0) & (sequences.times_us[block] < until_us)
        at = block.start + np.flatnonzero(known)
        yield at, sequences.items[at].astype(np.int64), sequences.times_us[at]


class EventIndex:
    """Answers how often and when a user had an item, and how often everybody did in the days before.

    What it looks up lies in files without a name (:mod:`features.mapped`), 16 bytes for each event.
    """

    def __init__(self, sequences: Sequences, *, zone: str, until_us: int) -> None:
        """Index the events before *until_us*; days are those of *zone*."""
        self._sequences = sequences
        self._stride = len(sequences.items) + 1
        spans = [(times.min(), times.max()) for _, _, times in known_events(sequences, until_us) if len(times)]
        self._midnights = day_starts(np.array(spans, dtype=np.int64), zone)
        self._keys, self._by_day = joined(
            (items * self._stride + at, items * (len(self._midnights) + 1) + self.days(times))
            for at, items, times in known_events(sequences, until_us)
        )
        self._keys.sort()  # by item, then position: a user's positions lie together
        self._by_day.sort()

    def had(self, users: Ints, ends: Ints, items: Ints) -> tuple[Ints, Ints]:
        """Count a user's events with an item before *ends*, and find the last of them.

        Args:
            users: [N].
            ends: Position after the user's last event that counts, [N].
            items: Catalogue rows, [N, C].

        Returns:
            How often [N, C], and the time of the last one, [N, C] microseconds UTC (0 where never).
        """
        base = items * self._stride
        low = np.searchsorted(self._keys, base + self._sequences.starts[users][:, None])
        high = np.searchsorted(self._keys, base + ends[:, None])
        times = high - low
        if not len(self._keys):
            return times, np.zeros_like(times)
        last = self._keys[np.maximum(high - 1, 0)] % self._stride
        return times, np.where(times > 0, self._sequences.times_us[last], 0)

    def has_later(self, users: Ints, ends: Ints, items: Ints) -> npt.NDArray[np.bool_]:
        """Whether a user has an item at or after position *ends*; shapes as in :meth:`had`."""
        base = items * self._stride
        low = np.searchsorted(self._keys, base + ends[:, None])
        high = np.searchsorted(self._keys, base + self._sequences.starts[users + 1][:, None])
        return high > low

    def days(self, now_us: Ints) -> Ints:
        """Number the day of each moment; what :meth:`popularity` counts is the same all day."""
        return np.searchsorted(self._midnights, now_us, side="right")

    def popularity_on(self, days: Ints, items: Ints, length: int) -> Ints:
        """Count as :meth:`popularity` does, for *days* [N] by their numbers and the *length* days before each."""
        stride = len(self._midnights) + 1
        high = np.searchsorted(self._by_day, items * stride + days[:, None])
        low = np.searchsorted(self._by_day, items * stride + np.maximum(days - length, 0)[:, None])
        return high - low

    def popularity_by_day(self, first: int, end: int, items: int, length: int) -> Iterator[Ints]:
        """Give what :meth:`popularity_on` counts of all *items*, for each day from *first* to before *end*, [items]."""
        stride = len(self._midnights) + 1
        (keys,) = joined(
            (self._by_day[block] % stride * items + self._by_day[block] // stride,)
            for block in blocks(len(self._by_day))
        )
        keys.sort()  # by day, then item

        def counted(day: int) -> Ints:
            low, high = np.searchsorted(keys, [day * items, (day + 1) * items])
            return np.bincount(keys[low:high] - day * items, minlength=items)

        counts = sum((counted(day) for day in range(max(first - length, 0), first)), np.zeros(items, dtype=np.int64))
        for day in range(first, end):
            yield counts
            counts = counts + counted(day) - counted(day - length)

    def popularity(self, now_us: Ints, items: Ints, days: int) -> Ints:
        """Count everybody's events with an item in the *days* whole days before the day of *now_us*.

        Args:
            now_us: [N].
            items: Catalogue rows, [N, C].
            days: How many days.
        """
        return self.popularity_on(self.days(now_us), items, days)


def day_starts(times_us: npt.NDArray[np.int64], zone: str) -> Ints:
    """Begin of every day from the first event's to the day after the last one's."""
    if not len(times_us):
        return np.zeros(0, dtype=np.int64)
    return np.array(list(_days(int(times_us.min()), int(times_us.max()), zone)), dtype=np.int64)


def _days(first_us: int, last_us: int, zone: str) -> Iterator[int]:
    day = date(1970, 1, 1) + timedelta(microseconds=first_us) - timedelta(days=1)
    while (start := data_day(day, zone)[0]) <= last_us:
        yield start
        day += timedelta(days=1)
    yield start
