"""Guessing which table and column is what, and why; nothing is read here but what was seen of the tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from artifacts.errors import UsageError
from nightrec.look import Column, Table
from nightrec.mistakes import did_you_mean
from nightrec.names import OTHER_WORDS, by_name, feature_name, names_gone, score_of, words_of

_MOMENTS = {
    "timestamp": "timestamps",
    "zoned": "timestamps with a zone",
    "iso": "timestamps as text",
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970",
    "ns": "nanoseconds since 1970",
}
_FEATURE_REPEATS = 5.0  # how often a category must stand in a table, in the mean
_FEATURE_VALUES = 10_000
_FEATURES = 8  # of one table
_TOLD = 0.5  # how well an id must tell what is said of its item or user
_LEAST_SHARED = 0.3  # of the ids of the events, for a table to be about them


@dataclass(frozen=True, slots=True)
class Part:
    """What is read of one table.

    Attributes:
        table: The files.
        columns: Our name to the name in the files; features by theirs of ours.
        features: Name of a feature to its column.
        key: Our name of the id that each row has for itself, where the table is a list of items or users.
    """

    table: Table
    columns: dict[str, str]
    features: dict[str, str] = field(default_factory=dict)
    key: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """A line of the answer to "what, and why"."""

    what: str
    taken: str
    why: str


@dataclass(frozen=True, slots=True)
class Guess:
    """What was guessed.

    Attributes:
        interactions: Who had what when.
        moment: How its time is read, one of the column's ``moments``.
        items: The catalogue; of the events' own table where there is no other.
        users: What is known of users, if anything is.
        gone: Lists of ids that are gone from every output, by the name of their table in the config.
        reasons: Why.
        doubts: Our name of a column of the events to all columns that it may be, the best first, where it is not clear.
    """

    interactions: Part
    moment: str
    items: Part
    users: Part | None
    gone: dict[str, Part]
    reasons: tuple[Reason, ...]
    doubts: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Said:
    """What a person says of the columns, in place of a guess."""

    user_id: str | None = None
    item_id: str | None = None
    time: str | None = None
    time_format: str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What can be asked of the rows.

    Attributes:
        shared: Which share of the values of the second column stand in the first: (table, column, table, column).
        depends: How well a key tells a column, (table, key, column), as Goodman and Kruskal's lambda: 1 if it always
            does, 0 if it tells no more than the column's most frequent value.
    """

    shared: Callable[[Table, str, Table, str], float]
    depends: Callable[[Table, str, str], float]


def guess(tables: Sequence[Table], evidence: Evidence, said: Said) -> Guess:
    """Guess what the *tables* are.

    Raises:
        UsageError: If no table says who had what when, or a column that was *said* is not there.
    """
    gone, about_gone = _gone(tables)
    tables = [table for table in tables if table not in [part.table for part in gone.values()]] or tables
    events, candidates = _events(tables, said)
    reasons = [
        Reason(
            "interactions",
            events.name,
            f"{events.rows:,} rows, {'the largest' if len(tables) > 1 else 'a'} table with a user, an item and a time",
        )
    ]
    chosen = {name: columns[0] for name, columns in candidates.items()}
    doubts = {name: tuple(c.name for c in columns) for name, columns in candidates.items() if len(columns) > 1}
    moment, why = _moment(chosen["time"], said)
    for name in ("user_id", "item_id"):
        also = f"; it may be {' or '.join(doubts[name][1:])} too" if name in doubts else ""
        reasons.append(Reason(name, chosen[name].name, f"{_named(name, chosen[name], said)}{also}"))
    reasons.append(Reason("time", chosen["time"].name, why))
    columns = {name: column.name for name, column in chosen.items()}
    for name, fits in (("event", _is_kind), ("weight", _is_weight)):
        free = [c for c in events.columns if c.name not in columns.values() and fits(c)]
        if best := by_name(name, free):
            columns[name] = best[0].name
            below = "; some are below 0: if those are returns, take them out first" if (best[0].low or 0) < 0 else ""
            reasons.append(
                Reason(name, best[0].name, f"named so; no model of ours reads it, all events count alike{below}")
            )
    taken = set(columns.values())
    interactions = Part(events, columns)
    items, about_items = _list_of("item_id", interactions, tables, evidence, taken)
    users, about_users = _list_of("user_id", interactions, [t for t in tables if t is not items.table], evidence, taken)
    known = users if users.features or users.table is not events else None
    users_and_items = {*items.features} & {*users.features}
    if users_and_items:
        users = Part(users.table, users.columns, _apart(users.features, users_and_items), users.key)
        known = users
    reasons += [*about_items, *(about_users if known else ()), *about_gone]
    if left := [table.name for table in tables if table not in (events, items.table, users.table)]:
        why = "not clear what they are; `nightrec config explain inputs` tells what else a night can read"
        reasons.append(Reason("not taken", ", ".join(left), why))
    return Guess(interactions, moment, items, known, gone, tuple(reasons), doubts)


