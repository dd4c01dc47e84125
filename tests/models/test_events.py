from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from features import mapped
from features.cross import match_seen
from features.day import data_day
from models.events import EventIndex, earlier_events, known_events, users_at_a_time
from models.examples import Window, next_events
from tests.models.drawn import DAY, behaviours, some


@pytest.fixture(autouse=True, scope="module")
def few_at_once():
    """Several blocks meet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "ROWS", 3)
        yield


@some
@given(behaviours)
def test_runs_of_users_are_all_users(make_sequences, lists):
    """Every user is in one run, with their own events; a run ends with the user who fills it."""
    sequences, users = make_sequences(lists), 0
    for first, start, part in users_at_a_time(sequences):
        assert first == users
        for user in range(len(part.starts) - 1):
            low, high = part.starts[user : user + 2]
            mine = slice(sequences.starts[first + user], sequences.starts[first + user + 1])
            assert start + low == mine.start
            np.testing.assert_array_equal(part.times_us[low:high], sequences.times_us[mine])
            np.testing.assert_array_equal(part.items[low:high], sequences.items[mine])
        assert len(part.items) < 3 + max(len(events) for events in lists)
        assert len(part.user_ids) == len(part.profiles["country"]) == len(part.starts) - 1
        users += len(part.user_ids)
    assert users == len(lists)


def test_events_of_unknown_items_and_later_ones_are_not_known(make_sequences):
    """Positions, rows and times of the rest, in order."""
    sequences = make_sequences([[(0, 1), (1, -2), (2, 3), (9, 4)], [(3, 5), (4, -2), (8, 1)]])
    at, items, times = (np.concatenate(column) for column in zip(*known_events(sequences, 8), strict=True))
    assert (at.tolist(), items.tolist(), times.tolist()) == ([0, 2, 4], [1, 3, 5], [0, 2, 3])


@some
@given(behaviours)
def test_the_index_counts_what_a_slow_loop_counts(make_sequences, lists):
    """How often a user had an item before, when last, whether again later, and how popular it was: all as counted."""
    sequences = make_sequences(lists)
    index = EventIndex(sequences, zone="UTC", until_us=5 * DAY)
    examples = next_events(sequences, Window(0, 5 * DAY), targets=1)
    items = np.tile(np.arange(6), (len(examples), 1))
    times, last = index.had(examples.users, examples.ends, items)
    later = index.has_later(examples.users, examples.ends, items)
    popular = index.popularity(examples.now_us, items, 2)
    everything = [event for events in lists for event in events]
    for row in range(len(examples)):
        user, now = int(examples.users[row]), int(examples.now_us[row])
        today = now // DAY * DAY
        for item in range(6):
            had = [time for time, other in lists[user] if other == item and time < now]
            assert times[row, item] == len(had)
            assert last[row, item] == max(had, default=0)
            assert later[row, item] == any(other == item and now <= time < 5 * DAY for time, other in lists[user])
            counted = sum(other == item and today - 2 * DAY <= time < today for time, other in everything)
            assert popular[row, item] == counted
    days = index.days(np.array([0, 5 * DAY]))
    for day, counts in enumerate(index.popularity_by_day(*days, 6, 2), start=days[0]):
        np.testing.assert_array_equal(counts, index.popularity_on(np.array([day]), np.arange(6)[None], 2)[0])


@some
@given(behaviours)
def test_training_matches_what_was_had_as_the_night_does(make_sequences, lists):
    """The index and `features.cross.match_seen` on the night's own table agree: no skew between the two."""
    sequences = make_sequences(lists)
    now = 5 * DAY
    users = np.arange(len(lists))
    items = np.tile(np.arange(6), (len(lists), 1))
    seen = [sorted({item for _, item in events}) for events in lists]
    had, last = EventIndex(sequences, zone="UTC", until_us=now).had(users, sequences.starts[1:], items)
    lists_of = pa.list_(pa.int64())
    times, gap = match_seen(
        items,
        pa.array(seen, lists_of),
        pa.array([[sum(o == i for _, o in e) for i in s] for s, e in zip(seen, lists, strict=True)], lists_of),
        pa.array(
            [
                [(now - max(t for t, o in e if o == i)) // 1_000_000 for i in s]
                for s, e in zip(seen, lists, strict=True)
            ],
            lists_of,
        ),
    )
    np.testing.assert_array_equal(had, times)
    np.testing.assert_array_equal(np.where(had > 0, (now - last) // 1_000_000, -1), gap)
    rows, positions = earlier_events(sequences, users, sequences.starts[1:])
    assert sorted(zip(rows.tolist(), sequences.items[positions].tolist(), strict=True)) == sorted(
        (user, item) for user, events in enumerate(lists) for _, item in events
    )


def test_popularity_follows_local_days(make_sequences):
    """Yesterday ends at local midnight, over a change of clocks too."""
    zone = "Europe/Berlin"  # 29 March 1981 had 23 hours there
    start, end = data_day(date(1981, 3, 29), zone)
    assert end - start == 23 * DAY // 24
    sequences = make_sequences([[(start, 1), (end - 1, 1), (end, 1), (end + DAY, 2)]])
    index = EventIndex(sequences, zone=zone, until_us=end + 2 * DAY)
    now = np.array([start + 1, end, end + DAY])
    np.testing.assert_array_equal(index.popularity(now, np.ones((3, 1), dtype=np.int64), 1), [[0], [2], [1]])
