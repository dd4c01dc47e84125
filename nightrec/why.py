"""``nightrec why``: why a user is recommended an item, or is not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from artifacts.errors import NightrecError, StaleRunError, UsageError
from nightrec.night import ConfigPath, Json, configured, iso_day
from nightrec.recommend import ReleaseAsked, titles_of
from nightrec.terminal import answer, say, show

if TYPE_CHECKING:
    import pyarrow as pa

    from artifacts.bundle import Bundle, Role
    from artifacts.run import Run
    from batch.explain import Explanation
    from nightrec.config import Config
    from release.pair import Pair
    from release.pointer import Release


@dataclass(frozen=True, slots=True)
class _Night:
    """What is asked about: a release, its run, or a run that was not published; one of the two is there.

    Attributes:
        release: None for a run that no release was made of.
        run: None if it is gone.
        about: What is to be said before all else: that the night was refused, and by which gates.
    """

    release: "Release | None"
    run: "Run | None"
    about: str = ""

    @property
    def date(self) -> str:
        """The data date."""
        return self.run.date if self.run else self.release.manifest.date if self.release else ""

    @property
    def run_key(self) -> str:
        """The run that computed it, there or gone."""
        return self.run.run_key if self.run else self.release.manifest.run_key if self.release else ""


@dataclass(frozen=True, slots=True)
class _Told:
    """What is told.

    Attributes:
        user: The user's id.
        item: The item's id.
        title: Of the item, if there is one.
        document: What became of the item, for machines; ``reason``, ``recommended`` and ``clicks`` are among it.
        facts: What was found on the way: what, and what it is.
        untold: What cannot be told, and why.
    """

    user: int | str
    item: int | str
    title: str | None
    document: dict[str, Any]
    facts: tuple[tuple[str, str], ...]
    untold: tuple[str, ...]


def why(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    item: Annotated[str, typer.Argument(help="The item's id.")],
    *,
    config: ConfigPath,
    release: ReleaseAsked = None,
    channel: Annotated[str, typer.Option("--channel", help="The pointer that readers follow.")] = "LATEST",
    date: Annotated[
        str | None,
        typer.Option(
            "--date", help="Ask the run of this data date, published or refused.", callback=iso_day, show_default=False
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", help="With --date: its key; by default the one prepared last.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many clicks are shown.")] = 10,
    json: Json = False,
) -> None:
    """Tell why a user is recommended an item, or what removed it."""
    if date and release:
        raise UsageError("--date and --release: give one of them")
    read = configured(config)
    night = _run_asked(read.root, date, run) if date else _release_asked(read.root, release, channel, run)
    told = _by_run(read, night, night.run, user, item) if night.run else _by_release(read, night, user, item)
    _show(night, told, top)
    if json:
        named = {"user": told.user, "item": told.item, "title": told.title}
        where = {"release": night.release and night.release.version, "date": night.date, "run_key": night.run_key}
        answer({**named, **where, "night": night.about, **told.document, "untold": list(told.untold)})


def _release_asked(root: Path, version: str | None, channel: str, run_key: str | None) -> _Night:
    from artifacts.run import find_run
    from release.pointer import find_release

    if run_key:
        raise UsageError("--run names a run of a date: give --date too")
    release = find_release(root, version, channel)
    try:
        return _Night(release, find_run(root, release.manifest.date, release.manifest.run_key))
    except StaleRunError:
        return _Night(release, None)


def _run_asked(root: Path, date: str, run_key: str | None) -> _Night:
    from artifacts.run import find_run
    from artifacts.store import is_there
    from release.pointer import find_release, versions
    from release.verdicts import GateReport

    run = find_run(root, date, run_key)
    for version in versions(root):
        if version.startswith(date) and (release := find_release(root, version)).manifest.run_key == run.run_key:
            return _Night(release, run)
    if not is_there(run.layout.record.gates):
        return _Night(None, run, "This night has not been judged yet: it is no release.")
    failed = [verdict.line() for verdict in GateReport.read(run.layout.record).failed]
    said = f"was refused by {'; '.join(failed)}" if failed else "was blessed by its gates, but not published"
    return _Night(None, run, f"This night {said}.")


def _by_run(config: "Config", night: _Night, run: "Run", said_user: str, said_item: str) -> _Told:
    from artifacts.bundle import Role
    from artifacts.lookup import typed_id
    from batch.explain import Fate, explain
    from nightrec.reasons import Setting, document_of, facts_of, reason_of
    from nightrec.steps import score_options

    user, item = typed_id("user", said_user, run.user_type), typed_id("item", said_item, run.item_type)
    user_bundle, no_weights = _bundle(config, run, Role.USER)
    ranker, no_ranker = _bundle(config, run, Role.RANKER)
    options = score_options(run.semantic)
    told = explain(run, user.as_py(), item.as_py(), options, user_bundle=user_bundle, ranker=ranker)
    setting = Setting(options, run.now, run.semantic["timezone"], run.semantic["history"]["popular_days"])
    because = ""
    if told.fate in {Fate.NO_USER, Fate.NO_ITEM}:
        because = _excluded(config, user, item, partial(_near_in_run, run))
        told = replace(told, fate=Fate.EXCLUDED)
    elif night.release is not None and told.listed:
        told, because = _as_published(config.root, night.release, told, user, item)
    document = document_of(told, because or reason_of(told, setting), setting.time)
    untold = (*no_weights, *no_ranker, *_untold(told, user_bundle))
    return _Told(user.as_py(), item.as_py(), told.title, document, tuple(facts_of(told, setting)), untold)


def _bundle(config: "Config", run: "Run", role: "Role") -> "tuple[Bundle | None, tuple[str, ...]]":
    """Read the run's bundle of a role where the config still names it; else say what cannot be told without."""
    from batch.shards import require_bundle
    from nightrec.steps import bundle_of

    if str(role) not in run.bundles:
        return None, ()
    try:
        bundle = bundle_of(config, role)
        if bundle is None:
            raise StaleRunError(f"the config names no {role} bundle, and the run was made with one")
        require_bundle(run, bundle)
    except NightrecError as error:
        what = "the routing weights" if role == "user" else "the rank by score of a candidate that is not in the list"
        return None, (f"{what}: {error}",)
    return bundle, ()