def _gone(tables: Sequence[Table]) -> tuple[dict[str, Part], list[Reason]]:
    """Find the lists of users and of items that are to be gone from every output; the first of each, by their names."""
    found: dict[str, Part] = {}
    reasons = []
    for table in tables if len(tables) > 1 else ():
        key = names_gone(table.name, [column.name for column in table.columns])
        what = f"exclude_{key.removesuffix('_id')}s"
        ids = [column for column in table.columns if column.may_be_id]
        named = by_name(key, ids) if key else []
        columns = named or [column for column in ids if column.name.lower() == "id" or len(table.columns) == 1]
        if key and columns and what not in found:
            found[what] = Part(table, {key: columns[0].name})
            why = f"{table.rows:,} rows, named so: whatever these are, they are gone from every output"
            reasons.append(Reason(what, f"{table.name}: {columns[0].name}", why))
    return found, reasons


def _apart(features: dict[str, str], others: set[str]) -> dict[str, str]:
    return {(f"user_{name}" if name in others else name): column for name, column in features.items()}


def _events(tables: Sequence[Table], said: Said) -> tuple[Table, dict[str, list[Column]]]:
    """Choose the table of the events, and give the columns that each part of an event may be, the best first."""
    found = [(table, _candidates(table, said)) for table in tables]
    whole = [(table, columns) for table, columns in found if all(columns.values())]
    if whole:
        return max(whole, key=lambda one: one[0].rows)
    table, columns = max(found, key=lambda one: (sum(map(bool, one[1].values())), one[0].rows))
    lacks = [name for name, found_ones in columns.items() if not found_ones]
    for name in lacks:
        asked = getattr(said, name)
        names = [column.name for one in tables for column in one.columns]
        if asked is not None and asked not in names:
            raise UsageError(f"--{_option(name)} {asked}: no table has such a column{did_you_mean(asked, names)}")
    raise UsageError(
        f"no table says who had what when: {table.name} comes nearest, and has no {' and no '.join(lacks)} among "
        f"{', '.join(column.name for column in table.columns)}; name them by "
        f"{', '.join(f'--{_option(name)} COLUMN' for name in lacks)}"
    )


def _option(name: str) -> str:
    return name.removesuffix("_id")


def _candidates(table: Table, said: Said) -> dict[str, list[Column]]:
    fits: dict[str, Callable[[Column], bool]] = {
        "user_id": lambda column: column.may_be_id and column.repeats > 1,
        "item_id": lambda column: column.may_be_id and column.repeats > 1,
        "time": lambda column: bool(column.moments) or said.time_format is not None,
    }
    found = {}
    for name, fit in fits.items():
        asked = getattr(said, name)
        if asked is not None:
            found[name] = [column for column in table.columns if column.name == asked]
        else:
            found[name] = by_name(name, [column for column in table.columns if fit(column)])
    if not found["time"] and said.time is None:
        found["time"] = [column for column in table.columns if set(column.moments) & {"timestamp", "zoned", "iso"}]
    times = [column.name for column in found["time"]]
    for name in ("user_id", "item_id"):
        found[name] = [column for column in found[name] if column.name not in times or getattr(said, name)]
    return found


def _named(name: str, column: Column, said: Said) -> str:
    how = "you said so" if getattr(said, name) else "by its name"
    kind = "whole numbers" if column.whole else "text"
    return f"{how}: {kind}, such as {column.example}; one stands {column.repeats:,.1f} times in the rows looked at"


def _moment(column: Column, said: Said) -> tuple[str, str]:
    """Choose how the time is read, and say why.

    Raises:
        UsageError: If it can be read in two ways that differ, or in none.
    """
    if said.time_format is not None:
        return said.time_format, f"you said so, such as {column.example}"
    if not column.moments:
        raise UsageError(
            f"--time {column.name}: its values, such as {column.example!r}, are no moments that we know; "
            "say how to read them by --time-format, such as '%d.%m.%Y %H:%M'"
        )
    if len(column.moments) > 1 and column.moments[0] not in {"iso", "zoned"}:
        raise UsageError(
            f"column {column.name}: {column.example!r} and all others can be read as {' or as '.join(column.moments)}; "
            "say which by --time-format"
        )
    moment = column.moments[0]
    return moment, f"{_MOMENTS.get(moment, f'read as {moment}')}, such as {column.example}"


