"""Training examples out of users' sequences: who is asked, at what time, and what they did next. Arrays only."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from artifacts.errors import UsageError
from features.day import data_day
from features.sequences import Sequences, ends_before

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
DAY_US = 86_400_000_000
_EVENTS = 1_000_000  # about so many are looked at at once


@dataclass(frozen=True, slots=True)
class Window:
    """Whole days of the surface's zone, as microseconds UTC: ``start_us`` <= time < ``end_us``."""

    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class Split:
    """A split by time: nothing that is trained on lies after anything that is validated on.

    Attributes:
        train: The days to train on.
        valid: The days after them.
        trained_through: The last day of training, ISO.
        zone: Where days begin and end.
    """

    train: Window
    valid: Window
    trained_through: str
    zone: str


@dataclass(frozen=True, slots=True)
class Examples:
    """N questions: a user, a time, and the events that came next. All that is told is strictly before the time.

    Attributes:
        users: Rows of the sequences' users, [N].
        now_us: When the user is asked, [N].
        ends: Position after the user's last event before ``now_us``, [N].
        targets: Catalogue rows of the events that came next, [N, T]; 0 where ``weights`` is 0.
        weights: Weight of each target, [N, T], mean 1 over the targets there are.
    """

    users: Ints
    now_us: Ints
    ends: Ints
    targets: Ints
    weights: Floats

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: npt.NDArray[Any]) -> "Examples":
        """Keep *rows*, a mask or positions."""
        return Examples(self.users[rows], self.now_us[rows], self.ends[rows], self.targets[rows], self.weights[rows])


def split_by_time(*, train_until: date, validate_until: date, zone: str, train_from: date | None = None) -> Split:
    """Cut the days: train through *train_until* (inclusive), validate after it through *validate_until* (inclusive).

    Args:
        train_until: Last day of training events.
        validate_until: Last day of validation events; the same day means no validation.
        zone: Where days begin and end.
        train_from: First day of training events; by default there is none.

    Raises:
        UsageError: If the days are not in this order.
    """
    if validate_until < train_until or (train_from is not None and train_from > train_until):
        days = [str(train_from or "(the first day)"), str(train_until), str(validate_until)]
        raise UsageError(f"expected train_from <= train_until <= validate_until, found {', '.join(days)}")
    _, train_end = data_day(train_until, zone)
    _, valid_end = data_day(validate_until, zone)
    train_start = data_day(train_from, zone)[0] if train_from is not None else np.iinfo(np.int64).min
    return Split(Window(int(train_start), train_end), Window(train_end, valid_end), train_until.isoformat(), zone)


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


def next_events(
    sequences: Sequences, window: Window, *, targets: int, half_life_days: float = 0.0, shift: int = 0
) -> Examples:
    """Ask each user before every *targets* events of the window; those events are the targets.

    One question for several events saves work: their history is the one before the first of them. With ``targets=1``
    every event has its own history. An event without any history before it, of an item that is not in the catalogue,
    or of weight 0, is no target.

    Args:
        sequences: All users' events.
        window: When the targets happened.
        targets: T, the most events of one question.
        half_life_days: An event this much older than the window's end weighs half; 0 weighs all alike.
        shift: Events that each user's first question has less than T, 0 <= shift < T: other questions every epoch.
    """
    times = sequences.times_us
    users, moments = users_of(sequences), first_of_moment(sequences)
    told = moments > sequences.starts[users]
    inside = (times >= window.start_us) & (times < window.end_us)
    counts = sequences.weights if sequences.weights is not None else np.ones(len(times), dtype=np.float32)
    events = np.flatnonzero(told & inside & (sequences.items >= 0) & (counts > 0))
    owner = users[events]
    rank = np.arange(len(events)) - np.searchsorted(owner, owner, side="left") + shift
    heads = (rank % targets == 0) | (rank == shift)
    question = np.cumsum(heads) - 1
    first = events[heads]
    chosen = np.zeros((len(first), targets), dtype=np.int64)
    weights = np.zeros((len(first), targets), dtype=np.float32)
    chosen[question, rank % targets] = sequences.items[events]
    aged = age_weights(times[events], window.end_us, half_life_days)
    weights[question, rank % targets] = aged if sequences.weights is None else of_mean_one(aged * counts[events])
    return Examples(users[first], times[first], moments[first], chosen, weights)


