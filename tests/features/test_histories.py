import hashlib
from collections import defaultdict
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from artifacts.digest import file_digest
from artifacts.errors import InputError, NightrecError, UsageError
from artifacts.tables import writing_table
from features.catalogue import encode_catalogue
from features.histories import Behaviours, Cut, open_histories
from features.inputs import Source
from features.ordered import Engine
from features.vocabulary import fit_vocabulary
from tests.features.slowly import NOW, slow_histories, tables

ITEMS = [(10, "a"), (20, "b"), (30, None), (40, "a")]
HISTORIES = {"user_id": "visitor", "item_ids": "skus", "times": "ats"}
LAW = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


EVENTS = st.lists(
    st.tuples(
        st.none() | st.integers(-3, 4), st.none() | st.sampled_from([10, 20, 30, 40, 50, 60]), st.integers(-20, 7_300)
    ),
    min_size=12,  # shorter ones are mostly of nulls and of one user
    max_size=40,
)


@LAW
@given(events=EVENTS, shards=st.integers(1, 3))
@example(events=[], shards=2)
def test_every_user_is_told_the_newest_behaviours(events, shards, shop, spec, day, tmp_path_factory):
    """Histories and seen are what a loop over the users makes of §2: nulls, future, exclusions, strangers, ties."""
    made = shop(events, ITEMS, [(1, "nl"), (9, "be"), (3, "xx"), (4, None)], gone_users=[2], gone_items=[20, 77])
    folder = tmp_path_factory.mktemp("night")
    found = tables(made, made.inputs(folder), spec, day, folder / "scratch", shards=shards)
    histories, seen = slow_histories(made, spec)

    def shard(row):
        digest = hashlib.md5(str(row["user_id"]).encode()).digest()
        return int.from_bytes(digest[:8], "little") % shards

    for number in range(shards):
        assert found["histories"][number].to_pylist() == [row for row in histories if shard(row) == number]
        assert found["seen"][number].to_pylist() == [row for row in seen if shard(row) == number]
    usable = [event for event in events if None not in event]
    past = [event for event in usable if event[2] > 0]
    kept = [event for event in past if event[0] != 2 and event[1] != 20]
    assert found["counts"] == {
        "interactions_read": len(events),
        "interactions_null": len(events) - len(usable),
        "interactions_future": len(usable) - len(past),
        "interactions_before_1970": 0,
        "interactions": len(kept),
        "interactions_of_excluded_users": sum(event[0] == 2 for event in past),
        "interactions_with_excluded_items": sum(event[1] == 20 for event in past if event[0] != 2),
        "interactions_uncatalogued": sum(event[1] in (50, 60) for event in kept),
        "gaps_negative": 0,
        "users": len(histories),
        "users_excluded": int(any(event[0] == 2 for event in past)),
        "users_cold": sum(not row["history_length"] for row in histories),
        "users_country_unknown": sum(row["profile_country"] == 1 for row in histories),
    }


def test_what_is_excluded_is_gone_everywhere(tmp_path, shop, spec, day):
    """An excluded user has no row, an excluded item no place in any list, the older behaviours move up; all counted."""
    events = [(1, 20, 5), (1, 10, 6), (1, 60, 7), (1, 20, 8), (1, 30, 9), (2, 10, 5), (2, 20, 5), (3, 20, 5)]
    made = shop(events, ITEMS, [(4, "nl")], gone_users=[2, 4, 99], gone_items=[20, 60, 98])
    found = tables(made, made.inputs(tmp_path), spec, day, tmp_path / "scratch")

    histories, seen = found["histories"][0].to_pydict(), found["seen"][0].to_pydict()
    assert histories["user_id"] == [1, 3]
    assert histories["history_item_id"] == [[2, 4], []]
    assert seen["items"] == [[0, 1], []]  # 10 and 30 are the first of the three that are left
    assert found["popular"].to_pydict() == {"item_id": [10, 30], "item": [0, 1], "events": [1, 1]}
    counts = found["counts"]
    assert (counts["users"], counts["users_excluded"], counts["users_cold"]) == (2, 2, 1)
    assert (counts["interactions_of_excluded_users"], counts["interactions_with_excluded_items"]) == (2, 4)


