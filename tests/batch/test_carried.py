"""Events carried on from an earlier night: every table is that of a night that reads all, whatever happened between."""

import datetime
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.bundle import Bundle
from artifacts.layout import RootLayout
from artifacts.run import Run
from artifacts.tables import read_table
from batch import prepare as step
from batch.prepare import PrepareRequest, prepare
from features.inputs import Inputs, Source

FIRST = datetime.datetime(2026, 2, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
Row = tuple[int, int, datetime.datetime]


@dataclass
class Shop:
    """Raw tables in a folder, of ids that are numbers or text; and nights of them."""

    folder: Path
    bundles: tuple[Path, ...]
    text: bool = False

    def events(self, name: str, rows: list[Row]) -> None:
        users, items, times = zip(*rows, strict=True) if rows else ((), (), ())
        columns = {
            "user": pa.array([f"u{user}" if self.text else user for user in users], self.user_type),
            "item": pa.array(items, pa.int64()),
            "at": pa.array(times, pa.timestamp("us", "UTC")),
        }
        (self.folder / "events").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), self.folder / "events" / name, row_group_size=50)

    def ids(self, table: str, ids: list[Any], column: str, kind: pa.DataType, **more: list[Any]) -> None:
        pq.write_table(pa.table({column: pa.array(ids, kind), **more}), self.folder / f"{table}.parquet")

    @property
    def user_type(self) -> pa.DataType:
        return pa.string() if self.text else pa.int64()

    def catalogue(self, items: list[int]) -> None:
        more = {"class": [f"c{item % 5}" for item in items], "name": [f"item {item}" for item in items]}
        self.ids("items", items, "id", pa.int64(), **more)

    def users(self, users: list[int]) -> None:
        ids = [f"u{user}" if self.text else user for user in users]
        self.ids("users", ids, "user", self.user_type, sex=["fm"[user % 2] for user in users])

    def without(self, *, users: tuple[int, ...] = (), items: tuple[int, ...] = ()) -> None:
        self.ids("gone", [f"u{user}" if self.text else user for user in users], "id", self.user_type)
        self.ids("blocked", list(items), "id", pa.int64())

    def request(self, day: int, **changes: Any) -> PrepareRequest:
        at = lambda name, **columns: Source(str(self.folder / name), columns)  # noqa: E731
        inputs = Inputs(
            interactions=at("events", user_id="user", item_id="item", time="at"),
            histories=None,
            users=at("users.parquet", user_id="user", gender="sex"),
            items=at("items.parquet", item_id="id", category="class", title="name"),
            exclude_users=at("gone.parquet", id="id"),
            exclude_items=at("blocked.parquet", id="id"),
        )
        usual = PrepareRequest(
            date=f"{FIRST + day * DAY:%Y-%m-%d}",
            zone="UTC",
            inputs=inputs,
            bundles=self.bundles,
            shards=3,
            popular_days=3,
            sample_users=9,
            batch_users=16,
            batch_items=8,
            newest_within_seconds=0,
            min_share_of_median=0,
            threads=1,
        )
        return replace(usual, **changes)


@pytest.fixture
def shop(tmp_path: Path, item_bundle: Bundle, user_bundle: Bundle) -> Shop:
    """Two days of events, each in a file."""
    shop = Shop(tmp_path / "data", (item_bundle.folder, user_bundle.folder))
    chance = random.Random(1)
    shop.events("0.parquet", happened(chance, 0))
    shop.events("1.parquet", happened(chance, 1))
    shop.catalogue(list(range(100, 130)))
    shop.users(list(range(40)))
    shop.without()
    return shop


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each night that was prepared in this test: whether it carried anything on."""
    told: list[bool] = []
    opening = step.open_histories

    def told_of(*args: Any, **named: Any) -> Any:
        told.append(named["engine"].carried is not None)
        return opening(*args, **named)

    monkeypatch.setattr(step, "open_histories", told_of)
    return told


def happened(chance: random.Random, day: int, *, rows: int = 120, late: int = 0, early: int = 0) -> list[Row]:
    """Draw events of a day, some in the same second and some twice, *late* ones of earlier days and *early* ones."""
    hours = [*[chance.randrange(24) for _ in range(rows)], *[-chance.randrange(1, 60) for _ in range(late)]]
    hours += [24 + chance.randrange(30) for _ in range(early)]
    start = FIRST + day * DAY
    drawn = [
        (chance.randrange(60), chance.randrange(95, 140), start + datetime.timedelta(hours=hour)) for hour in hours
    ]
    return [*drawn, *chance.sample(drawn, min(9, len(drawn)))]


def test_users_of_excluded_items_alone_are_users_of_the_next_night_too(
    shop: Shop, tmp_path: Path, carried: list[bool]
) -> None:
    """A full read has them, without events: who did something is a user."""
    shop.events("0.parquet", [*happened(random.Random(7), 0), (777, 105, FIRST)])
    shop.without(items=(105,))
    prepare(tmp_path / "root", shop.request(1))
    shop.events("2.parquet", happened(random.Random(8), 2))

    prepare(tmp_path / "root", shop.request(2))

    assert carried == [False, True]
    full = in_full(shop, tmp_path / "full", 2)
    assert {name: data for name, data in content(tmp_path / "root").items() if name in full} == full


def test_a_file_that_comes_or_changes_while_it_is_read_is_new_to_the_next_night(
    shop: Shop, tmp_path: Path, carried: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digests are of before: what a late upload brings is read by the night after, or all is."""
    opening = step.open_histories

    def late(*args: Any, **named: Any) -> Any:
        opened = opening(*args, **named)

        @contextmanager
        def reading() -> Iterator[Any]:
            with opened as histories:
                shop.events("1.parquet", happened(random.Random(5), 1, rows=30))
                yield histories

        return reading()

    with monkeypatch.context() as during:
        during.setattr(step, "open_histories", late)
        prepare(tmp_path / "root", shop.request(1))
    shop.events("2.parquet", happened(random.Random(8), 2))

    prepare(tmp_path / "root", shop.request(2))

    full = in_full(shop, tmp_path / "full", 2)
    assert {name: data for name, data in content(tmp_path / "root").items() if name in full} == full