@dataclass(frozen=True, slots=True)
class Days:
    """N days of users, each asked in its morning, and the M different items that they had on them.

    Attributes:
        users: Rows of the sequences' users, [N].
        now_us: When the day begins, [N].
        ends: Position after the user's last event before it, [N].
        question: Whose each target is, ascending, [M].
        items: Catalogue rows, ascending within a day, [M].
        weights: Weight of each, [M], mean 1.
    """

    users: Ints
    now_us: Ints
    ends: Ints
    question: Ints
    items: Ints
    weights: Floats

    def ask(self, targets: int | None = None, *, seed: list[int] | None = None) -> Examples:
        """Ask about the items of each day: all of them, or the first *targets*, or so many that *seed* draws."""
        places = np.arange(len(self.items)) - np.searchsorted(self.question, self.question, side="left")
        width = int(places.max(initial=-1)) + 1 if targets is None else targets
        order = np.arange(len(self.items))
        if seed is not None:
            order = np.lexsort((np.random.default_rng(seed).random(len(self.items)), self.question))
        kept = places < width
        at = self.question[kept], places[kept]
        chosen = np.zeros((len(self.users), width), dtype=np.int64)
        weights = np.zeros(chosen.shape, dtype=np.float32)
        chosen[at], weights[at] = self.items[order][kept], self.weights[order][kept]
        return Examples(self.users, self.now_us, self.ends, chosen, weights)


def days_of(sequences: Sequences, window: Window, *, zone: str, half_life_days: float = 0.0) -> Days:
    """Find each user's days of the window on which they did something; what they did that day are the targets.

    Users without any history before a day are not asked on it. An event of weight 0, or of an item that is not in the
    catalogue, is no target; of several events of a day with one item the heaviest counts.

    Args:
        sequences: All users' events.
        window: Whole days.
        zone: Where days begin and end.
        half_life_days: A day this much older than the window's end weighs half; 0 weighs all alike.
    """
    cuts = np.arange(0, max(1, len(sequences.times_us)), _EVENTS)
    blocks = np.unique(np.searchsorted(sequences.starts, cuts))
    parts = [
        _days_of(sequences, int(first), int(last), window, zone)
        for first, last in pairwise([*blocks, len(sequences.starts) - 1])
    ]
    users, now_us, ends, lengths, items, heaviest = (np.concatenate(part) for part in zip(*parts, strict=True))
    question = np.repeat(np.arange(len(users)), lengths)
    weights = age_weights(now_us[question], window.end_us, half_life_days)
    if sequences.weights is not None:
        weights = of_mean_one(weights * heaviest)
    return Days(users, now_us, ends, question, items, weights)