def _untold(told: "Explanation", bundle: "Bundle | None") -> "Iterator[str]":
    from batch.clicks import has_weights

    if bundle is not None and not has_weights(bundle):
        yield f"the routing weights: {bundle.folder} has no output `weights`; export a model that gives it"
    if unknown := sum(click.item_id is None for click in told.clicks):
        yield f"which items {unknown} of the clicks are of: the model does not know them, and a history holds no more"
    if told.same is False:
        yield "whether all this is to the bit what the night computed: it comes out otherwise on this machine"


def _excluded(
    config: "Config", user: "pa.Scalar", item: "pa.Scalar", near: "Callable[[str, pa.Scalar], list[int | str]]"
) -> str:
    """Say which of the two is taken out by the inputs; *near* gives the ids that the night knows beside one.

    Raises:
        UsageError: If it is no exclusion that keeps them out; the message names the nearest ids.
    """
    import pyarrow.compute as pc

    from artifacts.lookup import nearest_ids
    from features.catalogue import read_excluded
    from nightrec.inputs import inputs_of

    inputs, unknown = inputs_of(config), []
    for what, wanted, source in (("user", user, inputs.exclude_users), ("item", item, inputs.exclude_items)):
        beside = near(what, wanted)
        if wanted.as_py() in beside:
            continue
        if pc.is_in(wanted, value_set=read_excluded(source, wanted.type)).as_py():
            return f"the {what} is taken out by [inputs.exclude_{what}s]"
        nearest = nearest_ids(wanted.as_py(), beside)
        hint = f"; the nearest are {', '.join(map(str, nearest))}" if nearest else ""
        unknown.append(f"{what} {wanted}: the night does not know this {what}, and nothing excludes it{hint}")
    raise UsageError(unknown[0])


def _near_in_run(run: "Run", what: str, wanted: "pa.Scalar") -> list[int | str]:
    """Give ids of a run beside where *wanted* would stand, and *wanted* itself if it is there."""
    from artifacts.lookup import batches_around, ids_beside
    from artifacts.tables import reading_table

    layout = run.layout
    tables = [layout.histories(shard, run.shards) for shard in range(run.shards)]
    near: list[int | str] = []
    for path in tables if what == "user" else [layout.catalogue]:
        with reading_table(path) as reader:
            for _, batch in batches_around(reader, f"{what}_id", wanted):
                near += ids_beside(batch[f"{what}_id"], wanted)
    return near


def _as_published(
    root: Path, release: "Release", told: "Explanation", user: "pa.Scalar", item: "pa.Scalar"
) -> "tuple[Explanation, str]":
    """Take the item's row as readers have it: a revision may have taken it out, and why, or moved it up."""
    from batch.explain import Fate, listed_in
    from release.read import rows_with
    from release.releases import show as show_release

    rows = rows_with(release, release.layout.scores, "user_id", user, [])
    told = replace(told, listed=listed_in(rows, item), length=rows.num_rows)
    if told.listed:
        return told, ""
    revisions = (show_release(root, release.version)["revision"] or {}).get("revisions", ())
    said = "; ".join(f"{one['who']}: {one['why']}" for one in revisions)
    return replace(told, fate=Fate.REVISED), f"the night recommended it; it was taken out of the release since ({said})"


