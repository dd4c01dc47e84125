"""All users and their events in one total order, in a DuckDB database on disk: read once, streamed many times."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artifacts import schemas
from artifacts.bundle import FeatureSpec
from artifacts.errors import InputError, NightrecError
from features.carried import Carried, WhatWasRead, carry_on
from features.catalogue import read_excluded, require_columns
from features.database import converting_errors, holding
from features.day import data_day
from features.events import event_schema, read_events
from features.hashing import QUIET, hash_sql
from features.inputs import IdTypes, Inputs, check_inputs, files_of, read_batches
from features.streams import COUNTS, EVENTS, counted
from features.types import widen
from features.vocabulary import UNKNOWN, Vocabulary
from features.weights import Weighing


@dataclass(frozen=True, slots=True)
class Engine:
    """What DuckDB may use, and what it need not do; nothing changes in what comes out.

    Attributes:
        scratch: Folder for what does not fit into memory; emptied in the end.
        memory: Limit, such as ``"4GB"``.
        threads: 0 for all.
        advance: Told how many events were read, from time to time.
        carried: Events of an earlier night, which are not read again.
    """

    scratch: Path
    memory: str = "4GB"
    threads: int = 0
    advance: Callable[[int], None] = lambda events: None
    carried: Carried | None = None


@dataclass(frozen=True, slots=True)
class Ordered:
    """The database.

    Tables, each in the order of its rows:

    * ``users``: ``shard``, ``hash``, ``user_id``, ``did`` (whether they did something, with excluded items alone too)
      and :func:`profile_columns`, by shard, then id; the row id is *u*
    * ``events``: ``u``, ``item`` (row in ``item_ids``), ``time_us``, by u, then newest first, then greatest item id;
      and ``weight``, where weights are asked for
    * ``warm``: ``u`` and ``events``, how many, of each user who has any, by u

    A scan of one table, with no condition or with one that compares a column to constants, keeps that order: DuckDB
    guarantees it under ``preserve_insertion_order``. Any other query needs an ``ORDER BY``, a long ``IN`` included.

    Attributes:
        connection: To it.
        item_ids: Every item of the catalogue or of an event, ascending.
        codes: For each of them its catalogue row, or minus the vocabulary row of its id; int32.
        bounds: First u of each shard and, last, the number of users; int64 [shards + 1].
        now_us: The end of the data date.
        counts: What was read and dropped.
        read: What the next night is told of the behaviours.
    """

    connection: duckdb.DuckDBPyConnection
    item_ids: pa.Array
    codes: NDArray[np.int32]
    bounds: NDArray[np.int64]
    now_us: int
    counts: dict[str, int]
    read: WhatWasRead

    def query(self, sql: str) -> pa.Table:
        """Fetch a small result whole."""
        with converting_errors():
            return self.connection.sql(sql).to_arrow_table()

    def scanning(self) -> AbstractContextManager[None]:
        """Hold less within the block, in which tables are read in their order alone."""
        return holding(self.connection, _SCANNED)

    def stream(self, sql: str, rows: int) -> Iterator[pa.RecordBatch]:
        """Stream a result in batches of about *rows*, over a connection of its own."""
        with converting_errors(), self.connection.cursor() as cursor:
            yield from _fetched(cursor, sql, rows)


_TOLD = 3 / 4  # of its limit: it holds up to a third more than it is told
_SCANNED = 1 / 6  # of that is more than enough where tables are read in their order
_A_LITTLE_AHEAD = "SET streaming_buffer_size = '1MB'"  # in place of 10: what a stream computes before it is asked
_CHUNK_USERS, _CHUNK_EVENTS = 4_096, 131_072  # rows that are carried on at once
_OF_A_FILE = ("interactions_read", "interactions_null", "interactions_future", "interactions_before_1970")


def profile_columns(spec: FeatureSpec) -> list[str]:
    """Name the columns of ``users`` that hold the profile features; not by them, since SQL ignores case."""
    return [f"profile_{place}" for place in range(len(spec.profile_features))]


@contextmanager
def open_ordered(
    inputs: Inputs,
    *,
    catalogue: pa.Table,
    spec: FeatureSpec,
    vocabularies: Mapping[str, Vocabulary],
    until: date,
    zone: str,
    shards: int,
    engine: Engine,
    weighing: Weighing | None = None,
) -> Iterator[Ordered]:
    """Read the behaviours once, up to the end of *until*, and put them in order; nothing held grows with the users.

    With *weighing*, events have their weights: training asks for them, a night doesn't.

    Raises:
        InputError: If a table is wrong; the message names file and column.
        UsageError: If a profile feature has no column.
        NightrecError: If memory or disk do not suffice.
    """
    types = check_inputs(inputs)
    now_us = data_day(until, zone)[1]
    engine.scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="ordered-", dir=engine.scratch))
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": engine.memory,
        "temp_directory": str(folder),
        "autoinstall_known_extensions": False,
        "preserve_insertion_order": True,  # row ids are positions in the order, and scans stream in it without a sort
    }
    if engine.threads:
        config["threads"] = engine.threads
    try:
        with converting_errors():
            connection = duckdb.connect(str(folder / "ordered.duckdb"), config=config)
        with connection, holding(connection, _TOLD):
            with converting_errors():
                connection.execute(QUIET)
                carried = engine.carried
                files = _load_events(connection, inputs, types, now_us, engine, weighing)
                counts = {name: sum(of[name] for of in files.values()) for name in _OF_A_FILE}
                _create(
                    connection, "carried", schemas.carried_users(types.user_id), carried.users if carried else iter(())
                )
                of_users, excluded = _load_users(connection, inputs, types, spec, vocabularies, shards)
                counts |= of_users
                read = WhatWasRead(files, excluded)
                item_ids, codes = _load_items(connection, inputs, types, catalogue, vocabularies["item_id"], carried)
                counts |= _order_events(connection, counts, item_ids, now_us, carried, weighed=weighing is not None)
                bounds = _bounds(connection, shards)
            yield Ordered(connection, item_ids, codes, bounds, now_us, counts, read)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _create(
    connection: duckdb.DuckDBPyConnection, table: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]
) -> None:
    """Make *table* out of a stream; an error of ours in the stream comes out as itself."""
    failures: list[NightrecError] = []

    def guarded() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except NightrecError as error:
            failures.append(error)
            raise

    connection.register("stream", pa.RecordBatchReader.from_batches(schema, guarded()))
    try:
        connection.execute(f"CREATE TABLE {table} AS SELECT * FROM stream")
    except duckdb.Error as error:
        raise (failures[0] if failures else error) from error
    finally:
        connection.unregister("stream")


def _load_events(
    connection: duckdb.DuckDBPyConnection,
    inputs: Inputs,
    types: IdTypes,
    now_us: int,
    engine: Engine,
    weighing: Weighing | None,
) -> dict[Path, dict[str, int]]:
    """Fill ``raw`` with what happened up to the data date's end; an event with a null says nothing and is dropped.

    An event before 1970 is kept, as the oldest of its user's, and counted: it is often a clock that was not set.
    A user whose history is empty has a row without an item: it makes a user, and meets no item.
    Of a file that is *carried* only what it had left out is put there.
    """
    files: dict[Path, dict[str, int]] = {}
    carried, advance = engine.carried, engine.advance

    def kept() -> Iterator[pa.RecordBatch]:
        for path in files_of(inputs.sources[inputs.behaviours]).paths:
            known = carried.files.get(path) if carried else None
            if known and not known["interactions_future"]:
                files[path] = dict(known)
                advance(known["interactions_read"])
                continue
            counts = dict.fromkeys(_OF_A_FILE, 0)
            files[path] = counts
            for batch, others in read_events(inputs, weighing, (path,)):
                whole = batch.drop_null()
                past = whole.filter(pc.less(whole.column("time_us"), now_us))
                counts["interactions_read"] += batch.num_rows
                counts["interactions_null"] += batch.num_rows - whole.num_rows
                counts["interactions_future"] += whole.num_rows - past.num_rows
                counts["interactions_before_1970"] += int(np.count_nonzero(past.column("time_us").to_numpy() < 0))
                advance(batch.num_rows)
                yield (
                    past.filter(pc.greater_equal(past.column("time_us"), carried.now_us)) if carried and known else past
                )
                nothing = [pa.nulls(len(others), kind) for kind in past.schema.types[1:]]
                yield pa.RecordBatch.from_arrays([others, *nothing], schema=past.schema)

    schema = event_schema(types.user_id, types.item_id, weighed=weighing is not None)
    _create(connection, "raw", schema, kept())
    return files


def _load_users(
    connection: duckdb.DuckDBPyConnection,
    inputs: Inputs,
    types: IdTypes,
    spec: FeatureSpec,
    vocabularies: Mapping[str, Vocabulary],
    shards: int,
) -> tuple[dict[str, int], pa.Array]:
    """Fill ``users``: who is listed or did something, less who is excluded.

    Beside the counts stand the excluded users who had done something, ascending.
    """
    profile = profile_columns(spec)
    listed_schema = pa.schema([("user_id", types.user_id), *((name, pa.int32()) for name in profile)])
    _create(connection, "listed", listed_schema, _listed(inputs, listed_schema, spec, vocabularies))
    twice = connection.execute(
        "SELECT user_id FROM listed GROUP BY user_id HAVING count(*) > 1 ORDER BY user_id LIMIT 1"
    ).fetchone()
    if twice is not None and inputs.users is not None:
        raise InputError(
            f"{inputs.users.path}: user id {twice[0]} is there more than once in column "
            f"{inputs.users.columns['user_id']}; keep one row of each user"
        )
    connection.register("gone", pa.table({"id": read_excluded(inputs.exclude_users, types.user_id)}))
    connection.execute("CREATE TABLE excluded_users AS SELECT id FROM gone")
    known = "".join(f", coalesce({name}, {UNKNOWN}) AS {name}" for name in profile)
    connection.execute(f"""
        CREATE TABLE people AS
        SELECT user_id, coalesce(did, false) AS did{known}
        FROM (SELECT user_id, true AS did FROM (SELECT user_id FROM raw UNION SELECT user_id FROM carried))
        FULL JOIN listed USING (user_id)
    """)
    connection.execute(f"""
        CREATE TABLE users AS
        SELECT CAST(hash % {shards} AS INTEGER) AS shard, * FROM (
            SELECT {hash_sql("user_id")} AS hash, *
            FROM people WHERE user_id NOT IN (SELECT id FROM excluded_users)
        )
        ORDER BY shard, user_id
    """)
    excluded = connection.sql("""
        SELECT user_id FROM people WHERE did AND user_id IN (SELECT id FROM excluded_users) ORDER BY user_id
    """).to_arrow_table()
    people, users = _number(connection, "FROM people"), _number(connection, "FROM users")
    unknown = {
        f"users_{name}_unknown": _number(connection, f"FROM users WHERE {column} = {UNKNOWN}")
        for name, column in zip(spec.profile_features, profile, strict=True)
    }
    for table in ("people", "listed"):
        connection.execute(f"DROP TABLE {table}")
    counts = {"users": users, "users_excluded": people - users, **unknown}
    return counts, excluded.column("user_id").combine_chunks()


def _listed(
    inputs: Inputs, schema: pa.Schema, spec: FeatureSpec, vocabularies: Mapping[str, Vocabulary]
) -> Iterator[pa.RecordBatch]:
    source = require_columns("users", inputs.users, spec.profile_features)
    for path, batch in read_batches(source, ["user_id", *spec.profile_features]) if source else ():
        ids, *values = batch.columns
        if ids.null_count:
            raise InputError(f"{path}: column {inputs.sources['users'].columns['user_id']} of users has nulls")
        rows = [
            pa.array(vocabularies[name].encode(column))
            for name, column in zip(spec.profile_features, values, strict=True)
        ]
        yield pa.RecordBatch.from_arrays([widen(ids), *rows], schema=schema)


def _load_items(
    connection: duckdb.DuckDBPyConnection,
    inputs: Inputs,
    types: IdTypes,
    catalogue: pa.Table,
    vocabulary: Vocabulary,
    carried: Carried | None,
) -> tuple[pa.Array, NDArray[np.int32]]:
    """Fill ``items`` with every item of the catalogue or of an event, less what is excluded, ascending."""
    connection.register("catalogue", catalogue.select(["item_id"]))
    connection.register("gone", pa.table({"id": read_excluded(inputs.exclude_items, types.item_id)}))
    known = carried.item_ids if carried else pa.array([], types.item_id)
    connection.register("carried_items", pa.table({"item_id": known}))
    connection.execute("""
        CREATE TABLE items AS
        SELECT item_id FROM (
            SELECT item_id FROM raw UNION SELECT item_id FROM catalogue UNION SELECT item_id FROM carried_items
        )
        WHERE item_id IS NOT NULL AND item_id NOT IN (SELECT id FROM gone)
        ORDER BY item_id
    """)
    for table in ("catalogue", "carried_items"):
        connection.unregister(table)
    ids = connection.sql("SELECT item_id FROM items").to_arrow_table().column("item_id").combine_chunks()
    rows = pc.fill_null(pc.index_in(ids, value_set=catalogue.column("item_id").combine_chunks()), -1).to_numpy()
    return ids, np.where(rows >= 0, rows, -vocabulary.encode(ids)).astype(np.int32)


def _order_events(
    connection: duckdb.DuckDBPyConnection,
    counts: dict[str, int],
    item_ids: pa.Array,
    now_us: int,
    carried: Carried | None,
    *,
    weighed: bool,
) -> dict[str, int]:
    """Fill ``events``, the one big sort; equal rows are equal, so the order is total."""
    raw = _number(connection, "FROM raw WHERE item_id IS NOT NULL")
    of_excluded = _number(
        connection, "FROM raw WHERE item_id IS NOT NULL AND user_id IN (SELECT id FROM excluded_users)"
    )
    weight, by_weight = (", weight", ", weight DESC") if weighed else ("", "")
    connection.execute(f"""
        CREATE TABLE {"fresh" if carried else "events"} AS
        SELECT users.rowid AS u, CAST(items.rowid AS INTEGER) AS item, time_us{weight}
        FROM raw JOIN users USING (user_id) JOIN items USING (item_id)
        ORDER BY u, time_us DESC, item DESC{by_weight}
    """)
    connection.execute("DROP TABLE raw")
    with_excluded = raw - of_excluded - _number(connection, f"FROM {'fresh' if carried else 'events'}")
    if carried:
        _carry_events(connection, item_ids, carried)
    with connection.cursor() as cursor:  # this connection is busy while it fills the table
        _create(connection, "warm", COUNTS, counted(_fetched(cursor, "SELECT u FROM events", _CHUNK_EVENTS)))
    return {
        "interactions": _number(connection, "FROM events"),
        "interactions_of_excluded_users": of_excluded + (carried.of_excluded_users if carried else 0),
        "interactions_with_excluded_items": with_excluded + (carried.with_excluded_items if carried else 0),
        "gaps_negative": _number(connection, f"FROM events WHERE time_us > {now_us}"),
        "users_cold": counts["users"] - _number(connection, "FROM warm"),
    }


def _carry_events(connection: duckdb.DuckDBPyConnection, item_ids: pa.Array, carried: Carried) -> None:
    """Fill ``events`` with those that are carried and ``fresh`` ones between them."""
    rows = pc.index_in(carried.item_ids, value_set=item_ids).to_numpy()
    owners = "SELECT users.rowid AS u, events FROM carried JOIN users USING (user_id) ORDER BY u"
    with connection.cursor() as one, connection.cursor() as other:  # this connection is busy while it fills the table
        fresh = _fetched(other, "SELECT * FROM fresh", _CHUNK_EVENTS)
        merged = carry_on(_fetched(one, owners, _CHUNK_USERS), carried.events, rows, fresh)
        _create(connection, "events", EVENTS, merged)
    connection.execute("DROP TABLE fresh")


def _bounds(connection: duckdb.DuckDBPyConnection, shards: int) -> NDArray[np.int64]:
    bounds = np.zeros(shards + 1, np.int64)
    for shard, users in connection.execute("SELECT shard, count(*) FROM users GROUP BY shard").fetchall():
        bounds[shard + 1] = users
    return np.cumsum(bounds)


def _fetched(cursor: duckdb.DuckDBPyConnection, sql: str, rows: int) -> Iterator[pa.RecordBatch]:
    cursor.execute(QUIET)
    cursor.execute(_A_LITTLE_AHEAD)
    yield from cursor.sql(sql).to_arrow_reader(rows)


def _number(connection: duckdb.DuckDBPyConnection, clause: str) -> int:
    ((number,),) = connection.execute(f"SELECT count(*) {clause}").fetchall()
    return int(number)
