"""The report's people: a few users with what they had and what they are recommended, in titles."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from artifacts.lookup import batches_around
from artifacts.schemas import SOURCE_FALLBACK
from artifacts.tables import opening_arrow, verify_file
from release.evidence import rows_of, titles_of
from release.page import Cell, Folded, Note, Part, Table
from release.subject import Subject

PEOPLE = 10
SHOWN = 10  # of a history and of a list
_DAY = 86_400
_RULE = (
    "Ten users: of the first batch of the first shard, into which chance has dealt them, those whose id has the "
    "smallest SHA-256. So they are mostly the same people every night."
)


@dataclass(frozen=True, slots=True)
class _Person:
    """A user: what they had, as catalogue rows with days ago, newest first, and what they are given."""

    id: int | str
    had: list[tuple[int, int]]
    total: int
    given: list[dict[str, Any]]


def people(subject: Subject) -> list[Part]:
    """Show some users, named as the config says."""
    if subject.sample_users == "none":
        return ['No users are shown: the config says sample_users = "none" in [report].']
    chosen = _choose(subject)
    shown = [_person(subject, user) for user in chosen]
    if not shown:
        return [Note("The first shard has no users.", "warn")]
    items = [row for person in shown for row, _ in person.had]
    given = [
        rows_of(subject.catalogue.ids, pa.array([one["item_id"] for one in person.given], subject.run.item_type))
        for person in shown
    ]
    titles = titles_of(subject.run, [*items, *(int(row) for rows in given for row in rows if row >= 0)])
    pseudonym = subject.sample_users == "pseudonym"
    named = "They are numbered, and their ids are not in this page." if pseudonym else "They are named by their ids."
    parts: list[Part] = [f"{_RULE} {named}"]
    for number, (person, rows) in enumerate(zip(shown, given, strict=True), 1):
        title = f"User {number}" if pseudonym else f"User {person.id}"
        parts.append(_shown(title, person, rows.tolist(), titles, opened=number <= 3))
    return parts


def _choose(subject: Subject) -> list[pa.Scalar]:
    layout, shards = subject.layout, subject.run.shards
    for path in (layout.histories(0, shards), layout.seen(0, shards), layout.scores(0, shards)):
        verify_file(path)
    with opening_arrow(layout.histories(0, shards), columns=["user_id"]) as reader:
        ids = reader.get_batch(0).column(0) if reader.num_record_batches else pa.array([], subject.run.user_type)
    order = sorted(range(len(ids)), key=lambda row: hashlib.sha256(str(ids[row].as_py()).encode()).digest())
    return [ids[row] for row in sorted(order[:PEOPLE])]


def _person(subject: Subject, user: pa.Scalar) -> _Person:
    layout, shards = subject.layout, subject.run.shards
    had: list[tuple[int, int]] = []
    for batch in _rows(layout.seen(0, shards), user):
        for row in batch.select(["items", "last_gap"]).to_pylist():
            had += zip(row["items"], (gap // _DAY for gap in row["last_gap"]), strict=True)
    given = [row for batch in _rows(layout.scores(0, shards), user) for row in batch.to_pylist()]
    newest = sorted(had, key=lambda pair: (pair[1], pair[0]))
    return _Person(user.as_py(), newest[:SHOWN], len(had), given[:SHOWN])


def _rows(path: Path, user: pa.Scalar) -> list[pa.RecordBatch]:
    with opening_arrow(path) as reader:
        if not reader.num_record_batches:
            return []
        return [batch.filter(pc.equal(batch["user_id"], user)) for _, batch in batches_around(reader, "user_id", user)]


def _shown(
    title: str, person: _Person, rows: Sequence[int], titles: dict[int, dict[str, object]], *, opened: bool
) -> Part:
    history = [f"{titles[row]['title']} ({_ago(days)})" for row, days in person.had] or ["nothing: a cold user"]
    if person.total > len(person.had):
        history.append(f"and {person.total - len(person.had):,} more")
    given = [
        f"{titles[row]['title']}" + (" (popular)" if said["source"] == SOURCE_FALLBACK else "")
        for row, said in zip(rows, person.given, strict=True)
    ] or ["nothing"]
    lines = max(len(history), len(given))
    cells: list[Sequence[Cell]] = [
        (history[place] if place < len(history) else "", given[place] if place < len(given) else "")
        for place in range(lines)
    ]
    table = Table(("had, newest first", "given, best first"), cells, title)
    return table if opened else Folded(title, [table])


def _ago(days: int) -> str:
    return "on the last day" if days == 0 else "1 day before" if days == 1 else f"{days:,} days before"