def _by_release(config: "Config", night: _Night, said_user: str, said_item: str) -> _Told:
    """Tell what a release alone knows, whose run is gone."""
    from artifacts.lookup import typed_id
    from batch.explain import Fate
    from nightrec.reasons import document_of
    from release.pair import pair_of
    from release.read import id_type

    release = night.release
    assert release  # or there is a run
    user, item = (
        typed_id(what, said, id_type(release, release.layout.scores, f"{what}_id"))
        for what, said in (("user", said_user), ("item", said_item))
    )
    pair = pair_of(release, user, item)
    told, reason, facts = _of_pair(pair, item)
    if told.fate in {Fate.NO_USER, Fate.NO_ITEM}:
        near = {"user": list(pair.near_users), "item": list(pair.near_items)}
        reason = _excluded(config, user, item, lambda what, wanted: near[what])
        told = replace(told, fate=Fate.EXCLUDED)
    title = titles_of(config, [item.as_py()]).get(item.as_py())
    untold = (
        "the clicks, their routing weights, what the user had, the place among the candidates, and by what an item "
        f"was left out: run {night.run_key} is gone; `nightrec run` for {night.date} makes it again from the same "
        "inputs"
    )
    return _Told(user.as_py(), item.as_py(), title, document_of(told, reason, str), facts, (untold,))


def _of_pair(pair: "Pair", item: "pa.Scalar") -> "tuple[Explanation, str, tuple[tuple[str, str], ...]]":
    """Say what became of the item as far as a release tells, in which words, and what is known of it."""
    from batch.explain import Explanation, Fate, listed_in
    from batch.retrieve import inner_products
    from nightrec.reasons import listed_words

    told = Explanation(Fate.UNTOLD, history_length=pair.history_length, length=pair.rows.num_rows)
    if pair.vector is None or pair.history_length is None:
        return replace(told, fate=Fate.NO_ITEM if pair.vector is None else Fate.NO_USER), "", ()
    facts = [("history", f"{pair.history_length} clicks" if pair.history_length else "none: the user is cold")]
    if len(pair.interests):
        scores = inner_products(pair.interests, pair.vector)
        facts.append(("nearest", f"interest {scores.argmax()}, of {len(scores)}"))
        more = "; the night added what its recent popularity was worth" if pair.counts_popularity else ""
        facts.append(("exact score", f"{scores.max():.6g}, from the item's vector{more}"))
    if listed := listed_in(pair.rows, item):
        told = replace(told, listed=listed, fate=Fate.FALLBACK if listed.score is None else Fate.RANKED)
        facts += [("score", f"{listed.score:.4g}")] if listed.score is not None else []
        return told, listed_words(told), tuple(facts)
    why = "not in the list" if pair.indexed else "not indexed: not eligible, or without a signal or a vector of use"
    return told, f"the item is {why}; more is not known without the run", tuple(facts)


def _show(night: _Night, told: _Told, top: int) -> None:
    """Tell people: what is asked, the reason, what was found on the way, the clicks, and what cannot be told."""
    where = f"release {night.release.version}" if night.release else f"run {night.run_key} of {night.date}"
    title = f", {told.title}" if told.title else ""
    say(f"User {told.user} and item {told.item}{title}; {where}")
    if night.about:
        say(night.about)
    reason = told.document["reason"]
    say(f"{reason[0].upper()}{reason[1:]}." if told.document["recommended"] else f"Not recommended: {reason}.")
    if told.facts:
        show("On the way", ("what", "is"), told.facts)
    found = told.document["retrieval"]
    if found and told.document["clicks"]:
        _show_clicks(told.document["clicks"], found["interest"], top)
    for missing in told.untold:
        say(f"not told: {missing}")


def _show_clicks(clicks: list[dict[str, Any]], interest: int, top: int) -> None:
    """Show the clicks that made an interest, those first of which it was given most."""

    def weight(click: dict[str, Any]) -> float | None:
        return click["weights"][interest] if click["weights"] else None

    order = sorted(clicks, key=lambda click: -(weight(click) or 0))  # stable: else the newest first
    rows = [
        (weight(click), click["time"] and click["time"][:16], str(click["item_id"] or "unknown"), click["title"])
        for click in order[:top]
    ]
    what = f"Clicks that made interest {interest}" if clicks[0]["weights"] else "The user's clicks, newest first"
    show(f"{what}; {len(rows)} of {len(clicks)}", ("share of click", "when", "item_id", "title"), rows)