def _is_kind(column: Column) -> bool:
    few = 2 <= column.distinct <= 50 and not column.moments
    return few and (column.whole or (column.is_text and not column.number))


def _is_weight(column: Column) -> bool:
    return column.number and not column.moments and bool(column.filled)


def _list_of(
    key: str, interactions: Part, tables: Sequence[Table], evidence: Evidence, taken: set[str]
) -> tuple[Part, list[Reason]]:
    """Find the table that lists the items or users of the events; their own table where there is no other."""
    what, other = ("items", "user_id") if key == "item_id" else ("users", "item_id")
    events = interactions.table
    best: tuple[float, Table, Column] | None = None
    for table in tables:
        for column in table.columns:
            mine, others = score_of(key, column.name), score_of(other, column.name)
            if table is events or not column.may_be_id or column.repeats > 1.2 or others > mine:
                continue
            shared = evidence.shared(table, column.name, events, interactions.columns[key])
            if shared >= _LEAST_SHARED and (best is None or shared + (mine > 0) > best[0]):
                best = (shared + (mine > 0), table, column)
    if best is not None:
        score, table, column = best
        share = score - (score_of(key, column.name) > 0)
        part = _described(Part(table, {key: column.name}, key=key), {column.name}, evidence)
        why = f"{table.rows:,} rows, a different {column.name} in each; {share:.1%} of those of the events are there"
        return part, [Reason(what, f"{table.name}: {column.name}", why), *_about(part)]
    part = _described(Part(events, {key: interactions.columns[key]}, key=key), taken, evidence)
    return part, [
        Reason(what, events.name, f"no table lists {what}: made of the events, one row for each {part.columns[key]}"),
        *_about(part),
    ]


def _described(part: Part, taken: set[str], evidence: Evidence) -> Part:
    """Add the title, and the categories that say the same of an item or user in every row."""
    (key, column) = next(iter(part.columns.items()))
    keys = part.table.column(column).distinct
    free = [
        one
        for one in part.table.columns
        if one.name not in taken and one.filled and evidence.depends(part.table, column, one.name) > _TOLD
    ]
    columns = dict(part.columns)
    titles = (
        by_name("title", [one for one in free if one.is_text and one.distinct * 2 > keys]) if key == "item_id" else []
    )
    if titles:
        columns["title"] = titles[0].name
    marks = [one for one in part.table.columns if one.name not in taken and _is_mark(one)] if key == "item_id" else []
    if marks:
        columns["eligible"] = marks[0].name
    features: dict[str, str] = {}
    for one in sorted(free, key=lambda one: not one.is_text):
        alike = [
            other
            for other in features.values()
            if part.table.column(other).distinct == one.distinct and evidence.depends(part.table, one.name, other) == 1
        ]
        if one.name not in columns.values() and is_category(one, keys) and not alike and len(features) < _FEATURES:
            features[feature_name(one.name, features)] = one.name
    return Part(part.table, columns, features, part.key)


def _is_mark(column: Column) -> bool:
    """Whether a column is named and filled as the one that keeps items from being recommended."""
    told = column.kind == "BOOLEAN" or (column.is_text and column.distinct <= 2 and column.length <= 5)
    return column.name.lower() == "eligible" and bool(column.filled) and told


def is_category(column: Column, keys: int) -> bool:
    """Whether a column sorts *keys* different items or users into kinds: a few values, none of them a measure."""
    if column.moments or set(words_of(column.name)) & OTHER_WORDS:
        return False
    if not (column.whole or column.is_text or column.kind == "BOOLEAN") or column.length > 64:
        return False
    return 2 <= column.distinct <= min(_FEATURE_VALUES, keys / _FEATURE_REPEATS)


def _about(part: Part) -> list[Reason]:
    what = "item" if part.key == "item_id" else "user"
    found = []
    if "title" in part.columns:
        found.append(Reason("title", part.columns["title"], "text, and nearly all differ; only shown"))
    if "eligible" in part.columns:
        found.append(Reason("eligible", part.columns["eligible"], "named so; where it is false, no user is given it"))
    for name, column in part.features.items():
        kinds = part.table.column(column).distinct
        called = f", called {name}" if name != column else ""
        found.append(Reason(f"{what} feature", column, f"{kinds:,} different values, each of many {what}s{called}"))
    return found
