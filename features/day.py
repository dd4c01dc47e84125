"""The data date: when it starts and ends, and whether its input is there."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median

import numpy as np

from artifacts.errors import NotReadyError
from features.events import read_times
from features.inputs import Inputs
from features.times import SECOND, day_of, start_of, to_moment

_QUARTER = 900 * SECOND  # of an hour; every zone's midnight falls on one


def data_day(day: date, zone: str) -> tuple[int, int]:
    """Give the start and the end of *day* in *zone*, in microseconds UTC; the end is the next local midnight.

    The end is not part of the day. It is the "now" from which a night takes all gaps.

    Raises:
        UsageError: If there is no such zone.
    """
    return start_of(day, zone), start_of(day + timedelta(days=1), zone)


@dataclass(frozen=True, slots=True)
class DayFigures:
    """What is there of the data date.

    Attributes:
        newest_us: The newest event before the day's end, in microseconds UTC; ``None`` without events.
        events: Events of the day.
        earlier: Events of the same weekday 1, 2 ... weeks before, back to the first day that has data.
    """

    newest_us: int | None
    events: int
    earlier: tuple[int, ...]


def measure_day(inputs: Inputs, day: date, zone: str, *, weeks: int) -> DayFigures:
    """Read when the events happened, and nothing else of them, in one pass; memory does not grow with them."""
    days = [data_day(day - timedelta(weeks=week), zone) for week in range(weeks + 1)]
    end = days[0][1]
    events = [0] * len(days)
    newest = oldest = None
    for batch in read_times(inputs):
        times = batch.drop_null().to_numpy()
        times = times[times < end]
        if not len(times):
            continue
        newest = max(int(times.max()), newest if newest is not None else int(times.max()))
        oldest = min(int(times.min()), oldest if oldest is not None else int(times.min()))
        for week, (low, high) in enumerate(days):
            events[week] += int(np.count_nonzero((times >= low) & (times < high)))
    known = [
        count for (low, _), count in zip(days[1:], events[1:], strict=True) if oldest is not None and oldest <= low
    ]
    return DayFigures(newest, events[0], tuple(known))


def require_day(
    inputs: Inputs,
    day: date,
    zone: str,
    *,
    newest_within_seconds: int = 86_400,
    min_share_of_median: float = 0.5,
    weeks: int = 4,
) -> DayFigures:
    """Ask whether the input of *day* is there; 0 turns a rule off.

    Args:
        inputs: Where the events are.
        day: The data date.
        zone: Its time zone.
        newest_within_seconds: The newest event must be at most this long before the day's end.
        min_share_of_median: The day must have at least this share of the events that the same weekday had, in the
            median of the *weeks* before; a weekday before the oldest event does not count, and without one the rule
            does not apply.
        weeks: How many weeks to look back.

    Raises:
        NotReadyError: If it is not there (yet).
    """
    figures = measure_day(inputs, day, zone, weeks=weeks)
    end = data_day(day, zone)[1]
    table = inputs.behaviours
    if figures.newest_us is None:
        raise NotReadyError(f"{table}: no event up to the end of {day} ({zone}); wait for the day's files")
    if newest_within_seconds and end - figures.newest_us > newest_within_seconds * SECOND:
        raise NotReadyError(
            f"{table}: the newest event is of {to_moment(figures.newest_us)}, more than {newest_within_seconds} s "
            f"before the end of {day} ({zone}); wait for the day's files, or set [day] newest_within_hours"
        )
    if min_share_of_median and figures.earlier:
        usual = median(figures.earlier)
        if figures.events < min_share_of_median * usual:
            raise NotReadyError(
                f"{table}: {day} has {figures.events} events, less than {min_share_of_median} of the {usual:g} that "
                f"its weekday had in the last {len(figures.earlier)} weeks (median); wait for the day's files, or set "
                "[day] min_share_of_median"
            )
    return figures


def events_by_day(inputs: Inputs, zone: str) -> dict[date, int]:
    """Count the events of each day in *zone* that has any, ascending, in one pass over their times."""
    quarters: Counter[int] = Counter()
    for batch in read_times(inputs):
        found, counts = np.unique(batch.drop_null().to_numpy() // _QUARTER, return_counts=True)
        quarters.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    days: Counter[date] = Counter()
    for quarter, count in quarters.items():
        days[day_of(quarter * _QUARTER, zone)] += count
    return dict(sorted(days.items()))


def newest_whole_day(days: Mapping[date, int], *, min_share_of_median: float = 0.5, weeks: int = 4) -> date | None:
    """Choose the newest day that looks whole: a person's data end where they were copied, or at a mistyped year.

    Args:
        days: Events by day, without the days that have none.
        min_share_of_median: The day must have at least this share of the median of the days that it is compared with:
            the same weekday's last *weeks* with events, or the last days with events where its weekday has none.
        weeks: How many days it is compared with.

    Returns:
        The day; None where there are no events.
    """
    newest_first = sorted(days, reverse=True)
    for place, day in enumerate(newest_first):
        before = newest_first[place + 1 :]
        alike = [one for one in before if one.weekday() == day.weekday()] or before
        usual = [days[one] for one in alike[:weeks]]
        if not usual or days[day] >= min_share_of_median * median(usual):
            return day
    return None