def test_a_negative_gap_cannot_come_of_a_future_event(tmp_path, shop, spec, day):
    """The last microsecond of the day is read with gap 0; the first of the next is future, cut and counted."""
    made = shop([(1, 10, 0), (1, 20, 1), (1, 30, -1)], ITEMS)
    found = tables(made, made.inputs(tmp_path), spec, day, tmp_path / "scratch")

    assert found["counts"]["interactions_future"] == 2
    assert found["histories"][0].column("history_item_id").to_pylist() == [[3]]
    assert found["seen"][0].column("last_gap").to_pylist() == [[1]]


@LAW
@given(events=EVENTS, data=st.data())
def test_the_order_of_the_input_changes_nothing(events, data, shop, spec, day, tmp_path_factory, write_parquet):
    """Row order, the cut into files, their names, row-group sizes, threads and memory change no row and no count."""
    made = shop(events, ITEMS, [(1, "nl"), (9, "be")], gone_users=[2])
    folder = tmp_path_factory.mktemp("night")
    inputs = made.inputs(folder / "in")
    expected = tables(made, inputs, spec, day, folder / "scratch", shards=2)

    shuffled = made.with_events(data.draw(st.permutations(events))).interactions()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=3)))
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(events)], strict=True)):
        part = shuffled.slice(start, stop - start)
        size = data.draw(st.sampled_from([1, 7, 100]))
        write_parquet(folder / "cut" / f"{9 - number}" / "x.parquet", part, row_group_size=size)
    other = replace(inputs, interactions=replace(inputs.interactions, path=str(folder / "cut")))

    assert tables(made, other, spec, day, folder / "scratch", shards=2, threads=2, memory="150MB") == expected


@LAW
@given(events=EVENTS, large=st.booleans(), data=st.data())
def test_ready_made_histories_are_interactions(events, large, data, shop, spec, day, tmp_path_factory, write_parquet):
    """Lists give the same tables as the same events one by one: nulls, empty and large lists, slices, any order."""
    events = [event for event in events if event[0] is not None]
    made = shop(events, ITEMS, [(1, "nl"), (9, "be")], gone_items=[20])
    folder = tmp_path_factory.mktemp("night")
    inputs = made.inputs(folder)
    expected = tables(made, inputs, spec, day, folder / "scratch")

    lists = defaultdict(lambda: ([], []))
    for user, item, ago in events:
        lists[user][0].append(item)
        lists[user][1].append(1_773_187_200 - ago)
    rows = [(user, *both) for user, both in lists.items()]
    rows += [(9, [], []), (9, None, None)]  # listed among the users too
    rows = data.draw(st.permutations(rows))
    of = pa.large_list if large else pa.list_
    table = pa.table(
        {
            "visitor": pa.array([1, *(user for user, _, _ in rows)]),
            "skus": pa.array([[10], *(items for _, items, _ in rows)], of(pa.int64())),
            "ats": pa.array([[5], *(times for _, _, times in rows)], of(pa.timestamp("s"))),
        }
    ).slice(1)
    path = write_parquet(folder / "histories.parquet", table, row_group_size=data.draw(st.sampled_from([1, 50])))
    other = replace(inputs, interactions=None, histories=Source(str(path), HISTORIES))

    assert tables(made, other, spec, day, folder / "scratch") == expected


def test_a_user_with_an_empty_list_is_a_user(tmp_path, shop, spec, day, write_parquet):
    """Whoever only appears in the users, or with an empty history, or in interactions, is told about."""
    made = shop([], ITEMS, [(9, "nl")])
    rows = pa.table(
        {
            "visitor": [5, 6],
            "skus": pa.array([[], [10]], pa.list_(pa.int64())),
            "ats": pa.array([[], [7]], pa.list_(pa.timestamp("s"))),
        }
    )
    where = Source(str(write_parquet(tmp_path / "h.parquet", rows)), HISTORIES)
    inputs = replace(made.inputs(tmp_path), interactions=None, histories=where)
    found = tables(made, inputs, spec, day, tmp_path / "scratch")

    assert found["histories"][0].column("user_id").to_pylist() == [5, 6, 9]
    assert found["counts"]["users_cold"] == 2


