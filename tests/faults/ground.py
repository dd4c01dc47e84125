"""A shop to be damaged: a copy of its data, bundles and config, and what a command said when it was run on them."""

import io
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from artifacts.run import Run
from nightrec.main import execute
from tests.night.shop import DATE, Shop

Damage = Callable[["Ground"], None]
DAY = datetime(2026, 3, 31, 12, tzinfo=UTC)
TABLES = ("interactions", "items", "users", "exclude_users", "exclude_items")


@dataclass(frozen=True)
class Ground:
    """A copy of a shop that one case damages.

    Attributes:
        folder: Where ``data/``, ``bundles/``, ``job.toml`` and ``store/`` lie.
    """

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "job.toml"

    def path(self, table: str) -> Path:
        return self.folder / "data" / f"{table}.parquet"

    def read(self, table: str) -> pa.Table:
        return pq.read_table(self.path(table))

    def write(self, table: str, rows: pa.Table, **options: Any) -> None:
        pq.write_table(rows, self.path(table), **options)

    def edit(self, old: str, new: str) -> None:
        """Replace a part of the config that is there."""
        text = self.config.read_text()
        assert old in text, old
        self.config.write_text(text.replace(old, new))

    def split(self, table: str, parts: int = 2) -> list[Path]:
        """Make a folder of files out of a table's one file, and let the config name it."""
        rows, folder = self.read(table), self.folder / "data" / table
        folder.mkdir()
        size = -(-len(rows) // parts)
        paths = [folder / f"part-{number}.parquet" for number in range(parts)]
        for number, path in enumerate(paths):
            pq.write_table(rows.slice(number * size, size), path)
        self.path(table).unlink()
        self.edit(f"data/{table}.parquet", f"data/{table}")
        return paths


def changed(table: str, column: str, change: Callable[[pa.ChunkedArray], Any], ground: Ground) -> None:
    """Put what *change* makes of a column into its place."""
    rows = ground.read(table)
    place = rows.column_names.index(column)
    ground.write(table, rows.set_column(place, column, change(rows[column])))


def rewritten(table: str, change: Callable[[pa.Table], pa.Table], ground: Ground) -> None:
    """Put what *change* makes of a table into its place."""
    ground.write(table, change(ground.read(table)))


def copy_of(shop: Shop, folder: Path) -> Ground:
    """Copy *shop* to *folder*."""
    for part in ("data", "bundles"):
        shutil.copytree(shop.folder / part, folder / part)
    Shop(folder).config(folder)
    return Ground(folder)


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said: ``document`` to machines, ``text`` to people."""

    code: int
    document: dict[str, Any]
    text: str


def say(*arguments: object) -> Said:
    """Run ``nightrec`` in this process, with ``--json``."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = execute([*map(str, arguments), "--json"])
    lines = out.getvalue().splitlines()
    return Said(code, json.loads(lines[-1]) if lines else {}, err.getvalue())


@dataclass(frozen=True)
class Refused:
    """A clear error: one line, one of some exit codes, and words that name what is wrong."""

    codes: Sequence[int]
    words: Sequence[str]


@dataclass(frozen=True)
class Counted:
    """The night is made, and counts say what was done with the bad part.

    Attributes:
        counts: Of all the steps that were run.
        like: Damage that gives the same tables, if there is another way to it: the bad rows taken out, for example.
    """

    counts: dict[str, int]
    like: Callable[[Ground], None] | None = None


@dataclass(frozen=True)
class Same:
    """The prepared tables are those of the undamaged shop: the case changes nothing that means anything."""


@dataclass(frozen=True)
class Case:
    """A bad input.

    Attributes:
        name: Of the case.
        damage: What is done to the shop.
        expects: How the night must end.
        verb: ``prepare``, or ``run`` where a later step is the one that must see it.
        date: Which night.
        more: Further arguments; of an option that comes twice the last is taken.
    """

    name: str
    damage: Callable[[Ground], None]
    expects: Refused | Counted | Same
    verb: str = "prepare"
    date: str = DATE
    more: tuple[str, ...] = ()


def complaint(case: Case, shop: Shop, folder: Path) -> str:
    """Run *case* in *folder*, and say what is not as it must be; ``""`` if all is."""
    ground = copy_of(shop, folder / "case")
    case.damage(ground)
    said = say(case.verb, "--config", ground.config, "--date", case.date, *case.more)
    if "Traceback" in said.text or "unexpected" in said.text or "its traceback lies in" in said.text:
        return f"nobody foresaw it: {said.text}"
    if isinstance(case.expects, Refused):
        return _of_refusal(case.expects, said)
    if said.code:
        return f"expected a night, found code {said.code}: {said.text}"
    if isinstance(case.expects, Same):
        return _of_sameness(said, shop, folder, case, None)
    return _of_counts(case.expects, said) or (
        _of_sameness(said, shop, folder, case, case.expects.like) if case.expects.like else ""
    )


def _of_refusal(expected: Refused, said: Said) -> str:
    if said.code not in expected.codes:
        return f"expected one of the codes {list(expected.codes)}, found {said.code}: {said.text}"
    *_, message = said.text.rpartition("nightrec: ")
    if missing := [word for word in expected.words if word not in message]:
        return f"expected {missing} in: {said.text}"
    if said.code != 3 and message.count("\n") != 1:  # gates are told one a line
        return f"expected one line, found: {said.text}"
    return ""


def _of_counts(expected: Counted, said: Said) -> str:
    found: dict[str, int] = {}
    for step in said.document["steps"]:
        found |= step["counts"]
    wrong = {name: found.get(name) for name, count in expected.counts.items() if found.get(name) != count}
    return f"expected {expected.counts}, found {wrong} among {found}" if wrong else ""


def _of_sameness(said: Said, shop: Shop, folder: Path, case: Case, like: Callable[[Ground], None] | None) -> str:
    other = copy_of(shop, folder / "like")
    if like:
        like(other)
    wanted = say("prepare", "--config", other.config, "--date", case.date)
    if wanted.code:
        return f"what it is compared with fails: {wanted.text}"
    tables = [Run.read(Path(one.document["run"])).inputs for one in (said, wanted)]
    return "" if tables[0] == tables[1] else f"its tables are not those of {wanted.document['run']}"
