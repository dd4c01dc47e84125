import mmap
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts.bundle import Role
from artifacts.errors import InputError
from features import sequences as module
from features.catalogue import encode_catalogue
from features.encode import user_inputs
from features.histories import Cut, open_histories
from features.ordered import Engine
from features.sequences import ends_before, fit_vocabularies, history_at, read_sequences
from features.vocabulary import fit_vocabulary

ITEMS = [(10, "a"), (20, "b"), (30, None), (40, "a")]
DAY_SECONDS = 86_400
LAW = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 4), st.sampled_from([10, 20, 30, 40, 50, 60]), st.integers(-9, 20).map(lambda h: h * 9_000)
    ),
    min_size=12,
    max_size=40,
)
VOCABULARIES = {
    "item_id": fit_vocabulary("item_id", pa.array([10, 20, 30, 50])),
    "brand": fit_vocabulary("brand", pa.array(["a", "b"])),
    "country": fit_vocabulary("country", pa.array(["be", "nl"])),
}


def read(inputs, spec, until, folder):
    catalogue, _ = encode_catalogue(inputs, spec=spec, vocabularies=VOCABULARIES)
    return read_sequences(
        inputs,
        catalogue=catalogue,
        spec=spec,
        vocabularies=VOCABULARIES,
        until=until,
        zone="UTC",
        engine=Engine(folder / "scratch", "200MB", 1),
    )


def night(inputs, spec, day, folder):
    """What the night feeds the ranker, in one batch."""
    catalogue, _ = encode_catalogue(inputs, spec=spec, vocabularies=VOCABULARIES)
    with open_histories(
        inputs,
        catalogue=catalogue,
        spec=spec,
        vocabularies=VOCABULARIES,
        cut=Cut(day),
        engine=Engine(folder / "scratch", "200MB", 1),
    ) as histories:
        table = pa.Table.from_batches(history for history, _ in histories.users(0)).combine_chunks()
    return table.column("user_id").to_pylist(), user_inputs(table.to_batches()[0], spec, Role.RANKER, len(table))


@LAW
@given(events=EVENTS, back=st.integers(0, 2))
def test_training_and_the_night_are_told_the_same(events, back, shop, spec, day, now, tmp_path_factory):
    """No skew: for the same users and date, training reads the arrays that the night feeds, from later data too."""
    folder = tmp_path_factory.mktemp("shop")
    inputs = shop(events, ITEMS, [(0, "nl"), (9, "be")]).inputs(folder)
    sequences = read(inputs, spec, day, folder)
    users, arrays = night(inputs, spec, day - timedelta(days=back), folder)

    rows = np.searchsorted(sequences.user_ids.to_numpy(), users)
    moment = np.full(len(rows), (now - back * DAY_SECONDS) * 1_000_000)
    told = history_at(sequences, rows, moment, ends_before(sequences, rows, moment), spec)

    assert list(told) == list(arrays)
    for name, expected in arrays.items():
        assert told[name].dtype == expected.dtype == np.int32
        np.testing.assert_array_equal(told[name], expected, err_msg=name)


@LAW
@given(events=EVENTS)
def test_sequences_are_each_users_events_in_order(events, shop, spec, day, tmp_path_factory):
    """A user's events ascend by time, then item; items outside the catalogue are minus their vocabulary row."""
    folder = tmp_path_factory.mktemp("shop")
    sequences = read(shop(events, ITEMS).inputs(folder), spec, day, folder)

    codes = {10: 0, 20: 1, 30: 2, 40: 3, 50: -5, 60: -1}
    past = sorted((user, -ago, item) for user, item, ago in events if ago > 0)
    users = sequences.user_ids.to_pylist()
    assert users == sorted({user for user, _, _ in past})
    assert np.repeat(users, np.diff(sequences.starts)).tolist() == [user for user, _, _ in past]
    assert sequences.items.tolist() == [codes[item] for _, _, item in past]
    assert sequences.times_us.tolist() == [(1_773_187_200 + ago) * 1_000_000 for _, ago, _ in past]