def test_lists_that_do_not_match_are_refused(tmp_path, shop, spec, day, write_parquet):
    """A history with more items than times is an error naming the file, the user and both columns."""
    made = shop([], ITEMS)
    rows = pa.table({"visitor": [5], "skus": [[10, 20]], "ats": pa.array([[7]], pa.list_(pa.timestamp("s")))})
    where = Source(str(write_parquet(tmp_path / "h.parquet", rows)), HISTORIES)
    inputs = replace(made.inputs(tmp_path), interactions=None, histories=where)
    with pytest.raises(InputError, match=r"h\.parquet: user 5 has 2 items in column skus, but 1 times in ats"):
        tables(made, inputs, spec, day, tmp_path / "scratch")


@pytest.mark.parametrize(
    ("kind", "big"),
    [("uint64", [2**64 - 1, 2**63, 2**53 + 1, 0]), ("int64", [-(2**63), 2**63 - 1, 2**53 + 1, 0])],
)
def test_ids_come_out_as_they_went_in(kind, big, tmp_path, shop, spec, day):
    """The greatest and least ids neither wrap nor pass through a float, as users and as items."""
    made = shop([(id_, id_, 5) for id_ in big], [(id_, "a") for id_ in big], user_type=kind, item_type=kind)
    inputs = made.inputs(tmp_path)
    vocabularies = {
        "item_id": fit_vocabulary("item_id", pa.array(big, kind)),
        "brand": fit_vocabulary("brand", pa.array(["a"])),
    }
    spec = replace(spec, profile_features=())
    catalogue, _ = encode_catalogue(inputs, spec=spec, vocabularies=vocabularies)
    with open_histories(
        inputs, catalogue=catalogue, spec=spec, vocabularies=vocabularies, cut=Cut(day), engine=Engine(tmp_path / "s")
    ) as night:
        histories, seen = map(pa.Table.from_batches, zip(*night.users(0), strict=True))
        popular = night.popular()

    assert histories.column("user_id").to_pylist() == sorted(big)
    assert histories.column("history_item_id").to_pylist() == [[2], [3], [4], [5]]
    assert seen.column("items").to_pylist() == [[0], [1], [2], [3]]
    assert popular.column("item_id").to_pylist() == sorted(big)
    assert popular.schema.field("item_id").type == pa.type_for_alias(kind)


def test_text_ids_are_ordered_by_their_bytes(tmp_path, shop, spec, day):
    """Text sorts by UTF-8 bytes everywhere, whatever the locale: capitals first, accents last."""
    users = ["b", "B", "é", "", "a b", "😀", "z"]
    made = shop([(user, "1", 5) for user in users], [("1", "a")], user_type="string", item_type="string")
    found = tables(made, made.inputs(tmp_path), spec, day, tmp_path / "scratch")

    assert found["histories"][0].column("user_id").to_pylist() == sorted(users, key=str.encode)


def test_popular_counts_the_last_days(tmp_path, shop, spec, day):
    """Events of the last days count, most first, ties by id; strangers and items without events are left out."""
    day_seconds = 86_400
    events = [(1, 40, 1), (2, 40, 2), (1, 10, 2 * day_seconds), (2, 30, 5), (1, 20, 2 * day_seconds + 1), (1, 50, 1)]
    made = shop(events, ITEMS)
    found = tables(made, made.inputs(tmp_path), spec, day, tmp_path / "scratch", popular_days=2)

    assert found["popular"].to_pydict() == {"item_id": [40, 10, 30], "item": [3, 0, 2], "events": [2, 1, 1]}


def test_the_sample_is_of_the_smallest_hashes(tmp_path, shop, spec, day):
    """The sample has the users with behaviours whose hashes are smallest, and their rows of the tables."""
    events = [(user, 10, 5 + user) for user in range(0, 60, 2)]
    made = shop(events, ITEMS, [(user, "nl") for user in range(60)])
    found = tables(made, made.inputs(tmp_path), spec, day, tmp_path / "scratch", shards=3, sample_users=7)

    smallest = sorted(range(0, 60, 2), key=lambda u: hashlib.md5(str(u).encode()).digest()[7::-1])[:7]
    rows = [row for shard in found["histories"] for row in shard.to_pylist() if row["user_id"] in smallest]
    assert found["sample"].to_pylist() == sorted(rows, key=lambda row: row["user_id"])


