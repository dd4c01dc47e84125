"""Training examples out of users' sequences: who is asked, at what time, and what they did next. Arrays only.

What grows with events lies in files without a name (:mod:`features.mapped`) and is made some users at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from artifacts.errors import UsageError
from features.day import data_day
from features.mapped import blocks, drawn, joined, mapped
from features.sequences import Sequences, ends_before
from models.events import (
    DAY_US,
    Floats,
    Ints,
    day_starts,
    first_of_moment,
    runs,
    users_at_a_time,
    users_of,
)


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
    users, now_us, ends, chosen, weights, ages, counts = joined(
        _next_events(part, window, targets, shift, half_life_days, first=first, start=start)
        for first, start, part in users_at_a_time(sequences)
    )
    worth, done = _weights(ages, counts, sequences), 0
    for block in blocks(len(weights)):
        there = weights[block] > 0
        weights[block][there] = worth[done : done + there.sum()]
        done += there.sum()
    return Examples(users, now_us, ends, chosen, weights)


def _next_events(
    part: Sequences, window: Window, targets: int, shift: int, half_life_days: float, *, first: int, start: int
) -> tuple[Ints, Ints, Ints, Ints, Floats, npt.NDArray[np.float64], Floats]:
    """Ask the users of *part*, the first of whom is the user *first* and whose events begin at *start*.

    Returns:
        Users, times, ends, targets and a 1 where there is one; and of each target, in this order, what it weighs by
        age, and by itself.
    """
    times, counts = part.times_us, _counts(part)
    users, moments = users_of(part), first_of_moment(part)
    told = moments > part.starts[users]
    inside = (times >= window.start_us) & (times < window.end_us)
    events = np.flatnonzero(told & inside & (part.items >= 0) & (counts > 0))
    owner = users[events]
    rank = np.arange(len(events)) - np.searchsorted(owner, owner, side="left") + shift
    heads = (rank % targets == 0) | (rank == shift)
    at = np.cumsum(heads) - 1, rank % targets
    asked = events[heads]
    chosen = np.zeros((len(asked), targets), dtype=np.int64)
    there = np.zeros((len(asked), targets), dtype=np.float32)
    chosen[at], there[at] = part.items[events], 1.0
    ages = age_weights(times[events], window.end_us, half_life_days)
    return first + users[asked], times[asked], start + moments[asked], chosen, there, ages, counts[events]


@dataclass(frozen=True, slots=True)
class Days:
    """N days of users, each asked in its morning, and the M different items that they had on them.

    Attributes:
        users: Rows of the sequences' users, [N].
        now_us: When the day begins, [N].
        ends: Position after the user's last event before it, [N].
        starts: The targets of day n are ``starts[n]:starts[n + 1]``, [N + 1].
        items: Catalogue rows, ascending within a day, [M].
        weights: Weight of each, [M], mean 1.
    """

    users: Ints
    now_us: Ints
    ends: Ints
    starts: Ints
    items: Ints
    weights: Floats

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: Ints, targets: int | None = None, keys: npt.NDArray[np.float64] | None = None) -> Examples:
        """Ask about some days: all items of each, or *targets* of them, those with the least of *keys* [M]."""
        owners, places = runs(self.starts[rows], self.starts[rows + 1])
        width = int(places.max(initial=-1)) + 1 if targets is None else targets
        at = self.starts[rows][owners] + places
        if keys is not None:
            at = at[np.lexsort((keys[at], owners))]
        kept = places < width
        filled = owners[kept], places[kept]
        chosen = np.zeros((len(rows), width), dtype=np.int64)
        weights = np.zeros(chosen.shape, dtype=np.float32)
        chosen[filled], weights[filled] = self.items[at[kept]], self.weights[at[kept]]
        return Examples(self.users[rows], self.now_us[rows], self.ends[rows], chosen, weights)

    def draw(self, targets: int, *, seed: list[int]) -> "Drawn":
        """Ask about *targets* items of each day, which *seed* draws."""
        return Drawn(self, targets, drawn(np.random.default_rng(seed), self.items.shape))


@dataclass(frozen=True, slots=True)
class Drawn:
    """Questions about all of some days, which become examples when they are taken.

    Attributes:
        days: N of them.
        targets: The most items of a day that are asked for.
        keys: The items with the least of a day are, [M].
    """

    days: Days
    targets: int
    keys: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.days)

    def take(self, rows: Ints) -> Examples:
        """Keep some questions by their positions."""
        return self.days.take(rows, self.targets, self.keys)


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
    users, now_us, ends, lengths, items, ages, counts = joined(
        _days_of(part, window, zone, half_life_days, first=first, start=start)
        for first, start, part in users_at_a_time(sequences)
    )
    starts = mapped((len(users) + 1,), np.int64)
    np.cumsum(lengths, out=starts[1:])
    return Days(users, now_us, ends, starts, items, _weights(ages, counts, sequences))


def _days_of(
    part: Sequences, window: Window, zone: str, half_life_days: float, *, first: int, start: int
) -> tuple[Ints, Ints, Ints, Ints, Ints, npt.NDArray[np.float64], Floats]:
    """Find the days of the users of *part*, the first of whom is the user *first* and whose events begin at *start*.

    Returns:
        Users, mornings, ends and the number of targets of each day; and of each target its catalogue row, what it
        weighs by age, and by itself.
    """
    times, counts = part.times_us, _counts(part)
    events = np.flatnonzero((times >= window.start_us) & (times < window.end_us) & (part.items >= 0) & (counts > 0))
    owners = np.searchsorted(part.starts[1:], events, side="right")
    midnights = day_starts(times[events], zone)
    day = np.searchsorted(midnights, times[events], side="right") - 1
    heads = np.ones(len(events), dtype=bool)
    heads[1:] = (owners[1:] != owners[:-1]) | (day[1:] != day[:-1])
    users, now_us = owners[heads], midnights[day[heads]]
    ends = ends_before(part, users, now_us)
    told = ends > part.starts[users]
    question = np.cumsum(heads) - 1
    asked = told[question]
    events, question = events[asked], (np.cumsum(told) - 1)[question[asked]]
    size = max(1, len(part.catalogue))
    pairs, inverse = np.unique(question * size + part.items[events], return_inverse=True)
    heaviest = np.zeros(len(pairs), dtype=np.float32)
    np.maximum.at(heaviest, inverse, counts[events])
    users, now_us, ends = users[told], now_us[told], ends[told]
    ages = age_weights(now_us[pairs // size], window.end_us, half_life_days)
    lengths = np.bincount(pairs // size, minlength=len(users))
    return first + users, now_us, start + ends, lengths, pairs % size, ages, heaviest


def next_day(sequences: Sequences, window: Window, *, zone: str) -> Examples:
    """Ask each user before every day of the window on which they did something, as a night does; T is as needed.

    Targets are that day's different items of the catalogue. Users without any history before the day are left out.
    """
    days = days_of(sequences, window, zone=zone)
    return days.take(np.arange(len(days)))


def make_stale(sequences: Sequences, examples: Examples, *, rate: float, seed: list[int]) -> Examples:
    """Let a share *rate* of the histories end earlier, at an event drawn from those they have; one event stays.

    Most events follow another within minutes, but a night is asked hours or days after the last one.
    """
    random = np.random.default_rng(seed)
    luck, share = (drawn(random, examples.ends.shape) for _ in range(2))

    def ends() -> Iterator[tuple[Ints]]:
        for block in blocks(len(examples)):
            spare = examples.ends[block] - sequences.starts[examples.users[block]] - 1
            dropped = (share[block] * (spare + 1)).astype(np.int64)
            yield (examples.ends[block] - np.where(luck[block] < rate, dropped, 0),)

    return replace(examples, ends=joined(ends())[0])


def _counts(sequences: Sequences) -> Floats:
    """Say what each event weighs by itself, [E]."""
    return np.ones(len(sequences.items), np.float32) if sequences.weights is None else sequences.weights


def age_weights(times_us: Ints, end_us: int, half_life_days: float) -> npt.NDArray[np.float64]:
    """Weigh events by age: half for every half-life before *end_us*; 0 days weigh all alike."""
    if half_life_days <= 0:
        return np.ones(len(times_us))
    aged: npt.NDArray[np.float64] = np.exp2((times_us - end_us) / (half_life_days * DAY_US))
    return aged


def of_mean_one(weights: npt.NDArray[np.floating]) -> Floats:
    """Scale weights to mean 1, by which no learning rate changes; none are none."""
    scaled: Floats = mapped(weights.shape, np.float32)
    return np.divide(weights, weights.mean(), out=scaled, casting="same_kind") if len(weights) else scaled


def _weights(ages: npt.NDArray[np.float64], counts: Floats, sequences: Sequences) -> Floats:
    """Weigh targets by age and, where the events of *sequences* have weights, by *counts*; mean 1."""
    weights = of_mean_one(ages)
    if sequences.weights is None:
        return weights
    weights *= counts
    return of_mean_one(weights)
