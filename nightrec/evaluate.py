"""``nightrec evaluate``: what a release, or bundles, were worth, by what users did in the days after."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date as calendar_date
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from artifacts.errors import NotReadyError, UsageError
from nightrec.completion import complete_release
from nightrec.night import ConfigPath, Json, configured, iso_day
from nightrec.terminal import answer, progress, say, show

if TYPE_CHECKING:
    from artifacts.bundle import FeatureSpec
    from features.sequences import Sequences
    from features.vocabulary import Vocabulary
    from models.protocol import Questions
    from nightrec.config import Config

_FINAL = "final lists"
_KINDS = ("all", "new")
_POPULAR = (7, 30)  # days


@dataclass(frozen=True, eq=False)
class _Judged:
    """What is judged.

    Attributes:
        name: For people.
        about: For machines.
        until: The last day that it knows of.
        spec: What must be read of users and items.
        vocabularies: In which words; None knows every id.
        answers: Its lists by system, the one that counts first, and how many users have none.
    """

    name: str
    about: dict[str, Any]
    until: calendar_date
    spec: "FeatureSpec"
    vocabularies: "dict[str, Vocabulary] | None"
    answers: "Callable[[Sequences, Questions], tuple[dict[str, Any], int]]"


def evaluate(
    *,
    config: ConfigPath,
    date: Annotated[
        str | None,
        typer.Option("--date", help="The data date, YYYY-MM-DD.", callback=iso_day, show_default=False),
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
    bundles: Annotated[
        bool,
        typer.Option(
            "--bundles",
            help="Judge the bundles of the config without a night, by default as of the last day they learnt from.",
        ),
    ] = False,
    days: Annotated[int, typer.Option("--days", min=1, help="Days after the data date that are looked at.")] = 7,
    json: Json = False,
) -> None:
    """Judge a release or bundles by what users did on their first active day after it, beside floors of no model."""
    from models.protocol import KS, judge

    read = configured(config)
    if bundles and release is not None:
        raise UsageError("--bundles judges the bundles of the config; leave --release away")
    judged = _of_bundles(read, date) if bundles else _of_release(read, release, date)
    sequences = _events(read, judged, judged.until + timedelta(days=days))
    questions = _questions(read, sequences, judged.until, days)
    _tell_missing_days(read, sequences, judged.until, days)
    answers, missing = judged.answers(sequences, questions)
    systems = answers | _floors(read, sequences, questions, judged.until)
    length = next(iter(systems.values()))["all"].shape[1]
    measured = {name: judge(questions, lists, tuple(sorted({*KS, length}))) for name, lists in systems.items()}
    first = min(*KS, length)  # of shorter lists all of them
    asked = dict.fromkeys(
        f"{kind}.{one}" for kind in _KINDS for one in (f"hr@{first}", f"hr@{length}", f"ndcg@{first}")
    )
    rows = [(name, *(_figure(figures.get(metric)) for metric in asked)) for name, figures in measured.items()]
    title = f"{judged.name}, by {len(questions):,} users on their first day of the {days} after it"
    show(title, ("system", *asked), rows, needed=4)
    if json:
        about = {**judged.about, "date": judged.until.isoformat(), "days": days, "users": len(questions)}
        answer({**about, "users_without_list": missing, "length": length, "systems": measured})


def _of_release(config: "Config", version: str | None, date: str | None) -> _Judged:
    """Find the release of a name, or of a date.

    Raises:
        UsageError: If there is none, several, or one of another date.
    """
    from artifacts.bundle import FeatureSpec
    from release.pointer import find_release

    found = find_release(config.root, version or _of_date(config, date))
    if date is not None and found.manifest.date != date:
        raise UsageError(f"release {found.version} is not of {date}; leave --date or --release away")

    def answers(sequences: "Sequences", questions: "Questions") -> tuple[dict[str, Any], int]:
        from nightrec.answers import final_lists, retrieved_lists

        lists, missing = final_lists(found, sequences, questions)
        return {_FINAL: lists, "retrieval": retrieved_lists(found, sequences, questions)}, missing

    until = calendar_date.fromisoformat(found.manifest.date)
    spec = FeatureSpec(("item_id",), history_length=1)
    return _Judged(f"Release {found.version}", {"release": found.version}, until, spec, None, answers)


def _of_bundles(config: "Config", date: str | None) -> _Judged:
    """Open the bundles of the config, as of a date on which they have not seen the future.

    Raises:
        UsageError: If they have, or do not say through which day they learnt and no date is given.
    """
    from batch.prepare import joint_spec, require_same_popularity, vocabularies_of
    from nightrec.exact import exact_lists, open_models
    from nightrec.steps import bundles_of

    bundles = bundles_of(config)
    last = max(bundles, key=lambda bundle: bundle.trained_through)
    date = date or last.trained_through
    if not date:
        raise UsageError("the bundles do not say through which day they were trained; name a data date by --date")
    if last.trained_through > date:
        raise UsageError(
            f"{last.role} bundle {last.folder} was trained through {last.trained_through}, after the data date {date}: "
            "it has seen what it would be judged by; name a later --date"
        )
    require_same_popularity(bundles, config.retrieve.popularity_weight)
    models, until = open_models(config, bundles), calendar_date.fromisoformat(date)

    def answers(sequences: "Sequences", questions: "Questions") -> tuple[dict[str, Any], int]:
        return exact_lists(models, sequences, questions, _window(config, until, 1, 1).start_us), 0

    spec, folders = joint_spec(bundles), {str(bundle.role): str(bundle.folder) for bundle in bundles}
    name = f"Bundles {', '.join(folders.values())} as of {date}"
    return _Judged(name, {"bundles": folders}, until, spec, vocabularies_of(bundles, spec), answers)


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


def _events(config: "Config", judged: _Judged, until: calendar_date) -> "Sequences":
    """Read every event up to the end of *until*, and what is judged must be told of users and items."""
    from features.catalogue import encode_catalogue, fit_feature_vocabularies
    from features.inputs import check_inputs, count_events
    from features.ordered import Engine
    from features.sequences import read_sequences
    from nightrec.inputs import inputs_of

    inputs, spec = inputs_of(config), judged.spec
    check_inputs(inputs)
    vocabularies = judged.vocabularies or fit_feature_vocabularies(inputs, spec=spec)
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


def _tell_missing_days(config: "Config", sequences: "Sequences", until: calendar_date, days: int) -> None:
    """Say so where the data ends before the days are over: who comes back on those that are missing is not asked."""
    last = datetime.fromtimestamp(int(sequences.times_us.max()) // 1_000_000, ZoneInfo(config.surface.timezone)).date()
    if last < until + timedelta(days=days):
        there = (last - until).days
        say(
            f"nightrec: the data ends on {last}, {there} of the {days} days after {until}: who comes back later is "
            "not asked"
        )


def _floors(config: "Config", sequences: "Sequences", questions: "Questions", until: calendar_date) -> dict[str, Any]:
    """Let every floor answer; it knows what was known on the data date."""
    from models.protocol import own_lists, popular_lists, popular_order

    orders = {n: popular_order(sequences, _window(config, until, 1 - n, 0)) for n in _POPULAR}
    return {
        **{f"popular, {n} days": popular_lists(questions, order) for n, order in orders.items()},
        "own items": own_lists(questions, orders[max(_POPULAR)]),
    }


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