def test_many_users_are_streamed_in_batches(tmp_path, shop, spec, day):
    """Beyond one batch of users and of events every row is still its user's own, in order, with several threads."""
    rng = np.random.default_rng(3)
    users, per_user = 9_000, rng.integers(0, 60, 9_000)
    owners = np.repeat(np.arange(users), per_user)
    ago = rng.integers(1, 7_300, len(owners))
    items = rng.choice([10, 20, 30, 40, 60], len(owners))
    made = shop(list(zip(owners.tolist(), items.tolist(), ago.tolist(), strict=True)), ITEMS)
    found = tables(made, made.inputs(tmp_path), spec, day, tmp_path / "scratch", threads=2)
    histories, seen = found["histories"][0], found["seen"][0]

    order = np.lexsort((-items, ago, owners))
    active = np.unique(owners)
    assert histories.column("user_id").to_pylist() == active.tolist()
    newest = [chunk[:3].tolist() for chunk in np.split(items[order], np.cumsum(per_user)[:-1]) if len(chunk)]
    rows = {10: 2, 20: 3, 30: 4, 40: 1, 60: 1}
    assert histories.column("history_item_id").to_pylist() == [[rows[item] for item in told] for told in newest]
    assert sum(map(sum, seen.column("times").to_pylist())) == np.count_nonzero(items != 60)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_sample_of_many_events_is_rows_of_the_histories(threads, tmp_path, shop, spec, day, write_parquet):
    """Where the events fill several row groups, sampled rows are the histories' in all columns, in the same bytes."""
    rng = np.random.default_rng(5)
    events = 300_000
    made = shop([], ITEMS, [(user, "nl") for user in range(0, 6_000, 3)])
    inputs = made.inputs(tmp_path)
    owners, items = rng.integers(0, 6_000, events), rng.choice([10, 20, 30, 40, 60], events)
    at = pa.array(NOW - rng.integers(1, 7_300, events), pa.timestamp("s", "UTC"))
    write_parquet(tmp_path / "interactions.parquet", pa.table({"visitor": owners, "sku": items, "at": at}))
    options = {"shards": 2, "sample_users": 300, "threads": threads}
    found = tables(made, inputs, spec, day, tmp_path / "scratch", **options)
    sample = found["sample"]

    assert len(sample) == 300
    histories = pa.concat_tables(found["histories"]).sort_by("user_id")
    expected = histories.filter(pc.is_in(histories.column("user_id"), sample.column("user_id").combine_chunks()))
    assert sample.schema == expected.schema
    assert sample.to_pylist() == expected.to_pylist()
    again = tables(made, inputs, spec, day, tmp_path / "scratch", **options)["sample"]
    for name, table in (("one", sample), ("two", again)):
        with writing_table(tmp_path / f"{name}.arrow", table.schema, metadata={}, inputs="") as file:
            file.write(table)
    assert file_digest(tmp_path / "one.arrow") == file_digest(tmp_path / "two.arrow")


def test_a_user_is_listed_once(tmp_path, shop, spec, day):
    """Two rows of one user may contradict each other: an error naming file, column and user."""
    made = shop([], ITEMS, [(7, "nl"), (8, "nl"), (7, "be")])
    with pytest.raises(InputError) as raised:
        tables(made, made.inputs(tmp_path), spec, day, tmp_path / "scratch")
    assert str(raised.value) == (
        f"{tmp_path / 'users.parquet'}: user id 7 is there more than once in column visitor; keep one row of each user"
    )


def test_a_user_without_an_id_is_refused(tmp_path, shop, spec, day):
    """A null is no user: an error naming file and column."""
    made = shop([], ITEMS, [(7, "nl"), (None, "be")])
    with pytest.raises(InputError, match=r"users\.parquet: column visitor of users has nulls$"):
        tables(made, made.inputs(tmp_path), spec, day, tmp_path / "scratch")


