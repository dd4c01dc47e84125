"""``nightrec init``: a first config, by looking at a folder of Parquet or CSV files."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from artifacts.errors import InputError, UsageError
from nightrec.night import CONFIG, Json
from nightrec.terminal import answer, say, show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import duckdb

    from nightrec.convert import Ready
    from nightrec.draft import Sizes
    from nightrec.guess import Evidence, Guess, Reason, Said
    from nightrec.look import Table

_COPIES = "inputs"  # the folder of copies, beside the config
_ASKED = 5_000_000  # events that tell whether people take things again


def init(  # noqa: PLR0913 - the options of a command are its arguments
    folder: Annotated[Path, typer.Argument(help="Folder of Parquet or CSV files, or one file.", show_default=False)],
    *,
    config: Annotated[Path, typer.Option("--config", help="The file to write.")] = CONFIG,
    user: Annotated[str | None, typer.Option("--user", help="Column of the user's id.", show_default=False)] = None,
    item: Annotated[str | None, typer.Option("--item", help="Column of the item's id.", show_default=False)] = None,
    time: Annotated[str | None, typer.Option("--time", help="Column of the moment.", show_default=False)] = None,
    time_format: Annotated[
        str | None,
        typer.Option("--time-format", help="How to read it, such as '%d.%m.%Y %H:%M'.", show_default=False),
    ] = None,
    timezone: Annotated[str, typer.Option("--timezone", help="Of the days, and of times that carry none.")] = "UTC",
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing, and write what was guessed.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the config, and copies made before.")] = False,
    json: Json = False,
) -> None:
    """Write a first config: guess which table and column is what, say why, and choose settings by their size."""
    import duckdb

    from features.times import zone_of
    from nightrec.guess import Said
    from nightrec.look import look_at

    zone_of(timezone)
    copies = config.parent / _COPIES
    for path in (config, *sorted(copies.glob("*.parquet"))):
        if path.exists() and not overwrite:
            raise UsageError(f"{path} is there already; name another place by --config, or give --overwrite")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        tables, passed = look_at(folder, connection, without=copies)
        for line in passed:
            say(f"nightrec: passed over: {line}")
        found = _agreed(tables, _evidence(connection), Said(user, item, time, time_format), config, yes=yes)
        text, sizes, reasons = _written(found, connection, config, timezone)
    config.parent.mkdir(parents=True, exist_ok=True)
    show("Copies and sizes", ("what", "is", "why"), [(one.what, one.taken, one.why) for one in reasons])
    config.write_text(text, "utf-8")
    where = f" --config {config}" if config != CONFIG else ""
    say(f"nightrec: {config} is written; it explains its settings. Next:")
    say(f"  nightrec fit --export{where}    # both models and their bundles")
    say(f"  nightrec run{where}             # a night of {sizes.newest}, and the first release")
    if json:
        told = [asdict(one) for one in (*found.reasons, *reasons)]
        answer({"config": str(config), "newest_day": sizes.newest.isoformat(), "guessed": told})


def _agreed(tables: "Sequence[Table]", evidence: "Evidence", said: "Said", config: Path, *, yes: bool) -> "Guess":
    """Show the guess, and ask about what is not clear and whether it may be written.

    Raises:
        UsageError: If nobody can be asked and nobody said ``--yes``, or the answer is no.
    """
    from dataclasses import replace

    from nightrec.guess import guess

    found = guess(tables, evidence, said)
    asks = sys.stdin.isatty() and sys.stderr.isatty() and not yes
    for name, columns in found.doubts.items() if asks else ():
        chosen = typer.prompt(f"Which column is the {name}: {', '.join(columns)}?", default=columns[0], err=True)
        said = replace(said, **{name: chosen})
    found = guess(tables, evidence, said) if asks and found.doubts else found
    show("What was guessed", ("what", "taken", "why"), [(one.what, one.taken, one.why) for one in found.reasons])
    if asks and not typer.confirm(f"Write {config}?", default=True, err=True):
        raise UsageError("nothing was written; --user, --item, --time and --time-format say what is what")
    if not asks and not yes:
        raise UsageError("nothing was written, since nobody can be asked here; --yes takes what was guessed")
    return found


def _evidence(connection: "duckdb.DuckDBPyConnection") -> "Evidence":
    """Ask the rows by SQL; what is shared is taken of a sample."""
    from nightrec.guess import Evidence
    from nightrec.look import SAMPLE, one_of, quoted

    def shared(table: "Table", column: str, events: "Table", wanted: str) -> float:
        ours, theirs = (f"CAST({quoted(name)} AS VARCHAR)" for name in (column, wanted))
        bare = r"regexp_replace({}, '\.0$', '')"
        asked = (
            f"WITH seen AS (FROM {events.relation} LIMIT {SAMPLE}), "
            f"wanted AS (SELECT DISTINCT {bare.format(theirs)} AS id FROM seen) "
            f"SELECT coalesce(avg(CAST(id IN (SELECT {bare.format(ours)} FROM {table.relation}) AS INTEGER)), 0) "
            "FROM wanted WHERE id IS NOT NULL"
        )
        return float(one_of(connection, asked))

    def depends(table: "Table", key: str, column: str) -> float:
        told = (
            f"WITH told AS (SELECT {quoted(key)} AS k, {quoted(column)} AS v, count(*) AS n FROM "
            f"(FROM {table.relation} LIMIT {SAMPLE}) WHERE k IS NOT NULL AND v IS NOT NULL GROUP BY ALL) "
        )
        asked = (
            "SELECT [(SELECT sum(n) FROM told), "
            "(SELECT max(n) FROM (SELECT sum(n) AS n FROM told GROUP BY v)), "
            "(SELECT sum(n) FROM (SELECT max(n) AS n FROM told GROUP BY k))]"
        )
        rows, best, best_of_keys = one_of(connection, told + asked)
        return float((best_of_keys - best) / (rows - best)) if rows and rows > best else 0.0

    return Evidence(shared, depends)


def _written(
    found: "Guess", connection: "duckdb.DuckDBPyConnection", config: Path, timezone: str
) -> "tuple[str, Sizes, list[Reason]]":
    """Make what a night can read, measure it, and draft the config."""
    from nightrec.convert import make_ready
    from nightrec.draft import draft
    from nightrec.guess import Reason
    from nightrec.inputs import EXACT
    from nightrec.names import feature_name

    ready, reasons = make_ready(found, connection, config.parent / _COPIES)
    sizes = _sizes(ready, connection, timezone)
    newer = sum(day > sizes.newest for day in sizes.days)
    about = "" if sizes.events <= EXACT else "about "
    counted = f"{sizes.events:,} events, {about}{sizes.users:,} users, {sizes.items:,} items"
    passed = f"; {newer} newer with few events are passed over" if newer else ""
    reasons += [
        Reason(
            "sizes",
            f"{counted}, {len(sizes.days):,} days with events",
            f"the newest whole day is {sizes.newest}{passed}",
        )
    ]
    name = feature_name(config.resolve().parent.name, ())
    return draft(name, timezone, ready, sizes, config.parent), sizes, reasons


def _sizes(ready: "Mapping[str, Ready]", connection: "duckdb.DuckDBPyConnection", timezone: str) -> "Sizes":
    """Count what a night will read, as it will read it.

    Raises:
        InputError: If it cannot.
    """
    from features.day import events_by_day, newest_whole_day
    from features.inputs import TIME_UNIT, Inputs, Source, files_of
    from nightrec.draft import Sizes
    from nightrec.inputs import count_inputs
    from nightrec.look import literal, one_of, quoted

    sources = {
        name: Source(one.path, {**one.columns, **one.features, **({TIME_UNIT: one.time_unit} if one.time_unit else {})})
        for name, one in ready.items()
    }
    inputs = Inputs(sources["interactions"], None, sources.get("users"), sources["items"], naive_zone=timezone)
    counted = count_inputs(inputs)
    days = events_by_day(inputs, timezone)
    newest = newest_whole_day(days)
    if newest is None:
        raise InputError(f"{ready['interactions'].path}: expected times of events, found none")
    user, item = (quoted(ready["interactions"].columns[key]) for key in ("user_id", "item_id"))
    files = ", ".join(literal(str(path)) for path in files_of(sources["interactions"]).paths)
    asked = (  # of so many users, all of their events: who buys again does so in a history of their own
        f"SELECT coalesce((count(*) - count(DISTINCT ({user}, {item}))) / nullif(count(*), 0), 0) "
        f"FROM read_parquet([{files}]) WHERE hash({user}) % {1 + counted.events // _ASKED} = 0"
    )
    repeated = float(one_of(connection, asked))
    return Sizes(counted.events, counted.users, counted.items, days, newest, repeated)