def _days_of(
    sequences: Sequences, first: int, last: int, window: Window, zone: str
) -> tuple[Ints, Ints, Ints, Ints, Ints, Floats]:
    """Find the days of the users from *first* to before *last*.

    Returns:
        Users, mornings, ends and the number of targets of each day; and catalogue row and greatest weight of each
        target.
    """
    start = int(sequences.starts[first])
    mine = slice(start, int(sequences.starts[last]))
    times, rows = sequences.times_us[mine], sequences.items[mine]
    counts = np.ones(len(times), np.float32) if sequences.weights is None else sequences.weights[mine]
    events = np.flatnonzero((times >= window.start_us) & (times < window.end_us) & (rows >= 0) & (counts > 0))
    owners = first + np.searchsorted(sequences.starts[first + 1 : last + 1], start + events, side="right")
    midnights = day_starts(times[events], zone)
    day = np.searchsorted(midnights, times[events], side="right") - 1
    heads = np.ones(len(events), dtype=bool)
    heads[1:] = (owners[1:] != owners[:-1]) | (day[1:] != day[:-1])
    users, now_us = owners[heads], midnights[day[heads]]
    ends = ends_before(sequences, users, now_us)
    told = ends > sequences.starts[users]
    question = np.cumsum(heads) - 1
    asked = told[question]
    events, question = events[asked], (np.cumsum(told) - 1)[question[asked]]
    size = max(1, len(sequences.catalogue))
    pairs, inverse = np.unique(question * size + rows[events], return_inverse=True)
    heaviest = np.zeros(len(pairs), dtype=np.float32)
    np.maximum.at(heaviest, inverse, counts[events])
    lengths = np.bincount(pairs // size, minlength=int(told.sum()))
    return users[told], now_us[told], ends[told], lengths, pairs % size, heaviest


def next_day(sequences: Sequences, window: Window, *, zone: str) -> Examples:
    """Ask each user before every day of the window on which they did something, as a night does; T is as needed.

    Targets are that day's different items of the catalogue. Users without any history before the day are left out.
    """
    return days_of(sequences, window, zone=zone).ask()


def make_stale(sequences: Sequences, examples: Examples, *, rate: float, seed: list[int]) -> Examples:
    """Let a share *rate* of the histories end earlier, at an event drawn from those they have; one event stays.

    Most events follow another within minutes, but a night is asked hours or days after the last one.
    """
    random = np.random.default_rng(seed)
    chosen = random.random(len(examples)) < rate
    spare = examples.ends - sequences.starts[examples.users] - 1
    dropped = (random.random(len(examples)) * (spare + 1)).astype(np.int64)
    return replace(examples, ends=examples.ends - np.where(chosen, dropped, 0))


def age_weights(times_us: npt.NDArray[np.int64], end_us: int, half_life_days: float) -> Floats:
    """Weigh events by age: half for every half-life before *end_us*, scaled to mean 1; 0 days weigh all alike."""
    if half_life_days <= 0 or len(times_us) == 0:
        return np.ones(len(times_us), dtype=np.float32)
    return of_mean_one(np.exp2((times_us - end_us) / (half_life_days * DAY_US)))


def of_mean_one(weights: npt.NDArray[np.floating]) -> Floats:
    """Scale weights to mean 1, by which no learning rate changes; none are none."""
    scaled: Floats = (weights / weights.mean()).astype(np.float32) if len(weights) else weights.astype(np.float32)
    return scaled


def earlier_events(sequences: Sequences, users: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """List what each of *users* had before *ends*: rows into *users*, and positions of events, flat and aligned."""
    starts = sequences.starts[users]
    lengths = ends - starts
    rows = np.repeat(np.arange(len(users)), lengths)
    offsets = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return rows, np.repeat(starts, lengths) + offsets


class EventIndex:
    """Answers how often and when a user had an item, and how often everybody did in the days before."""

    def __init__(self, sequences: Sequences, *, zone: str, until_us: int) -> None:
        """Index the events before *until_us*; days are those of *zone*."""
        self._sequences = sequences
        known = np.flatnonzero((sequences.items >= 0) & (sequences.times_us < until_us))
        items = sequences.items[known].astype(np.int64)
        self._stride = len(sequences.items) + 1
        self._keys = np.sort(items * self._stride + known)  # by item, then position: a user's positions lie together
        self._midnights = day_starts(sequences.times_us[known], zone)
        days = np.searchsorted(self._midnights, sequences.times_us[known], side="right")
        self._by_day = np.sort(items * (len(self._midnights) + 1) + days)

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
        rows, days = np.divmod(self._by_day, len(self._midnights) + 1)
        rows = rows[np.argsort(days, kind="stable")].astype(np.int32)
        before = np.cumsum(np.bincount(days + 1, minlength=end + 1))  # events on the days before each

        def counted(start: int, stop: int) -> Ints:
            return np.bincount(rows[before[max(start, 0)] : before[max(stop, 0)]], minlength=items)

        counts = counted(first - length, first)
        for day in range(first, end):
            yield counts
            counts = counts + counted(day, day + 1) - counted(day - length, day - length + 1)

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
