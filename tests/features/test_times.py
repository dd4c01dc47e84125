from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.errors import UsageError
from features.day import data_day
from features.times import to_micros

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = ["UTC", "Europe/Amsterdam", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Casablanca"]


def micros(moment):
    return (moment - EPOCH) // timedelta(microseconds=1)


@settings(max_examples=25, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    local=st.lists(st.none() | st.datetimes(datetime(1970, 1, 2), datetime(2099, 12, 30)), max_size=8),
)
def test_naive_times_are_read_in_the_declared_zone(zone, local):
    """A naive time means what Python's own zoneinfo says for the declared zone, minute by minute, in every season."""
    expected = [None if time is None else micros(time.replace(tzinfo=ZoneInfo(zone))) for time in local]

    assert to_micros(pa.array(local, pa.timestamp("us")), naive_zone=zone).to_pylist() == expected


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        ("2026-03-29T01:59:59", "2026-03-29T00:59:59"),
        ("2026-03-29T02:30:00", "2026-03-29T01:30:00"),  # skipped: read with the offset before
        ("2026-03-29T03:00:00", "2026-03-29T01:00:00"),
        ("2026-10-25T02:30:00", "2026-10-25T00:30:00"),  # twice: the first
        ("2026-10-25T03:00:00", "2026-10-25T02:00:00"),
    ],
)
def test_clock_changes_are_decided_not_left_to_chance(local, utc):
    """A local time that occurs twice is its first occurrence; a skipped one takes the offset before the change."""
    times = pa.array([datetime.fromisoformat(local)], pa.timestamp("s"))

    expected = micros(datetime.fromisoformat(utc).replace(tzinfo=UTC))
    assert to_micros(times, naive_zone="Europe/Amsterdam").to_pylist() == [expected]


@pytest.mark.parametrize("tz", [None, "UTC", "Asia/Tokyo"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_unit_comes_from_the_type(unit, tz):
    """A moment is the same whatever unit or zone its type has, before 1970 too; no number is taken for another unit."""
    steps = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    times = pa.array([1_700_000_000 * steps, None, -5 * steps], pa.int64()).cast(pa.timestamp(unit, tz))

    assert to_micros(times, naive_zone="UTC").to_pylist() == [1_700_000_000_000_000, None, -5_000_000]


def test_nanoseconds_are_rounded_down():
    """A nanosecond before a moment is before it, on both sides of 1970."""
    times = pa.array([1_999, -1], pa.timestamp("ns", "UTC"))

    assert to_micros(times, naive_zone="UTC").to_pylist() == [1, -1]


def test_integers_are_times_only_where_a_unit_is_declared():
    """An integer column is a time only with a declared unit; a time that does not fit is an error, not a wrap."""
    seconds = pa.array([2, None], pa.int32())

    assert to_micros(seconds, naive_zone="UTC", unit="s").to_pylist() == [2_000_000, None]
    assert to_micros(seconds, naive_zone="Asia/Tokyo", unit="ms").to_pylist() == [2_000, None]
    with pytest.raises(ValueError, match="declared time_unit, found int32"):
        to_micros(seconds, naive_zone="UTC")
    for huge in (pa.array([2**62], pa.int64()), pa.array([2**63], pa.uint64())):
        with pytest.raises(ValueError, match="out of range"):
            to_micros(huge, naive_zone="UTC", unit="s")


@pytest.mark.parametrize(
    ("day", "zone", "start", "hours"),
    [
        (date(2026, 3, 10), "UTC", "2026-03-10T00:00:00", 24),
        (date(2026, 3, 29), "Europe/Amsterdam", "2026-03-28T23:00:00", 23),
        (date(2026, 10, 25), "Europe/Amsterdam", "2026-10-24T22:00:00", 25),
        (date(2018, 11, 4), "America/Sao_Paulo", "2018-11-04T03:00:00", 23),  # its midnight does not exist
    ],
)
def test_a_day_lasts_from_midnight_to_midnight_where_it_is(day, zone, start, hours):
    """The data date starts and ends at local midnights, so it has 23 or 25 hours when the clocks change."""
    begin, end = data_day(day, zone)

    assert begin == micros(datetime.fromisoformat(start).replace(tzinfo=UTC))
    assert end - begin == hours * 3_600 * 1_000_000


def test_an_unknown_zone_is_a_usage_error():
    """A misspelt zone is named."""
    with pytest.raises(UsageError, match="Europe/Amsterdm"):
        data_day(date(2026, 1, 1), "Europe/Amsterdm")
