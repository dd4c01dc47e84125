from dataclasses import replace
from datetime import date

import pytest

from artifacts.errors import NotReadyError
from features.day import events_by_day, measure_day, newest_whole_day, require_day
from features.inputs import Source

DAY_SECONDS = 86_400
WEEK = 7 * DAY_SECONDS


def events(*counts, first=0):
    """Give *counts* events, a second apart, at the ends of this day and of the same weekday 1, 2 ... weeks before."""
    return [(1, 1, 1 + second + week * WEEK) for week, count in enumerate(counts) for second in range(count)]


def test_the_day_and_its_weekdays_are_counted(tmp_path, shop, day):
    """Counts are of whole local days; what comes after the day, or before the data begin, does not count."""
    asked = [*events(3, 2, 4), (1, 1, -5), (None, 1, 7), (1, 1, DAY_SECONDS), (1, 1, DAY_SECONDS + 1)]
    figures = measure_day(shop(asked, [(1, "x")]).inputs(tmp_path), day, "UTC", weeks=5)

    assert figures.events == 3 + 2  # the row without a user, and the day's first second
    assert figures.earlier == (2,)  # two weeks ago the data begin in the middle of the day
    assert figures.newest_us == (1_773_187_200 - 1) * 1_000_000


def test_histories_tell_the_same_day(tmp_path, shop, day, write_parquet):
    """Ready-made histories are asked through their lists of times."""
    made = shop(events(3, 2), [(1, "x")])
    inputs = made.inputs(tmp_path)
    rows = made.interactions().group_by("visitor", use_threads=False).aggregate([("sku", "list"), ("at", "list")])
    path = write_parquet(tmp_path / "histories.parquet", rows)
    columns = {"user_id": "visitor", "item_ids": "sku_list", "times": "at_list"}
    other = replace(inputs, interactions=None, histories=Source(str(path), columns))

    assert measure_day(other, day, "UTC", weeks=3) == measure_day(inputs, day, "UTC", weeks=3)


@pytest.mark.parametrize(
    ("counts", "limits", "missing"),
    [
        ((10, 20, 20, 20), {}, None),
        ((9, 20, 20, 20), {}, "has 9 events, less than 0.5 of the 20"),
        ((9, 20, 20, 20), {"min_share_of_median": 0.45}, None),
        ((1, 20, 20, 20), {"min_share_of_median": 0.0}, None),
        ((1,), {}, None),  # the first week of data: no weekday to compare with
        ((0, 20), {}, "newest event is of 2026-03-03"),
        ((0, 20), {"newest_within_seconds": 0}, "has 0 events"),
        ((0, 20), {"newest_within_seconds": 0, "min_share_of_median": 0.0}, None),
        ((0,), {"newest_within_seconds": 0, "min_share_of_median": 0.0}, "no event up to the end"),
    ],
)
def test_a_day_that_is_not_there_is_not_ready(counts, limits, missing, tmp_path, shop, day):
    """A day without recent events, or far emptier than its weekday, is not ready; each rule can be turned off."""
    # A lone early event lets the data begin before the weekdays that are compared.
    early = [(1, 1, len(counts) * WEEK)] if len(counts) > 1 else []
    inputs = shop([*events(*counts), *early], [(1, "x")]).inputs(tmp_path)
    if missing is None:
        assert require_day(inputs, day, "UTC", **limits).events == counts[0]
    else:
        with pytest.raises(NotReadyError, match=missing):
            require_day(inputs, day, "UTC", **limits)


def test_the_day_ends_where_it_is(tmp_path, shop):
    """An event in the last hour of the local day counts, wherever UTC's midnight lies."""
    inputs = shop([(1, 1, 3_600 + 60)], [(1, "x")]).inputs(tmp_path)

    assert require_day(inputs, date(2026, 3, 10), "Europe/Amsterdam", newest_within_seconds=3_600).events == 1
    with pytest.raises(NotReadyError, match="newest event"):
        require_day(inputs, date(2026, 3, 10), "UTC", newest_within_seconds=3_600)


def test_days_are_counted_where_the_zone_has_them(tmp_path, shop, day):
    """An event half an hour before midnight in UTC is of the next day further east; days without events are absent."""
    inputs = shop([(1, 1, 1_800), (1, 2, 1), (2, 1, 3 * DAY_SECONDS + 1)], [(1, "x")]).inputs(tmp_path)

    assert events_by_day(inputs, "UTC") == {date(2026, 3, 7): 1, day: 2}
    assert events_by_day(inputs, "Asia/Kolkata") == {date(2026, 3, 8): 1, date(2026, 3, 11): 2}


@pytest.mark.parametrize(
    ("days", "newest"),
    [
        ({}, None),
        ({date(2026, 3, 10): 1}, date(2026, 3, 10)),
        ({date(2026, 3, 3): 20, date(2026, 3, 9): 20, date(2026, 3, 10): 10}, date(2026, 3, 10)),
        ({date(2026, 3, 3): 20, date(2026, 3, 9): 20, date(2026, 3, 10): 9}, date(2026, 3, 9)),
        ({date(2026, 3, 8): 20, date(2026, 3, 9): 20, date(2026, 3, 10): 9}, date(2026, 3, 9)),  # no Tuesday before
        ({date(2026, 3, 3): 20, date(2026, 3, 10): 20, date(2099, 3, 10): 1}, date(2026, 3, 10)),
    ],
)
def test_the_newest_whole_day_is_no_remnant_and_no_mistyped_year(days, newest):
    """A day is whole if it has half of what its weekday has, or else the days before it."""
    assert newest_whole_day(days) == newest