@LAW
@given(events=EVENTS, data=st.data())
def test_nothing_at_or_after_the_moment_is_told(events, data, shop, spec, day, now, tmp_path_factory):
    """The end of a history is after the last event strictly before the moment: a basket does not tell its own items."""
    folder = tmp_path_factory.mktemp("shop")
    sequences = read(shop([*events, (0, 10, 1)], ITEMS).inputs(folder), spec, day, folder)
    users = np.array(data.draw(st.lists(st.integers(0, len(sequences.user_ids) - 1), max_size=6)), np.int64)
    hours = data.draw(st.lists(st.integers(-1, 21), min_size=len(users), max_size=len(users)))
    moments = np.array([(now - hour * 9_000) * 1_000_000 for hour in hours], np.int64)

    expected = [
        start + int(np.count_nonzero(sequences.times_us[start:stop] < moment))
        for start, stop, moment in zip(sequences.starts[users], sequences.starts[users + 1], moments, strict=True)
    ]
    assert ends_before(sequences, users, moments).tolist() == expected


def test_only_items_that_had_events_are_known(tmp_path, shop, spec, day):
    """An item without an event up to the last training day keeps row 1: its own row would never be trained."""
    events = [(1, 10, 5), (1, 40, DAY_SECONDS + 5), (2, 60, DAY_SECONDS + 5), (2, None, DAY_SECONDS + 9)]
    inputs = shop(events, ITEMS, [(1, "nl")]).inputs(tmp_path)

    until = day - timedelta(days=1)
    fitted = fit_vocabularies(inputs, spec=spec, until=until, zone="UTC")
    assert {name: vocabulary.values.to_pylist() for name, vocabulary in fitted.items()} == {
        "item_id": [40],
        "brand": ["a", "b"],
        "country": ["nl"],
    }
    with pytest.raises(InputError, match="none of its items has an event up to 2026-03-08"):
        fit_vocabularies(inputs, spec=spec, until=until - timedelta(days=1), zone="UTC")


def test_a_basket_does_not_tell_its_own_items(tmp_path, shop, spec, day, now):
    """Of two events at one moment neither is told before the other; the event a microsecond later is told both."""
    inputs = shop([(1, 10, 50), (1, 20, 40), (1, 30, 40), (1, 10, 30)], ITEMS).inputs(tmp_path)
    sequences = read(inputs, spec, day, tmp_path)
    moments = np.array([now - 40, now - 39, now - 30]) * 1_000_000

    assert ends_before(sequences, np.zeros(3, np.int64), moments).tolist() == [1, 3, 3]
    assert ends_before(sequences, np.zeros(1, np.int64), moments[:1] + 1).tolist() == [3]


def test_many_events_are_read_in_order(tmp_path, shop, spec, day, now, write_parquet):
    """Where the events fill several row groups, each user's are still by time, then by item id."""
    rng = np.random.default_rng(6)
    owners, ago = np.sort(rng.integers(0, 3_000, 300_000))[::-1], rng.integers(1, 7_300, 300_000)
    items = rng.choice([10, 20, 30, 40], 300_000)
    inputs = shop([], ITEMS).inputs(tmp_path)
    at = pa.array(now - ago, pa.timestamp("s", "UTC"))
    write_parquet(tmp_path / "interactions.parquet", pa.table({"visitor": owners, "sku": items, "at": at}))
    found = read(inputs, spec, day, tmp_path)

    order = np.lexsort((items, -ago, owners))
    assert np.array_equal(found.user_ids.to_numpy(), np.unique(owners))
    assert np.array_equal(found.starts, np.searchsorted(owners[::-1], [*found.user_ids.to_pylist(), 3_000]))
    assert np.array_equal(found.items, items[order] // 10 - 1)
    assert np.array_equal(found.times_us, (now - ago[order]) * 1_000_000)


def lies_in_a_file(array):
    while not isinstance(array, mmap.mmap):
        array = array.base
    return True


def test_events_lie_in_files_that_are_gone_with_them(shop, spec, day, tmp_path, monkeypatch):
    """However few are read at once, the same sequences come out; each of their arrays is a map of a nameless file."""
    random = np.random.default_rng(3)
    users, items, hours = random.integers(0, 5, 40), random.choice([10, 20, 50, 60], 40), random.integers(0, 20, 40)
    events = [(int(user), int(item), int(hour) * 9_000) for user, item, hour in zip(users, items, hours, strict=True)]
    inputs = shop(events, ITEMS).inputs(tmp_path)
    whole = read(inputs, spec, day, tmp_path)
    monkeypatch.setattr(module, "_ROWS", 3)
    parts = read(inputs, spec, day, tmp_path)
    assert len(whole.items) > 30
    for name in ("starts", "items", "times_us"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    assert all(lies_in_a_file(array) for array in (whole.items, whole.times_us))
    assert list((tmp_path / "scratch").iterdir()) == []
