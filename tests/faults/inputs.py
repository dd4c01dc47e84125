"""Bad tables: every column missing, renamed, of another type, null or empty; odd ids, times, rows and files."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.faults.ground import TABLES, Case, Counted, Ground, Refused, Same
from tests.night.shop import COLD_USERS, ITEMS, USERS

Damage = Callable[[Ground], None]
Column = Callable[[pa.ChunkedArray], Any]

COLUMNS = {
    "interactions": ("user_id", "item_id", "time"),
    "items": ("item_id", "title", "category", "eligible"),
    "users": ("user_id", "country"),
    "exclude_users": ("id",),
    "exclude_items": ("id",),
    "histories": ("user_id", "item_ids", "times"),
}
DAY = datetime(2026, 3, 31, 12, tzinfo=UTC)
EVENTS, SECOND_LIST = 5_152, 8  # of the undamaged shop: all events, and those of its second user
FORBIDDEN_NULLS = {("items", "item_id"), ("items", "eligible"), ("users", "user_id")}
EXCLUDED = {("exclude_users", "id"), ("exclude_items", "id")}


def cases() -> Iterator[Case]:
    """Every case of bad tables."""
    yield from column_cases()
    yield from empty_cases()
    yield from id_cases()
    yield from time_cases()
    yield from row_cases()
    yield from file_cases()


def changed(table: str, column: str, change: Column, ground: Ground) -> None:
    """Put what *change* makes of a column into its place."""
    rows = ground.read(table)
    place = rows.column_names.index(column)
    ground.write(table, rows.set_column(place, column, change(rows[column])))


def rewritten(table: str, change: Callable[[pa.Table], pa.Table], ground: Ground) -> None:
    """Put what *change* makes of a table into its place."""
    ground.write(table, change(ground.read(table)))


def with_histories(damage: Damage, ground: Ground) -> None:
    """Give the shop ready-made lists in place of events, then do the damage."""
    events = ground.read("interactions").sort_by([("user_id", "ascending"), ("time", "ascending")])
    lists = events.group_by("user_id", use_threads=False).aggregate([("item_id", "list"), ("time", "list")])
    ground.write("histories", lists.rename_columns(COLUMNS["histories"]))
    ground.edit("[inputs.interactions]", "[inputs.histories]")
    ground.edit("data/interactions.parquet", "data/histories.parquet")
    damage(ground)


def _of(table: str, damage: Damage) -> Damage:
    return partial(with_histories, damage) if table == "histories" else damage


def _one_null(values: pa.ChunkedArray) -> pa.Array:
    """Make the second value null (the first item is excluded), or the only one."""
    place = min(1, len(values) - 1)
    return pa.array([None if row == place else value for row, value in enumerate(values.to_pylist())], values.type)


def _other_type(values: pa.ChunkedArray) -> pa.Array:
    kind = values.type
    if pa.types.is_list(kind):
        return pa.array([str(value) for value in values.to_pylist()])
    return pa.array(np.arange(len(values)) + 0.5)


def column_cases() -> Iterator[Case]:
    """Every column missing, renamed, of another type, partly null, all null, and of the type null."""
    for table, columns in COLUMNS.items():
        for column in columns:
            file = f"{table}.parquet"
            renamed = f"{column}_x"

            def say(name: str, damage: Damage, expects: Any, table: str = table, column: str = column) -> Case:
                return Case(f"{table}.{column} {name}", _of(table, damage), expects)

            names = [renamed if one == column else one for one in columns]
            mapped = "title" if column == "title" else column
            yield say(
                "missing",
                partial(rewritten, table, lambda rows, column=column: rows.drop_columns(column)),
                Refused([4], [file, f"column {mapped}", "missing"]),
            )
            yield say(
                "renamed",
                partial(rewritten, table, lambda rows, names=names: rows.rename_columns(names)),
                Refused([4], [file, f"column {mapped}", f"did you mean {renamed}?"]),
            )
            yield say("of another type", partial(changed, table, column, _other_type), Refused([4], [file, column]))
            yield say(
                "of no type",
                partial(changed, table, column, lambda values: pa.nulls(len(values))),
                Refused([4], [file, column, "null"]),
            )
            yield say("partly null", partial(changed, table, column, _one_null), _of_nulls(table, column))
            yield say(
                "all null",
                partial(changed, table, column, lambda values: pa.nulls(len(values), values.type)),
                _of_all_null(table, column),
            )


def _of_nulls(table: str, column: str) -> Any:
    if (table, column) in FORBIDDEN_NULLS | EXCLUDED:
        return Refused([4], [f"{table}.parquet", f"column {column}", "null"])
    if table == "interactions":
        return Counted({"interactions_null": 1}, partial(rewritten, table, _without_second))
    return {
        "title": Counted({"items_untitled": 1}),
        "category": Counted({"items_category_unknown": ITEMS // 40 + 1}),
        "country": Counted({"users_country_unknown": 1}),
        "user_id": Counted({"interactions_null": SECOND_LIST}),
        "item_ids": Refused([4], ["histories.parquet", f"0 items in column item_ids, but {SECOND_LIST} times"]),
        "times": Refused([4], ["histories.parquet", f"{SECOND_LIST} items in column item_ids, but 0 times"]),
    }[column]


def _of_all_null(table: str, column: str) -> Any:
    if (table, column) in FORBIDDEN_NULLS | EXCLUDED:
        return Refused([4], [f"{table}.parquet", f"column {column}", "null"])
    nothing = Counted({"interactions_null": EVENTS, "interactions": 0, "users_cold": USERS + COLD_USERS - 2})
    return {
        "title": Counted({"items_untitled": ITEMS - 1}),
        "category": Counted({"items_category_unknown": ITEMS - 1}),
        "country": Counted({"users_country_unknown": USERS + COLD_USERS - 2}),
        "user_id": nothing,
        "item_id": nothing,
        "item_ids": Refused([4], ["histories.parquet", "0 items in column item_ids"]),
    }.get(column, Refused([5], [table, "no event"]))


def empty_cases() -> Iterator[Case]:
    """Every table without a row, and text that is empty."""
    expects = {
        "interactions": Refused([5], ["interactions", "no event up to the end of 2026-03-31"]),
        "items": Refused([4], ["items.parquet", "expected items, found no rows"]),
        "users": Counted({"users_cold": 0, "users": USERS - 2, "users_country_unknown": USERS - 2}),
        "exclude_users": Counted({"users_excluded": 0}),
        "exclude_items": Counted({"items_excluded": 0}),
    }
    for table in TABLES:
        yield Case(f"{table} without rows", partial(rewritten, table, lambda rows: rows.slice(0, 0)), expects[table])
    yield Case(
        "histories without rows",
        _of("histories", partial(rewritten, "histories", lambda rows: rows.slice(0, 0))),
        Refused([5], ["histories", "no event up to the end of 2026-03-31"]),
    )

    def emptied(values: pa.ChunkedArray) -> pa.Array:
        return pa.array(["", *values.to_pylist()[1:]])

    yield Case("items.category empty text", partial(changed, "items", "category", emptied), Counted({"items": 159}))
    yield Case("items.item_id empty text", partial(changed, "items", "item_id", emptied), Counted({"items": 160}))
    yield Case("every item excluded", _exclude_all_items, Refused([4], ["exclude_items.parquet", "every item"]))
    yield Case("every user excluded", _exclude_all_users, Refused([3], ["rows"]), "run")


def _exclude_all_items(ground: Ground) -> None:
    ground.write("exclude_items", pa.table({"id": ground.read("items")["item_id"]}))


def _exclude_all_users(ground: Ground) -> None:
    ground.write("exclude_users", pa.table({"id": pa.array(range(USERS + COLD_USERS), pa.int64())}))


def _more_users(ids: list[Any], ground: Ground) -> None:
    rows = pa.table({"user_id": pa.array(ids, pa.int64()), "country": ["de"] * len(ids)})
    ground.write("users", pa.concat_tables([ground.read("users"), rows]))


def _retyped(kind: pa.DataType, column: str, tables: tuple[str, ...], ground: Ground) -> None:
    for table in tables:
        place = "id" if table.startswith("exclude") else column
        changed(table, place, lambda values: pc.cast(values, kind), ground)


def _more_items(ids: list[str], ground: Ground) -> None:
    count = len(ids)
    rows = pa.table({"item_id": ids, "title": ids, "category": ["books"] * count, "eligible": [True] * count})
    ground.write("items", pa.concat_tables([ground.read("items"), rows]))
    events = pa.table({"user_id": pa.array([7] * count, pa.int64()), "item_id": ids, "time": [DAY] * count})
    events = events.cast(ground.read("interactions").schema)
    ground.write("interactions", pa.concat_tables([ground.read("interactions"), events]))


def _not_utf8(values: pa.ChunkedArray) -> pa.Array:
    whole = values.combine_chunks()
    validity, offsets, data = whole.buffers()
    broken = bytearray(data.to_pybytes())
    broken[3] = 0xFF
    return pa.Array.from_buffers(pa.string(), len(whole), [validity, offsets, pa.py_buffer(bytes(broken))])


ODD = [
    "\u00e9",  # composed and decomposed: two ids
    "e\u0301",
    "\U0001f3b8 guitar",
    "\u202eright to left",
    "with\nline break",
    "with\ttab, \"quotes\", 'more' and \\",
    "with\x00nul",
    " blank at both ends ",
    "ITEM-0001",
    "'; DROP TABLE events; --",
    "../../etc/passwd",
    "\ufeffmark",
]


def id_cases() -> Iterator[Case]:
    """Ids at the limits of their types, of other types, and odd text."""
    users, items = ("interactions", "users", "exclude_users"), ("interactions", "items", "exclude_items")
    limits = [-(2**63), -1, 2**31, 2**53 + 1, 2**63 - 1]
    yield Case(
        "user ids at the limits of int64",
        partial(_more_users, limits),
        Counted({"users": USERS + COLD_USERS + 3}),
        "run",
    )
    for kind in (pa.int16(), pa.int32()):
        yield Case(f"user ids of {kind}", partial(_retyped, kind, "user_id", users), Same())
    yield Case(
        "user ids of uint64",
        partial(_retyped, pa.uint64(), "user_id", users),
        Counted({"users": USERS + COLD_USERS - 2}),
        "run",
    )
    for kind in (pa.float64(), pa.decimal128(20, 0), pa.date32()):
        damage = partial(changed, "users", "user_id", lambda ids, kind=kind: ids.cast(pa.int32()).cast(kind))
        yield Case(f"user ids of {kind}", damage, Refused([4], ["users.parquet", "user_id", str(kind)]))
    yield Case(
        "user ids of two types",
        partial(_retyped, pa.uint64(), "user_id", ("users",)),
        Refused([4], ["user ids are", "uint64 in users"]),
    )
    yield Case(
        "excluded ids of another type",
        partial(_retyped, pa.string(), "user_id", ("exclude_users",)),
        Refused([4], ["user ids are", "string in exclude_users"]),
    )
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        yield Case(f"item ids of {kind}", partial(_retyped, kind, "item_id", ("items", "interactions")), Same())
    yield Case(
        "item ids of bytes",
        partial(_retyped, pa.binary(), "item_id", items),
        Refused([4], ["interactions.parquet", "item_id", "binary"]),
    )
    yield Case(
        "item ids that are numbers, but text to the model",
        _numbered_items,
        Refused([4], ["item_id", "expected string as in its vocabulary, found int64"]),
    )
    yield Case("odd item ids", partial(_more_items, ODD), Counted({"items": ITEMS - 1 + len(ODD)}), "run")
    long = ["x" * 10_240, "x" * 10_239 + "y", "\u00e9" * 5_120]
    yield Case("item ids of 10 KB", partial(_more_items, long), Counted({"items": ITEMS - 1 + 3}), "run")
    for table, column in (("interactions", "item_id"), ("items", "item_id"), ("items", "category"), ("items", "title")):
        damage = partial(changed, table, column, _not_utf8)
        yield Case(f"{table}.{column} not UTF-8", damage, Refused([4], [f"{table}.parquet", column, "UTF-8"]))


def _numbered_items(ground: Ground) -> None:
    def numbers(values: pa.ChunkedArray) -> pa.Array:
        return pa.array([int(value[5:]) for value in values.to_pylist()], pa.int64())

    for table, column in (("interactions", "item_id"), ("items", "item_id"), ("exclude_items", "id")):
        changed(table, column, numbers, ground)


def _times(change: Callable[[np.ndarray], Any], ground: Ground) -> None:
    seconds = pa.timestamp("s", tz="UTC")  # Parquet has kept milliseconds
    changed("interactions", "time", lambda times: change(times.cast(seconds).cast(pa.int64()).to_numpy()), ground)


def _stamped(change: Callable[[np.ndarray], np.ndarray], ground: Ground) -> None:
    _times(lambda seconds: pa.array(change(seconds), pa.timestamp("s", tz="UTC")), ground)


def _first(value: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda seconds: np.concatenate([[value], seconds[1:]])


def _declared(unit: str, factor: int, ground: Ground) -> None:
    _times(lambda seconds: pa.array(seconds * factor), ground)
    ground.edit("[inputs.interactions]", f'[inputs.interactions]\ntime_unit = "{unit}"')


def _naive(ground: Ground) -> None:
    """Write local times of Berlin without a zone, and declare it."""

    def local(values: pa.ChunkedArray) -> pa.ChunkedArray:
        return pc.local_timestamp(values.cast(pa.timestamp("s", tz="Europe/Berlin")))

    changed("interactions", "time", local, ground)
    ground.edit("[inputs.interactions]", '[inputs.interactions]\nnaive_zone = "Europe/Berlin"')


def _without_second(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows.slice(0, 1), rows.slice(2)])


def _without_first(ground: Ground) -> None:
    rewritten("interactions", lambda rows: rows.slice(1), ground)


def time_cases() -> Iterator[Case]:
    """Times without a zone, of other units and types, in the future, before 1970, and beyond all calendars."""
    refused = ["interactions.parquet", "column time"]
    for unit in ("ms", "us", "ns"):
        damage = partial(changed, "interactions", "time", lambda t, unit=unit: t.cast(pa.timestamp(unit, tz="UTC")))
        yield Case(f"times in {unit}", damage, Same())
    for unit, factor in (("s", 1), ("ms", 1_000), ("us", 1_000_000)):
        yield Case(f"whole numbers, said to be {unit}", partial(_declared, unit, factor), Same())
    yield Case("times without a zone, whose zone is declared", _naive, Same())
    in_kolkata = partial(changed, "interactions", "time", lambda t: t.cast(pa.timestamp("s", tz="Asia/Kolkata")))
    yield Case("times of another zone", in_kolkata, Same())
    yield Case("whole numbers, of no unit", partial(_times, pa.array), Refused([4], [*refused, "time_unit"]))
    yield Case("milliseconds, said to be s", partial(_declared, "s", 1_000), Refused([4, 5], ["interactions"]))
    yield Case("seconds, said to be ms", partial(_declared, "ms", 1), Refused([5], ["the newest event is of 1970-01-"]))
    yield Case("microseconds, said to be s", partial(_declared, "s", 10**6), Refused([4], [*refused, "out of range"]))
    for kind in (pa.string(), pa.date32(), pa.time64("us"), pa.float64()):
        damage = partial(changed, "interactions", "time", lambda times, kind=kind: _as(times, kind))
        yield Case(f"times of {kind}", damage, Refused([4], [*refused, str(kind)]))
    future = int(datetime(2026, 4, 1, tzinfo=UTC).timestamp())
    one = Counted({"interactions_future": 1}, _without_first)
    yield Case("an event of the next day", partial(_stamped, _first(future)), one)
    yield Case("an event of 2199", partial(_stamped, _first(7_250_000_000)), one)
    yield Case("an event of 9999-12-31", partial(_stamped, _first(253_402_214_400)), one)
    yield Case("an event of the year 100,000", partial(_stamped, _first(3_093_527_980_800)), Refused([4], refused))
    yield Case("an event of 1969", partial(_stamped, _first(-86_400)), Counted({"interactions_before_1970": 1}))
    yield Case(
        "events of 1900", partial(_stamped, _first(-2_208_988_800)), Counted({"interactions_before_1970": 1}), "run"
    )
    smallest = partial(_times, lambda s: pa.array(_first(-(2**63))(s * 10**6), pa.timestamp("us", tz="UTC")))
    yield Case("the smallest time that there is", smallest, Refused([4], [*refused, "out of range"]))
    yield Case(
        "every event a year late",
        partial(_stamped, lambda seconds: seconds + 366 * 86_400),
        Refused([5], ["no event up to the end of 2026-03-31"]),
    )
    yield Case(
        "every event a year early", partial(_stamped, lambda s: s - 366 * 86_400), Refused([5], ["the newest event is"])
    )
    yield Case("an empty day", _empty_day, Refused([5], ["the newest event is of 2026-03-30"]))
    yield Case("a thin day", _thin_day, Refused([5], ["2026-03-31 has", "less than 0.5"]))


def _as(times: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if kind == pa.float64():
        return times.cast(pa.int64()).cast(kind)
    return pc.strftime(times) if kind == pa.string() else times.cast(pa.timestamp("us", tz="UTC")).cast(kind)


def _on_the_day(rows: pa.Table) -> pa.Array:
    midnight = pa.scalar(datetime(2026, 3, 30, 22, tzinfo=UTC), pa.timestamp("ms", tz="UTC"))
    return pc.greater_equal(rows["time"], midnight)


def _empty_day(ground: Ground) -> None:
    rewritten("interactions", lambda rows: rows.filter(pc.invert(_on_the_day(rows))), ground)
    ground.edit("[night]", "[day]\nnewest_within_hours = 20\n\n[night]")


def _thin_day(ground: Ground) -> None:
    def thinned(rows: pa.Table) -> pa.Table:
        on_day = _on_the_day(rows)
        return pa.concat_tables([rows.filter(pc.invert(on_day)), rows.filter(on_day).slice(0, 3)])

    rewritten("interactions", thinned, ground)


def _bot(ground: Ground) -> None:
    """Let one user have a million events."""
    rows = ground.read("interactions")
    number, ids = 1_000_000, rows["item_id"].unique().to_pylist()
    seconds = int(DAY.timestamp()) - np.arange(number) % 5_000_000
    bot = pa.table(
        {
            "user_id": pa.array(np.full(number, 9_999), pa.int64()),
            "item_id": pa.array([ids[place % len(ids)] for place in range(number)]),
            "time": pa.array(seconds, pa.timestamp("s", tz="UTC")),
        }
    )
    ground.write("interactions", pa.concat_tables([rows, bot.cast(rows.schema)]))


def _had_all(ground: Ground) -> None:
    """Let one user have had every item."""
    ids = ground.read("items")["item_id"].to_pylist()
    events = pa.table({"user_id": pa.array([9_999] * len(ids), pa.int64()), "item_id": ids, "time": [DAY] * len(ids)})
    events = events.cast(ground.read("interactions").schema)
    ground.write("interactions", pa.concat_tables([ground.read("interactions"), events]))


def _one_item(ground: Ground) -> None:
    rewritten("items", lambda rows: rows.slice(1, 1), ground)
    ground.edit("item_shards = 2", "item_shards = 1")
    ground.edit("lists = 3", "lists = 1")
    ground.edit("rules = [", "#")
    ground.edit("[retrieve]", '[retrieve]\nexclude_seen = "none"')


def _one_user(ground: Ground) -> None:
    rewritten("interactions", lambda rows: rows.filter(pc.equal(rows["user_id"], 7)), ground)
    rewritten("users", lambda rows: rows.slice(7, 1), ground)
    ground.edit("[night]", "[day]\nnewest_within_hours = 0\nmin_share_of_median = 0\n\n[night]")


def row_cases() -> Iterator[Case]:
    """Rows in another order, twice, far too many, and as few as can be."""
    shuffled = np.random.default_rng(1).permutation
    for table in TABLES:
        damage = partial(rewritten, table, lambda rows: rows.take(shuffled(len(rows))))
        yield Case(f"{table} unsorted", damage, Same())
    twice: Callable[[pa.Table], pa.Table] = lambda rows: pa.concat_tables([rows, rows])  # noqa: E731
    yield Case(
        "interactions twice", partial(rewritten, "interactions", twice), Counted({"interactions_read": 2 * EVENTS})
    )
    for table, column in (("items", "item_id"), ("users", "user_id")):
        once_more = partial(rewritten, table, lambda rows: pa.concat_tables([rows, rows.slice(5, 1)]))
        yield Case(f"one of {table} twice", once_more, Refused([4], [f"{table}.parquet", "more than once", column]))
    for table in ("exclude_users", "exclude_items"):
        yield Case(f"{table} twice", partial(rewritten, table, twice), Same())
    yield Case("a bot of a million events", _bot, Counted({"interactions_read": EVENTS + 1_000_000}), "run")
    yield Case("a user who has had all", _had_all, Counted({"users": 424, "unfilled": 1}), "run")
    yield Case("one item", _one_item, Counted({"items": 1, "indexed": 1}), "run")
    yield Case("one user", _one_user, Counted({"users": 1}), "run")
    none = partial(changed, "items", "eligible", lambda values: pa.array([False] * len(values)))
    yield Case(
        "no item is eligible", none, Refused([4], ["none of the 159 items can be indexed (159 ineligible)"]), "run"
    )
    yield Case(
        "a day that is no day of the files", lambda ground: None, Refused([5], ["2027-01-01"]), date="2027-01-01"
    )


def _in_folder(change: Callable[[list[Path]], None], ground: Ground) -> None:
    """Split interactions into two files of a folder, then change something there."""
    change(ground.split("interactions"))


def _cut(paths: list[Path]) -> None:
    paths[1].write_bytes(paths[1].read_bytes()[:-100])


def _without_middle(paths: list[Path]) -> None:
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[:200] + content[2_000:])


def _another_schema(paths: list[Path]) -> None:
    rows = pq.read_table(paths[1])
    pq.write_table(rows.set_column(0, "user_id", rows["user_id"].cast(pa.string())), paths[1])


def _below(paths: list[Path]) -> None:
    folder = paths[1].parent / "date=2026-03-31"
    folder.mkdir()
    paths[1].rename(folder / "part.parquet")


def _column_twice(ground: Ground) -> None:
    rows = ground.read("interactions")
    ground.write("interactions", pa.table([*rows.columns, rows["time"]], names=[*rows.column_names, "time"]))


def _dangling(paths: list[Path]) -> None:
    (paths[0].parent / "part-9.parquet").symlink_to(paths[0].parent / "gone")


def file_cases() -> Iterator[Case]:
    """Files that are hidden, of zero bytes, cut, foreign, misplaced or gone."""
    damages: dict[str, tuple[Callable[[list[Path]], Any], Any]] = {
        "in two files": (lambda paths: None, Same()),
        "with a hidden file": (
            lambda paths: (paths[0].parent / "._part").write_text("x"),
            Counted({"hidden_files": 1}),
        ),
        "with a mark of the writer": (lambda p: (p[0].parent / "_SUCCESS").touch(), Counted({"hidden_files": 1})),
        "in a folder below": (_below, Same()),
        "with a file of zero bytes": (lambda paths: paths[1].write_bytes(b""), Refused([4], ["part-1", "zero bytes"])),
        "with a file cut short": (_cut, Refused([4], ["part-1.parquet", "whole Parquet file"])),
        "with a file without its middle": (_without_middle, Refused([4], ["part-1.parquet", "whole Parquet file"])),
        "with a foreign file": (
            lambda paths: (paths[0].parent / "more.csv").write_text("a,b\n1,2\n"),
            Refused([4], ["more.csv", "expected only Parquet"]),
        ),
        "with text called Parquet": (
            lambda paths: (paths[0].parent / "more.parquet").write_text("user_id,item_id\n" * 9),
            Refused([4], ["more.parquet", "whole Parquet file"]),
        ),
        "with a file of another type": (_another_schema, Refused([4], ["part-1.parquet", "user_id", "string"])),
        "with a link that leads nowhere": (_dangling, Refused([4], ["part-9.parquet"])),
        "with no file left": (lambda paths: [path.unlink() for path in paths], Refused([5], ["found none"])),
    }
    for name, (change, expects) in damages.items():
        yield Case(f"interactions {name}", partial(_in_folder, change), expects)
    yield Case("a column that is there twice", _column_twice, Refused([4], ["interactions.parquet", "time", "2 times"]))
    more = partial(rewritten, "items", lambda rows: rows.append_column("price", pa.array(np.arange(len(rows)) * 0.5)))
    yield Case("a column that nobody asked for", more, Same())
    for table in TABLES:
        gone = partial(lambda table, ground: ground.path(table).unlink(), table)
        yield Case(f"{table} is not there", gone, Refused([5], [f"{table}.parquet", "found none"]))
    yield Case("items is a folder that is empty", _empty_folder, Refused([5], ["items.parquet", "found none"]))


def _empty_folder(ground: Ground) -> None:
    ground.path("items").unlink()
    ground.path("items").mkdir()
