"""Moments as int64 microseconds UTC: the unit comes from the type, the zone of a naive time from the config."""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artifacts.errors import UsageError

SECOND = 1_000_000
UNITS = {"s": SECOND, "ms": 1_000, "us": 1}  # microseconds in one
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = (datetime(1, 1, 2, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def zone_of(name: str) -> ZoneInfo:
    """Find a time zone.

    Raises:
        UsageError: If there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise UsageError(f"time zone {name}: not known; expected a name such as UTC or Europe/Amsterdam") from error


def is_time(kind: pa.DataType, unit: str | None) -> bool:
    """Whether a column of type *kind* says when: a timestamp, or an integer whose *unit* is declared."""
    return bool(pa.types.is_timestamp(kind) or (unit is not None and pa.types.is_integer(kind)))


def to_micros(times: pa.Array, *, naive_zone: str, unit: str | None = None) -> pa.Array:
    """Convert *times* to int64 microseconds since 1970 UTC, rounded down; nulls stay null.

    Args:
        times: Timestamps of any unit, or integers since 1970 UTC if *unit* is given.
        naive_zone: Zone of timestamps whose type has none. A local time that occurs twice is its first occurrence; one
            that the clocks skip is read with the offset before the change.
        unit: ``"s"``, ``"ms"`` or ``"us"`` for integers.

    Raises:
        ValueError: If the type says no time, or a time lies outside the years 1 to 9999.
    """
    if not is_time(times.type, unit):
        raise ValueError(f"expected a timestamp, or integers with a declared time_unit, found {times.type}")
    try:
        numbers = pc.cast(times, pa.int64())
        step = str(times.type.unit if pa.types.is_timestamp(times.type) else unit)
        if step == "ns":
            numbers = pa.array(pc.fill_null(numbers, 0).to_numpy() // 1_000, mask=_nulls(numbers))
        else:
            numbers = pc.multiply_checked(numbers, UNITS[step])
    except pa.ArrowInvalid as error:
        raise ValueError(f"a time is out of range ({error})") from error
    if pa.types.is_timestamp(times.type) and times.type.tz is None:
        edges, offsets = _local_offsets(naive_zone)
        local = pc.fill_null(numbers, 0).to_numpy()
        numbers = pa.array(local - offsets[np.searchsorted(edges, local, side="right")], mask=_nulls(numbers))
    found = pc.min_max(numbers).as_py()
    for extreme in found.values():
        if extreme is not None and not _FIRST <= extreme <= _LAST:
            raise ValueError(
                f"a time is out of range: expected one of the years 1 to 9999, found {extreme} us since 1970"
            )
    return numbers


def _nulls(array: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.is_null(array))


@lru_cache(maxsize=8)
def _local_offsets(name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tabulate a zone from 1970 to 2100: local times at which its offset changes, and the offset before and after each.

    Returns:
        Edges [n] and offsets [n + 1], in microseconds; ``offsets[searchsorted(edges, t, "right")]`` holds at local t.
    """
    zone = zone_of(name)
    days = range(date(1970, 1, 1).toordinal(), date(2100, 1, 1).toordinal())
    edges, offsets = [], [_offset(zone, 0)]
    for day in days:
        low = (day - days.start) * 86_400
        high = low + 86_400
        after = _offset(zone, high)
        if after == offsets[-1]:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _offset(zone, middle) == offsets[-1] else (low, middle)
        edges.append(high * SECOND)
        offsets.append(after)
    return np.array(edges, np.int64), np.array(offsets, np.int64)


def _offset(zone: ZoneInfo, local_seconds: int) -> int:
    local = (_EPOCH + timedelta(seconds=local_seconds)).replace(tzinfo=zone)
    offset = local.utcoffset() or timedelta()
    return offset // timedelta(microseconds=1)


def to_moment(micros: int) -> str:
    """Write a moment for a person, in UTC."""
    return f"{_EPOCH + timedelta(microseconds=micros):%Y-%m-%d %H:%M:%S} UTC"


def start_of(day: date, zone: str) -> int:
    """Give local midnight at the start of *day*, in microseconds UTC; where it is skipped, the first moment after."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone_of(zone))
    return (midnight - _EPOCH) // timedelta(microseconds=1)


def day_of(micros: int, zone: str) -> date:
    """Give the day in *zone* on which a moment, in microseconds UTC, lies."""
    return (_EPOCH + timedelta(microseconds=micros)).astimezone(zone_of(zone)).date()
