"""``nightrec evaluate``: what a release was worth, by what its users did in the days after it."""

import tempfile
from datetime import date as calendar_date
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from artifacts.errors import NotReadyError, UsageError
from nightrec.completion import complete_release
from nightrec.night import ConfigPath, Json, configured, iso_day
from nightrec.terminal import answer, progress, show

if TYPE_CHECKING:
    from features.sequences import Sequences
    from models.protocol import Questions
    from nightrec.config import Config
    from release.pointer import Release

_FINAL = "final lists"
_KINDS = ("all", "new")
_POPULAR = (7, 30)  # days


def evaluate(
    *,
    config: ConfigPath,
    date: Annotated[
        str | None,
        typer.Option("--date", help="The data date of the release, YYYY-MM-DD.", callback=iso_day, show_default=False),
    ] = None,
    release: Annotated[
        str | None,
        typer.Option(
            "--release",
            help="By default the one of the data date, or else the one that readers have.",
            autocompletion=complete_release,
            show_default=False,
        ),
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, help="Days after the data date that are looked at.")] = 7,
    json: Json = False,
) -> None:
    """Judge a release by what its users did on their first active day after it, beside floors that need no model."""
    from models.protocol import KS, judge
    from release.pointer import find_release

    read = configured(config)
    found = find_release(read.root, release or _of_date(read, date))
    if date is not None and found.manifest.date != date:
        raise UsageError(f"release {found.version} is not of {date}; leave --date or --release away")
    until = calendar_date.fromisoformat(found.manifest.date)
    sequences = _events(read, until + timedelta(days=days))
    questions = _questions(read, sequences, until, days)
    systems, missing = _systems(read, found, sequences, questions, until)
    length = systems[_FINAL]["all"].shape[1]
    measured = {name: judge(questions, lists, tuple(sorted({*KS, length}))) for name, lists in systems.items()}
    first = min(*KS, length)  # of shorter lists all of them
    asked = dict.fromkeys(
        f"{kind}.{one}" for kind in _KINDS for one in (f"hr@{first}", f"hr@{length}", f"ndcg@{first}")
    )
    rows = [(name, *(_figure(figures.get(metric)) for metric in asked)) for name, figures in measured.items()]
    title = f"Release {found.version}, by {len(questions):,} users on their first day of the {days} after it"
    show(title, ("system", *asked), rows, needed=4)
    if json:
        about = {"release": found.version, "date": found.manifest.date, "days": days, "users": len(questions)}
        answer({**about, "users_without_list": missing, "length": length, "systems": measured})


def _of_date(config: "Config", date: str | None) -> str | None:
    """Name the only release of a data date.

    Raises:
        UsageError: If there are several.
    """
    from release.pointer import versions

    if date is None:
        return None
    of_date = [version for version in versions(config.root) if version.startswith(date)]
    if len(of_date) > 1:
        raise UsageError(f"there are {len(of_date)} releases of {date}; name one by --release: {', '.join(of_date)}")
    return of_date[0] if of_date else date


def _events(config: "Config", until: calendar_date) -> "Sequences":
    """Read every event up to the end of *until*; of the catalogue the ids alone, all of them known."""
    from artifacts.bundle import FeatureSpec
    from features.catalogue import encode_catalogue, fit_feature_vocabularies
    from features.inputs import check_inputs, count_events
    from features.ordered import Engine
    from features.sequences import read_sequences
    from nightrec.inputs import inputs_of

    inputs, spec = inputs_of(config), FeatureSpec(("item_id",), history_length=1)
    check_inputs(inputs)
    vocabularies = fit_feature_vocabularies(inputs, spec=spec)
    catalogue, _ = encode_catalogue(inputs, spec=spec, vocabularies=vocabularies)
    with tempfile.TemporaryDirectory() as scratch, progress("reading", count_events(inputs)) as advance:
        return read_sequences(
            inputs,
            catalogue=catalogue,
            spec=spec,
            vocabularies=vocabularies,
            until=until,
            zone=config.surface.timezone,
            engine=Engine(Path(scratch), config.night.memory, config.night.threads, advance),
        )


def _questions(config: "Config", sequences: "Sequences", until: calendar_date, days: int) -> "Questions":
    """Ask who was known on the data date and came back.

    Raises:
        NotReadyError: If nobody did, so far.
    """
    from models.protocol import questions_of

    questions = questions_of(sequences, _window(config, until, 1, days), zone=config.surface.timezone)
    if not len(questions):
        raise NotReadyError(
            f"expected events of known users in the {days} days after {until}, found none; wait for them, or name an "
            "earlier --date or more --days"
        )
    return questions


def _systems(
    config: "Config", release: "Release", sequences: "Sequences", questions: "Questions", until: calendar_date
) -> tuple[dict[str, Any], int]:
    """Let the release and every floor answer; a floor knows what was known on the data date."""
    from models.protocol import own_lists, popular_lists, popular_order
    from nightrec.answers import final_lists, retrieved_lists

    lists, missing = final_lists(release, sequences, questions)
    orders = {n: popular_order(sequences, _window(config, until, 1 - n, 0)) for n in _POPULAR}
    systems = {
        _FINAL: lists,
        "retrieval": retrieved_lists(release, sequences, questions),
        **{f"popular, {n} days": popular_lists(questions, order) for n, order in orders.items()},
        "own items": own_lists(questions, orders[max(_POPULAR)]),
    }
    return systems, missing


def _window(config: "Config", until: calendar_date, first: int, last: int) -> Any:
    """Give the whole days from *first* to *last*, counted from the data date."""
    from features.day import data_day
    from models.examples import Window

    zone = config.surface.timezone
    start, _ = data_day(until + timedelta(days=first), zone)
    _, end = data_day(until + timedelta(days=last), zone)
    return Window(start, end)


def _figure(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
