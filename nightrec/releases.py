"""``nightrec releases``: what is published, whether it is whole, and what can be done with it."""

import getpass
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightrec.completion import complete_release
from nightrec.night import ConfigPath, Json, configured
from nightrec.recommend import titles_of
from nightrec.terminal import answer, progress, say, show

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nightrec.config import Config
    from release.diff import Difference, Moved
    from release.prune import Fate
    from release.revise import Revised

app = typer.Typer(help="What is published, whether it is whole, and what can be done with it.", no_args_is_help=True)

Channel = Annotated[str, typer.Option("--channel", help="The pointer that readers follow.")]
AnyVersion = Annotated[
    str | None,
    typer.Argument(
        help="A release; by default the one that the channel names.",
        show_default=False,
        autocompletion=complete_release,
    ),
]
Version = Annotated[str, typer.Argument(help="A release.", autocompletion=complete_release)]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is recorded.")]
Who = Annotated[str | None, typer.Option("--who", help="Who asks; by default the user who is logged in.")]


def _asker(who: str | None) -> str:
    if who is not None:
        return who
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return f"user {os.getuid()}"


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
            "pinned" if one.pinned else "",
            one.problem,
        )
        for one in listed
    ]
    show("Releases", ("version", "named by", "users", "items", "rows", "size", "kept", "problem"), rows, needed=2)
    if json:
        answer({"releases": [asdict(one) for one in listed]})


@app.command("show")
def show_(version: AnyVersion = None, *, config: ConfigPath, channel: Channel = "LATEST", json: Json = False) -> None:
    """Tell what is in a release, and what its gates said."""
    from release.releases import show as show_release

    told = show_release(configured(config).root, version, channel=channel)
    plain = ("version", "date", "run_key", "parent", "users", "items", "rows", "bytes")
    lines = [(key, str(told[key])) for key in plain]
    lines += [("overridden", f"{one['rule']} (found: {one['found']}): {one['reason']}") for one in told["overrides"]]
    if told["pin"]:
        lines.append(("pinned", f"by {told['pin']['who']}: {told['pin']['why']}"))
    for one in (told["revision"] or {}).get("revisions", ()):
        lines.append(("revised from", f"{one['revised_from']} by {one['who']}: {one['why']}"))
    show("Release", ("what", "is"), lines)
    if told["gates"]:
        verdicts = [(v["name"], v["state"], v["value"], v["side"], v["bound"]) for v in told["gates"]["verdicts"]]
        show("Gates", ("gate", "says", "value", "expected", "bound"), verdicts)
    if json:
        answer(told)


@app.command()
def verify(
    version: AnyVersion = None,
    *,
    config: ConfigPath,
    channel: Channel = "LATEST",
    quick: Annotated[bool, typer.Option("--quick", help="Compare sizes, and digests of the lists alone.")] = False,
    json: Json = False,
) -> None:
    """Read every byte of a release, and say which file is changed, missing or strange."""
    from release.releases import verify as verify_release

    with progress("verify"):
        verified = verify_release(configured(config).root, version, channel=channel, quick=quick)
    found = "of the size that was written" if quick else "as they were written"
    say(f"{verified.version}: {verified.files} files, {verified.size:,} bytes: all {found}.")
    if json:
        answer(asdict(verified))


@app.command()
def rollback(
    version: Annotated[str, typer.Argument(help="The release to go back to.", autocompletion=complete_release)],
    *,
    config: ConfigPath,
    reason: Reason,
    who: Who = None,
    channel: Channel = "LATEST",
    json: Json = False,
) -> None:
    """Let readers have an earlier release again, and hold it there until ``resume``."""
    from release.releases import rollback as roll_back

    pointer = roll_back(configured(config).root, version, who=_asker(who), why=reason, channel=channel)
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

    pointer = lift(configured(config).root, who=_asker(who), why=reason, channel=channel)
    say(f"{channel} names {pointer.version} and moves again with the next night that is published.")
    if json:
        answer(pointer.document())