def test_events_before_1970_are_the_oldest_and_counted(tmp_path, shop, spec, day):
    """A clock that was not set puts events last; the first moment of 1970 is not before it."""
    made = shop([(1, 10, NOW + 1), (1, 20, NOW), (1, 30, 5), (2, 10, NOW + 9)], ITEMS)
    found = tables(made, made.inputs(tmp_path), spec, day, tmp_path / "scratch")

    assert found["counts"]["interactions_before_1970"] == 2
    assert found["histories"][0].column("history_item_id").to_pylist() == [[4, 3, 2], [2]]
    assert found["seen"][0].column("last_gap").to_pylist() == [[NOW + 1, NOW, 5], [NOW + 9]]


def test_profile_features_need_a_column(tmp_path, shop, spec, day):
    """A model that takes a profile feature is not fed unknowns because no column was declared."""
    made = shop([], ITEMS)
    with pytest.raises(UsageError, match="feature country"):
        tables(made, replace(made.inputs(tmp_path), users=None), spec, day, tmp_path / "scratch")


def test_an_error_in_the_stream_keeps_its_name(tmp_path, shop, spec, day):
    """A time that does not fit is found in the middle of DuckDB's reading, and still names file and column."""
    made = shop([(1, 10, 5), (1, 10, -(2**53))], ITEMS)
    with pytest.raises(InputError, match=r"interactions\.parquet: column at: a time is out of range"):
        tables(made, made.inputs(tmp_path), spec, day, tmp_path / "scratch")


def test_what_is_too_small_says_so_and_leaves_nothing(tmp_path, shop, spec, day):
    """When memory does not suffice the error says what to raise; the scratch folder is empty afterwards."""
    made = shop([(user, 10, 5) for user in range(100)], ITEMS)
    inputs = made.inputs(tmp_path)
    with pytest.raises(NightrecError, match=r"\[night\] memory"):
        tables(made, inputs, spec, day, tmp_path / "scratch", memory="1KB")
    tables(made, inputs, spec, day, tmp_path / "scratch")

    assert list((tmp_path / "scratch").iterdir()) == []


LATE_EVENTS = st.lists(
    st.tuples(st.none() | st.integers(-3, 4), st.sampled_from([10, 20, 30, 40, 50, 60]), st.integers(-20, 250_000)),
    min_size=12,
    max_size=40,
)


@LAW
@given(events=LATE_EVENTS)
def test_the_replay_is_the_night_before_asked_again(events, shop, spec, day, tmp_path_factory):
    """Who did something on the data date stands in the replay as in the night before, and what they did is apart."""
    made = shop(events, ITEMS, [(1, "nl"), (9, "be"), (3, "xx"), (4, None)], gone_users=[2], gone_items=[20, 77])
    folder = tmp_path_factory.mktemp("night")
    inputs = made.inputs(folder)
    replay = tables(made, inputs, spec, day, folder / "scratch")["replay"]
    before = tables(made, inputs, spec, day - timedelta(days=1), folder / "scratch", shards=2)

    did = defaultdict(set)
    rows = {item: row for row, item in enumerate([10, 30, 40])}
    for user, item, ago in events:
        if user not in (None, 2) and item != 20 and 0 < ago <= 86_400:
            did[user].add(rows.get(item))
    assert replay.happened.to_pylist() == [
        {"user_id": user, "items": sorted(did[user] - {None})} for user in sorted(did)
    ]
    assert replay.popular == before["popular"]
    for name in ("histories", "seen"):
        was = {row["user_id"]: row for table in before[name] for row in table.to_pylist()}
        found = getattr(replay, name).to_pylist()
        assert [row["user_id"] for row in found] == sorted(did)
        for row in found:
            if row["user_id"] in was:
                assert row == was[row["user_id"]]
            else:  # somebody who came on the data date
                assert not row[{"histories": "history_item_id", "seen": "items"}[name]]


def test_what_happens_as_a_day_begins_is_of_that_day():
    """Of the replay: at the first moment of the data date a user has not yet done what they do in it."""
    behaviours = Behaviours(np.array([2, 0, 1]), np.array([5, 6, 7], np.int32), np.array([10, 9, 10]))

    before, after = behaviours.split(10)

    assert (before.counts.tolist(), before.codes.tolist(), before.times_us.tolist()) == ([1, 0, 0], [6], [9])
    assert (after.counts.tolist(), after.codes.tolist(), after.times_us.tolist()) == ([1, 0, 1], [5, 7], [10, 10])
