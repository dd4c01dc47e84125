"""The verbs of the night: ``nightrec run``, and each of its steps by itself."""

from datetime import date as calendar_date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from artifacts.errors import NightrecError, NotReadyError
from nightrec.terminal import answer, say, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nightrec.config import Config
    from nightrec.run import Done, Night


def iso_day(text: str | None) -> str | None:
    """Take a day as YYYY-MM-DD from the command line; None is one that was not said."""
    if text is None:
        return None
    try:
        day = calendar_date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"expected a day as YYYY-MM-DD, found {text!r}") from None
    if not 1970 <= day.year < 2200:  # a century before and after it is a day too
        raise typer.BadParameter(f"expected a day of the years 1970 to 2199, found {text!r}")
    return day.isoformat()


def _reason(text: str | None) -> str | None:
    if text is not None and not text.strip():
        raise typer.BadParameter("expected a reason, found a blank text; it is recorded")
    return text


def _whole(text: str | None) -> str | None:
    if text not in {None, "0/1"}:
        raise typer.BadParameter(f"this step is one shard, 0/1; found {text!r}")
    return text


CONFIG = Path("job.toml")
ConfigPath = Annotated[
    Path,
    typer.Option(
        "--config",
        help=f"The surface's config, a TOML file; by default {CONFIG} in this folder.",
        default_factory=lambda: CONFIG,
        show_default=False,
    ),
]
DataDate = Annotated[
    str, typer.Option("--date", help="The data date, YYYY-MM-DD: nothing after it is read.", callback=iso_day)
]
NewestDate = Annotated[
    str | None,
    typer.Option(
        "--date",
        help="The data date, YYYY-MM-DD; by default the newest day of the data that is whole. A scheduler names it.",
        callback=iso_day,
        show_default=False,
    ),
]
DeviceName = Annotated[
    Literal["cpu", "gpu", "auto"] | None, typer.Option("--device", help="Instead of the config's night.device.")
]
Shards = Annotated[
    str | None, typer.Option("--shard", help="Only these shards, such as 3/64 or 0-7/64.", show_default=False)
]
Group = Annotated[
    str | None,
    typer.Option(
        "--group",
        help="Only the i-th, from 0, of n even groups of the shards, such as 0/4, however many shards there are.",
        show_default=False,
    ),
]
OneShard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="0/1, or nothing: this step is one shard. It is there so that every step can be called alike.",
        callback=_whole,
        show_default=False,
    ),
]
RunKey = Annotated[
    str | None, typer.Option("--run", help="Key of the run; by default the one prepared last.", show_default=False)
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes, instead of the config's night.workers.")
]
Engine = Annotated[
    Literal["local", "ray"] | None, typer.Option("--engine", help="Instead of the config's night.engine.")
]
Override = Annotated[
    str | None, typer.Option("--override", help="Publish in spite of a failed gate; say why.", callback=_reason)
]
Supersede = Annotated[
    str | None, typer.Option("--supersede", help="Replace another release of the date; say why.", callback=_reason)
]
SeenFuture = Annotated[
    str | None, typer.Option("--seen-future", help="Use a model trained on later days; say why.", callback=_reason)
]
Channel = Annotated[
    str, typer.Option("--channel", help="The pointer that readers follow: it moves, and is compared with.")
]
Profile = Annotated[
    bool, typer.Option("--profile", help="Say where the time went: the stages of each step, rows a second, memory.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def configured(path: Path, **night: str | int | None) -> "Config":
    """Read the config; keys of *night* that the command line says are in place of it."""
    from nightrec.config import read_config

    config = read_config(path)
    if (night.get("engine") or config.night.engine) != "local":
        config = read_config(path.absolute())  # other machines don't begin in this folder
    said = {key: value for key, value in night.items() if value is not None}
    return config.model_copy(update={"night": config.night.model_copy(update=said)})


def run(  # noqa: PLR0913 - the options of the command line
    *,
    config: ConfigPath,
    date: NewestDate = None,
    engine: Engine = None,
    workers: Workers = None,
    device: DeviceName = None,
    override: Override = None,
    supersede: Supersede = None,
    seen_future: SeenFuture = None,
    channel: Channel = "LATEST",
    profile: Profile = False,
    json: Json = False,
) -> None:
    """Do the whole night: every step in order, none of them twice."""
    from nightrec.run import run_night

    read = configured(config, device=device, engine=engine, workers=workers)
    day = date or _newest_day(read)
    done: list[Done] = []

    def told(one: "Done") -> None:
        done.append(one)
        say(f"nightrec: {one.line()}")

    try:
        night = run_night(
            read,
            day,
            override=override,
            supersede=supersede,
            seen_future=seen_future or "",
            channel=channel,
            told=told,
        )
    except NightrecError:
        if done:
            _show(f"Night of {day}, as far as it went", done)
        raise
    _report(night, json=json, profile=profile)
    if night.published and night.published.moved and night.published.sequence == 1:
        said = f" --config {config}" if config != CONFIG else ""
        say("nightrec: the first release, and readers have it. Next:")
        say(f"  nightrec report{said}            # where a page about the night lies, for a browser")
        say(f"  nightrec recommend USER{said}    # what a user is given; `nightrec why USER ITEM{said}` says why")


def prepare(
    *,
    config: ConfigPath,
    date: DataDate,
    shard: OneShard = None,
    device: DeviceName = None,
    seen_future: SeenFuture = None,
    json: Json = False,
) -> None:
    """Read the inputs: encode the catalogue, cut the histories, fix the execution profile."""
    from nightrec.run import Night, prepare_run

    run_, done = prepare_run(configured(config, device=device), date, seen_future=seen_future or "")
    _report(Night(run_, (done,)), json=json)


def items(
    *,
    config: ConfigPath,
    date: DataDate,
    shard: Shards = None,
    group: Group = None,
    run: RunKey = None,
    engine: Engine = None,
    workers: Workers = None,
    device: DeviceName = None,
    json: Json = False,
) -> None:
    """Embed the catalogue."""
    read = configured(config, device=device, engine=engine, workers=workers)
    _step("items", read, date, run, shard=shard, group=group, json=json)


def index(
    *,
    config: ConfigPath,
    date: DataDate,
    shard: OneShard = None,
    run: RunKey = None,
    device: DeviceName = None,
    json: Json = False,
) -> None:
    """Build the index over tonight's items, and tune it on tonight's users."""
    _step("index", configured(config, device=device), date, run, shard=shard, json=json)


def interests(
    *,
    config: ConfigPath,
    date: DataDate,
    shard: Shards = None,
    group: Group = None,
    run: RunKey = None,
    engine: Engine = None,
    workers: Workers = None,
    device: DeviceName = None,
    json: Json = False,
) -> None:
    """Compute the interest vectors of all users."""
    read = configured(config, device=device, engine=engine, workers=workers)
    _step("interests", read, date, run, shard=shard, group=group, json=json)


def score(
    *,
    config: ConfigPath,
    date: DataDate,
    shard: Shards = None,
    group: Group = None,
    run: RunKey = None,
    engine: Engine = None,
    workers: Workers = None,
    device: DeviceName = None,
    json: Json = False,
) -> None:
    """Retrieve candidates for every user, and rank them."""
    read = configured(config, device=device, engine=engine, workers=workers)
    _step("score", read, date, run, shard=shard, group=group, json=json)


def check(
    *,
    config: ConfigPath,
    date: DataDate,
    shard: OneShard = None,
    run: RunKey = None,
    channel: Channel = "LATEST",
    json: Json = False,
) -> None:
    """Judge the night by its gates; exit code 3 if one of them refuses it."""
    from nightrec.run import Night, check_run, continued_run

    read = configured(config)
    found = continued_run(read, date, run)
    _report(Night(found, (check_run(read, found, channel=channel),)), json=json)


def publish(
    *,
    config: ConfigPath,
    date: DataDate,
    shard: OneShard = None,
    run: RunKey = None,
    override: Override = None,
    supersede: Supersede = None,
    channel: Channel = "LATEST",
    json: Json = False,
) -> None:
    """Publish a night that its gates have blessed."""
    from nightrec.run import Night, continued_run, publish_run

    read = configured(config)
    found = continued_run(read, date, run)
    published, done = publish_run(read, found, override=override, supersede=supersede, channel=channel)
    _report(Night(found, (done,), published), json=json)


def _step(
    step: str,
    config: "Config",
    date: str,
    run_key: str | None,
    *,
    shard: str | None = None,
    group: str | None = None,
    json: bool,
) -> None:
    from nightrec.run import Night, continued_run, do_step, shards_of

    run_ = continued_run(config, date, run_key)
    asked = shards_of(step, run_, shard=shard, group=group)
    _report(Night(run_, (do_step(step, config, run_, asked),)), json=json)


def _newest_day(config: "Config") -> str:
    """Choose the data date for a person who named none, and say which it is.

    Raises:
        NotReadyError: If there is no event.
    """
    from features.day import events_by_day, newest_whole_day
    from features.inputs import check_inputs
    from nightrec.inputs import inputs_of

    inputs, zone = inputs_of(config), config.surface.timezone
    check_inputs(inputs)
    days = events_by_day(inputs, zone)
    day = newest_whole_day(days, min_share_of_median=config.day.min_share_of_median, weeks=config.day.weeks)
    if day is None:
        raise NotReadyError(f"{inputs.sources[inputs.behaviours].path}: expected events, found none; look at the files")
    newer = [one for one in days if one > day]
    passed = f"; {len(newer)} newer with few events, up to {newer[-1]}, passed over" if newer else ""
    say(f"nightrec: the data date is {day}, the newest whole day of the data{passed}; --date names another")
    return day.isoformat()


def _report(night: "Night", *, json: bool, profile: bool = False) -> None:
    _show(f"Night of {night.run.date}, run {night.run.run_key}", night.steps)
    if profile:
        _show_profile(night.steps)
    if json:
        profiles = {"profile": {done.step: done.profile() for done in night.steps}} if profile else {}
        answer({**night.document(), **profiles}, short=len(night.steps) == 1)  # a scheduler keeps what a step says


def _show_profile(steps: "Sequence[Done]") -> None:
    """Show where the time went; seconds of stages are added up over threads, so they may be more than the step's."""
    rows = []
    for done in steps:
        whole = sum(done.stages.values()) or 1.0
        stages = sorted(done.stages.items(), key=lambda stage: -stage[1])
        shares = ", ".join(f"{name} {spent:.2f} s ({spent / whole:.0%})" for name, spent in stages)
        rows.append((done.step, round(done.seconds, 2), done.speed, round(done.memory / 1e6), shares))
    show("Where the time went", ("step", "seconds", "rows/s", "MB", "seconds of its threads"), rows)


def _show(title: str, steps: "Sequence[Done]") -> None:
    rows = [(done.step, done.rows, done.state, round(done.seconds, 2), done.speed, done.notes) for done in steps]
    show(title, ("step", "rows", "shards", "seconds", "rows/s", "counted"), rows, needed=3)