@app.command()
def diff(
    before: Version,
    after: Annotated[str, typer.Argument(help="Another, which it is compared with.", autocompletion=complete_release)],
    *,
    config: ConfigPath,
    top: Annotated[int, typer.Option("--top", min=1, help="The k of churn@k.")] = 10,
    json: Json = False,
) -> None:
    """Compare two releases: what came, what went, what moved, and what they were made with."""
    from release.diff import diff as compare

    read = configured(config)
    with progress("diff"):
        found = compare(read.root, before, after, top=top, memory=read.night.memory, threads=read.night.threads)
    show(
        f"From {found.before} to {found.after}", ("what", "before", "after", "came", "went"), _counted(found), needed=3
    )
    show("Of what both have", ("what", "common", "differ", "mean distance", "largest"), _moved(found), needed=3)
    shares = ((f"churn@{found.top}", found.churn), ("stability index of the scores (PSI)", found.score_psi))
    show("Of the lists", ("what", "is"), shares)
    if found.movers:
        _show_movers(read, found)
    if found.parameters:
        show(
            "Made with", ("key", "before", "after"), [(key, *map(str, pair)) for key, pair in found.parameters.items()]
        )
    for note in found.notes:
        say(f"not measured: {note}")
    if json:
        answer(found.document())


def _show_movers(config: "Config", found: "Difference") -> None:
    titles = titles_of(config, [one.item_id for one in found.movers])
    rows = [
        (str(one.item_id), titles.get(one.item_id), one.before, one.after, f"{one.after - one.before:+,}")
        for one in found.movers
    ]
    show("In more lists, or in fewer", ("item_id", "title", "before", "after", "change"), rows, needed=4)


def _counted(found: "Difference") -> "Iterator[Sequence[object]]":
    for name, one in found.counts.items():
        yield name, one.before, one.after, one.came, one.went


def _moved(found: "Difference") -> "Iterator[Sequence[object]]":
    of: dict[str, Moved] = {
        "scores of the same recommendations": found.scores,
        "item vectors": found.item_vectors,
        "interest vectors of users": found.user_vectors,
    }
    for name, one in of.items():
        yield name, one.common, one.moved, one.mean, one.largest


@app.command()
def promote(
    version: Version,
    *,
    config: ConfigPath,
    reason: Reason,
    who: Who = None,
    channel: Channel = "LATEST",
    json: Json = False,
) -> None:
    """Let a channel name a stored release that another has, such as the shadow; forward in date only."""
    from release.releases import promote as move

    pointer = move(configured(config).root, version, who=_asker(who), why=reason, channel=channel)
    say(f"{channel} names {pointer.version}.")
    if json:
        answer(pointer.document())


@app.command()
def pin(version: Version, *, config: ConfigPath, reason: Reason, who: Who = None, json: Json = False) -> None:
    """Keep a release from being pruned, until ``unpin``; only ``prune --max-age`` outranks it."""
    from release.releases import pin as keep

    kept = keep(configured(config).root, version, who=_asker(who), why=reason)
    say(f"{kept.version} is kept.")
    if json:
        answer(kept.document())


@app.command()
def unpin(version: Version, *, config: ConfigPath, json: Json = False) -> None:
    """Let a pinned release go again."""
    from release.releases import unpin as let_go

    let_go(configured(config).root, version)
    say(f"{version} is kept no longer; `nightrec releases prune` may take it.")
    if json:
        answer({"version": version, "pinned": False})


