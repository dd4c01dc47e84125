"""``nightrec releases``: what is published, whether it is whole, and the way back."""

import getpass
from dataclasses import asdict
from typing import Annotated

import typer

from nightrec.night import ConfigPath, Json, configured
from nightrec.terminal import answer, say, show

app = typer.Typer(help="What is published, whether it is whole, and the way back.", no_args_is_help=True)

Channel = Annotated[str, typer.Option("--channel", help="The pointer that readers follow.")]
AnyVersion = Annotated[
    str | None, typer.Argument(help="A release; by default the one that the channel names.", show_default=False)
]
Who = Annotated[str | None, typer.Option("--who", help="Who asks; by default the user who is logged in.")]


@app.command("list")
def list_(*, config: ConfigPath, json: Json = False) -> None:
    """List the stored releases."""
    from release.releases import list_releases

    listed = list_releases(configured(config).root)
    rows = [
        (
            one.version,
            ", ".join(f"{name} (held)" if name in one.held else name for name in one.channels),
            one.users,
            one.items,
            one.rows,
            f"{one.size / 1e6:,.1f} MB",
            one.problem,
        )
        for one in listed
    ]
    show("Releases", ("version", "named by", "users", "items", "rows", "size", "problem"), rows)
    if json:
        answer({"releases": [asdict(one) for one in listed]})


@app.command("show")
def show_(version: AnyVersion = None, *, config: ConfigPath, channel: Channel = "LATEST", json: Json = False) -> None:
    """Tell what is in a release, and what its gates said."""
    from release.releases import show as show_release

    told = show_release(configured(config).root, version, channel=channel)
    plain = ("version", "date", "run_key", "parent", "users", "items", "rows", "bytes")
    show("Release", ("what", "is"), [(key, str(told[key])) for key in plain])
    if told["gates"]:
        verdicts = [(v["name"], v["state"], v["value"], v["side"], v["bound"]) for v in told["gates"]["verdicts"]]
        show("Gates", ("gate", "says", "value", "expected", "bound"), verdicts)
    if json:
        answer(told)


@app.command()
def verify(version: AnyVersion = None, *, config: ConfigPath, channel: Channel = "LATEST", json: Json = False) -> None:
    """Read every byte of a release, and say which file is changed, missing or strange."""
    from release.releases import verify as verify_release

    verified = verify_release(configured(config).root, version, channel=channel)
    say(f"{verified.version}: {verified.files} files, {verified.size:,} bytes: all as they were written.")
    if json:
        answer(asdict(verified))


@app.command()
def rollback(
    version: Annotated[str, typer.Argument(help="The release to go back to.")],
    *,
    config: ConfigPath,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")],
    who: Who = None,
    channel: Channel = "LATEST",
    json: Json = False,
) -> None:
    """Let readers have an earlier release again, and hold it there until ``resume``."""
    from release.releases import rollback as roll_back

    pointer = roll_back(configured(config).root, version, who=who or getpass.getuser(), why=reason, channel=channel)
    say(f"{channel} names {pointer.version} and is held there until `nightrec releases resume`.")
    if json:
        answer(pointer.document())


@app.command()
def resume(
    *,
    config: ConfigPath,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")] = "",
    who: Who = None,
    channel: Channel = "LATEST",
    json: Json = False,
) -> None:
    """Lift the hold of a rollback: the next night that is published moves the pointer again."""
    from release.releases import resume as lift

    pointer = lift(configured(config).root, who=who or getpass.getuser(), why=reason, channel=channel)
    say(f"{channel} names {pointer.version} and moves again with the next night that is published.")
    if json:
        answer(pointer.document())
