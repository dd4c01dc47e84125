"""Bad tables: every column missing, renamed, of another type, null or empty; odd ids and rows."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tests.faults.ground import DAY, TABLES, Case, Counted, Damage, Ground, Refused, Same, changed, rewritten
from tests.night.shop import COLD_USERS, ITEMS, USERS

COLUMNS = {
    "interactions": ("user_id", "item_id", "time"),
    "items": ("item_id", "title", "category", "eligible"),
    "users": ("user_id", "country"),
    "exclude_users": ("id",),
    "exclude_items": ("id",),
    "histories": ("user_id", "item_ids", "times"),
}
EVENTS, SECOND_LIST = 5_152, 8  # of the undamaged shop: all events, and those of its second user
FORBIDDEN_NULLS = {("items", "item_id"), ("items", "eligible"), ("users", "user_id")}
EXCLUDED = {("exclude_users", "id"), ("exclude_items", "id")}


def cases() -> Iterator[Case]:
    """Every case of bad tables."""
    yield from column_cases()
    yield from empty_cases()
    yield from id_cases()
    yield from row_cases()


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


def _without_second(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows.slice(0, 1), rows.slice(2)])


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