@app.command()
def revise(
    version: AnyVersion = None,
    *,
    config: ConfigPath,
    reason: Reason,
    drop_users: Annotated[
        Path | None, typer.Option("--drop-users", help="File of user ids: .parquet, .arrow, .csv or .txt.")
    ] = None,
    drop_items: Annotated[
        Path | None, typer.Option("--drop-items", help="File of item ids, of the same kinds.")
    ] = None,
    at_most: Annotated[
        float, typer.Option("--at-most", min=0, max=1, help="Share of the users, or of the items, that may go.")
    ] = 0.1,
    who: Who = None,
    channel: Channel = "LATEST",
    json: Json = False,
) -> None:
    """Take users and items out of a release, in minutes; every channel that names it names the new one then."""
    from nightrec.steps import threads_of
    from release.revise import revise as take_out

    read = configured(config)
    with progress("revise"):
        done = take_out(
            read.root,
            version,
            who=_asker(who),
            why=reason,
            drop_users=drop_users,
            drop_items=drop_items,
            at_most=at_most,
            channel=channel,
            threads=threads_of(read, 1),
        )
    _tell_of_revision(done)
    if json:
        answer(asdict(done))


def _tell_of_revision(done: "Revised") -> None:
    out = done.taken_out
    say(f"out: {out.users:,} users, {out.items:,} items, {out.rows:,} recommendations, {out.emptied:,} whole lists")
    if out.unknown_users or out.unknown_items:
        say(
            f"not in {done.revised_from}: {out.unknown_users:,} of the users and "
            f"{out.unknown_items:,} of the items that were given"
        )
    if done.version == done.revised_from:
        say(f"none of them is in {done.version}: it stays as it is.")
    else:
        moved = f"{' and '.join(done.moved)} names it" if done.moved else "no channel named the old one, and none moved"
        say(f"{done.version}: {'stored' if done.stored else 'equal content was stored before'}; {moved}.")
        say(f"{done.revised_from} still holds them: `nightrec releases prune --version {done.revised_from} --runs`.")
    if done.others:
        say(
            f"{len(done.others)} other stored releases were not looked into; "
            "the next night leaves out what [inputs.exclude_users] and [inputs.exclude_items] name."
        )


@app.command()
def prune(
    *,
    config: ConfigPath,
    keep: Annotated[int | None, typer.Option("--keep", min=1, help="So many newest data dates stay.")] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", help="Days before the newest data date, or a day: what is older may go."),
    ] = None,
    max_age: Annotated[
        int | None, typer.Option("--max-age", min=0, help="Days before today: what is older must go, pinned or not.")
    ] = None,
    version: Annotated[list[str] | None, typer.Option("--version", help="This release, and no other.")] = None,
    runs: Annotated[bool, typer.Option("--runs", help="The runs of these dates too.")] = False,
    grace: Annotated[float, typer.Option("--grace", min=0, help="Hours that everything stays once it is stored.")] = 24,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this nothing is removed.")] = False,
    json: Json = False,
) -> int:
    """Say which releases may go, and remove them with --yes; exit code 3 if one that must go has to stay."""
    from release.prune import plan, rules_of
    from release.prune import prune as remove

    root = configured(config).root
    rules = rules_of(
        root,
        keep=keep,
        older_than=older_than,
        max_age=max_age,
        versions_named=version or (),
        runs=runs,
        grace_hours=grace,
        now=time.time(),
    )
    with progress("prune"):
        fates = remove(root, rules) if yes else plan(root, rules)
    _tell(fates, removed=yes)
    refused = [fate for fate in fates if fate.refused]
    if json:
        total = sum(fate.size for fate in fates if fate.goes)
        answer({"removed": yes, "bytes": total, "refused": len(refused), "fates": [asdict(fate) for fate in fates]})
    return 3 if refused else 0


def _tell(fates: "Sequence[Fate]", *, removed: bool) -> None:
    words = {True: "is gone" if removed else "would go", False: "stays"}
    rows = [(fate.name, words[fate.goes], f"{fate.size / 1e6:,.1f} MB", fate.why) for fate in fates]
    show("Pruned" if removed else "What would be pruned", ("what", "", "size", "why"), rows)
    going = [fate for fate in fates if fate.goes]
    ending = "removed" if removed else "would go; nothing is removed without --yes"
    say(f"{len(going)} of {len(fates)}, {sum(fate.size for fate in going):,} bytes: {ending}.")
    for fate in fates:
        if fate.refused:
            say(f"nightrec: {fate.name} must go and stays: {fate.why}")