def content(root: Path) -> dict[str, bytes]:
    files = (path for path in (root / "runs").rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def in_full(shop: Shop, root: Path, day: int, **changes: Any) -> dict[str, bytes]:
    """Prepare one night alone, with nothing to carry on; gives its files."""
    prepare(root, shop.request(day, **changes))
    return content(root)


def tonight(root: Path, date: str) -> dict[str, bytes]:
    return {name: said for name, said in content(root).items() if name.startswith(f"runs/{date}/")}


@pytest.mark.parametrize("seed", range(6))
def test_nights_in_a_row_have_the_bytes_of_full_ones(seed, shop, tmp_path, carried):
    """Late, early, doubled and tied events, new users and items, others gone: each night is what reading all gives."""
    chance = random.Random(seed)
    shop.text = seed % 2 == 1
    shop.events("0.parquet", happened(chance, 0, early=20 * (seed % 3 == 0)))
    shop.events("1.parquet", happened(chance, 1, late=20 * (seed % 3 == 1)))
    for day in range(1, 5):
        if day > 1:
            shop.events(
                f"{day}.parquet", happened(chance, day, rows=chance.choice([0, 5, 200]), late=chance.choice([0, 30]))
            )
        shop.catalogue(sorted(chance.sample(range(90, 140), 35)))
        shop.users(sorted(chance.sample(range(70), 40)))
        shop.without(items=(99, 105) if seed % 2 else (), users=(5, 50) if seed % 3 else ())

        prepare(tmp_path / "root", shop.request(day))

        alone = in_full(shop, tmp_path / f"alone-{day}", day)
        assert tonight(tmp_path / "root", shop.request(day).date) == alone
    assert carried == [False, False, *[True, False] * 3]


def test_one_file_that_holds_later_days_too_is_carried_on(shop, tmp_path, carried):
    """What an earlier night had cut off as the future is read from the same file by the next."""
    for part in (shop.folder / "events").iterdir():
        part.unlink()
    chance = random.Random(5)
    shop.events("all.parquet", [row for day in range(4) for row in happened(chance, day, early=9)])

    for day in range(4):
        prepare(tmp_path / "root", shop.request(day))
        assert tonight(tmp_path / "root", shop.request(day).date) == in_full(shop, tmp_path / f"alone-{day}", day)
    assert carried == [False, False, *[True, False] * 3]


def _take_away(shop: Shop) -> None:
    (shop.folder / "events" / "0.parquet").unlink()


def _change(shop: Shop) -> None:
    shop.events("0.parquet", happened(random.Random(9), 0))


def _exclude(shop: Shop) -> None:
    shop.without(users=(3,))


def _block(shop: Shop) -> None:
    shop.without(items=(110,))


@pytest.mark.parametrize("meanwhile", [_take_away, _change, _exclude, _block])
def test_what_was_read_has_changed_and_all_is_read_again(meanwhile: Callable[[Shop], None], shop, tmp_path, carried):
    """A file that is gone or has other bytes, a user or an item that is excluded: nothing is carried on."""
    prepare(tmp_path / "root", shop.request(1))
    meanwhile(shop)

    prepare(tmp_path / "root", shop.request(2))

    assert tonight(tmp_path / "root", shop.request(2).date) == in_full(shop, tmp_path / "alone", 2)
    assert carried == [False, False, False]


def test_excluded_users_are_counted_again_and_named_nowhere(shop, tmp_path, carried):
    """Who of the excluded had done something makes no difference, and neither they nor their events are left behind."""
    shop.text = True
    for day in (0, 1):
        shop.events(f"{day}.parquet", happened(random.Random(day), day))
    shop.users(list(range(40)))
    shop.without(users=(3, 17, 59, 777))

    runs = [prepare(tmp_path / "root", shop.request(day))[0] for day in (1, 2)]

    assert tonight(tmp_path / "root", shop.request(2).date) == in_full(shop, tmp_path / "alone", 2)
    assert carried == [False, True, False]
    assert [run.counts["users_excluded"] for run in runs] == [3, 3]
    assert runs[1].counts["interactions_of_excluded_users"] > 0
    left = read_table(runs[0].layout.carried("users"))
    assert not {"u3", "u17", "u59"} & set(left["user_id"].to_pylist())


def test_the_same_file_twice_counts_twice(shop, tmp_path, carried):
    """A copy of a file that was read is a new one: its events happened again."""
    prepare(tmp_path / "root", shop.request(1))
    shutil.copy(shop.folder / "events" / "0.parquet", shop.folder / "events" / "0-again.parquet")

    run, result = prepare(tmp_path / "root", shop.request(2))

    assert tonight(tmp_path / "root", shop.request(2).date) == in_full(shop, tmp_path / "alone", 2)
    assert carried == [False, True, False]
    assert (run.counts["interactions_read"], result.counts["carried"]) == (3 * 129, 2 * 129)


@pytest.mark.parametrize("changes", [{"shards": 2}, {"keep_unchanged": False}, {"date": "2026-01-31"}])
def test_other_shards_an_earlier_date_or_a_no_read_all(changes, shop, tmp_path, carried):
    """Users in another order, a night before the last one, or ``keep_unchanged = false``."""
    prepare(tmp_path / "root", shop.request(1))
    request = shop.request(2, **changes)

    if "date" in changes:
        shop.events("-1.parquet", happened(random.Random(4), -1))
        prepare(tmp_path / "root", replace(request, inputs=shop.request(0).inputs))
    else:
        prepare(tmp_path / "root", request)

    assert tonight(tmp_path / "root", request.date) == in_full(shop, tmp_path / "alone", 2, **changes)
    assert carried == [False, False, False]


def test_another_profile_or_length_of_lists_carries_on(shop, tmp_path, carried):
    """Events depend on neither; the second run of a date carries on from the first."""
    prepare(tmp_path / "root", shop.request(1))

    prepare(tmp_path / "root", shop.request(1, batch_users=32, popular_days=1, semantic={"score": {"top_n": 4}}))

    assert carried == [False, True]


def _parts(run: Run, root: Path) -> Iterator[Path]:
    for part in ("items", "users", "events"):
        yield run.layout.carried(part)
        yield run.layout.carried(part).with_name(f"{part}.arrow.done.json")
    yield from RootLayout(root).request(run.date, "").parent.glob("*.json")


def test_what_is_damaged_missing_or_of_another_night_is_not_used(shop, tmp_path, carried):
    """A flipped byte anywhere, a file that is gone: the night reads all, and no error is seen."""
    run, _ = prepare(tmp_path / "whole", shop.request(1))
    alone = in_full(shop, tmp_path / "alone", 2)
    names = [path.relative_to(tmp_path / "whole") for path in _parts(run, tmp_path / "whole")]
    assert len(names) == 7
    del carried[:]

    for number, name in enumerate(names):
        for kind in ("flipped", "gone"):
            root = tmp_path / f"{kind}-{number}"
            shutil.copytree(tmp_path / "whole", root)
            said = bytearray((root / name).read_bytes())
            said[len(said) // 2] ^= 1
            (root / name).write_bytes(said) if kind == "flipped" else (root / name).unlink()

            prepare(root, shop.request(2))

            assert tonight(root, shop.request(2).date) == alone
    assert carried == [False] * 14


def test_a_run_of_other_events_that_look_alike_is_not_carried_on(shop, tmp_path, carried):
    """Events a fraction of a second apart make equal tables, so the run is found - with what others had left there."""
    prepare(tmp_path / "root", shop.request(1))
    table = pq.read_table(shop.folder / "events" / "0.parquet")
    earlier = [moment - datetime.timedelta(microseconds=1) for moment in table["at"].to_pylist()]
    moved = table.set_column(2, "at", pa.array(earlier, table.schema.field("at").type))
    pq.write_table(moved, shop.folder / "events" / "0.parquet")
    prepare(tmp_path / "root", shop.request(1))

    prepare(tmp_path / "root", shop.request(2))

    assert carried == [False, False, False]
