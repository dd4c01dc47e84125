"""Tonight's numbers against those of earlier releases: what came, went and moved, and the figure of every gate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from artifacts.run import Run, replay_of
from artifacts.tables import opening_arrow
from release.content import Content, batches_of, schema_of
from release.figures import POPULAR, Night, histories_of, score_edges
from release.gate import Against, Change, Gate
from release.history import Past, reference
from release.measure import RecentMeasure, bins_of, count_cold
from release.overlap import compare_histories, compare_tops, compare_tops_by, count_gone
from release.quality import Hits, count_hits
from release.query import Limits
from release.segments import Segments, named
from release.verdicts import Figure, name_in

CHURN_TOP = 10  # ranks that churn looks at
PSI_ROWS = 1000  # below, the index is mostly noise: about bins x (1/rows + 1/rows)
_PSI_FLOOR = 1e-4  # an empty bin counts as this share, else its logarithm is infinite
_FIRST_NIGHT = "first night: there is no release of an earlier date to compare with"

Levels = dict[str, dict[str, Figure]]  # by segment, "" for all users; then by name


@dataclass(frozen=True, slots=True)
class Earlier:
    """The release that tonight is compared with, and those before it.

    Attributes:
        content: Its verified tables.
        past: What was recorded of it and of those before it, newest first.
    """

    content: Content
    past: tuple[Past, ...]

    @property
    def version(self) -> str:
        """The release's name."""
        return self.past[0].release.version


def segment_levels(segments: Segments, night: Night, earlier: Earlier | None) -> Levels:
    """Give the numbers of each segment with enough users, tonight or in the last release, in the order of names."""
    levels: Levels = {}
    for name, feature, row in named(segments, night.segments):
        one = night.segments[feature]
        users, behaviours = int(one.users[row]), int(one.behaviours[row])
        levels[name] = {
            "users": Figure(users),
            "rows": Figure(int(one.recommended[row])),
            "cold_share": Figure(int(one.cold[row]) / users),
            "unknown_share": Figure(int(one.unknown[row]) / behaviours)
            if behaviours
            else Figure(None, "nobody in this segment has a history"),
        }
    nobody = Figure(None, f"fewer than {segments.least_users} users are in this segment")
    features = tuple(f"{feature}=" for feature in segments.values)
    report = earlier.past[0].report if earlier else None
    for name in report.segments if report else ():
        if name not in levels and name.startswith(features):
            users, rows = _few(segments, night, name)
            levels[name] = {"users": Figure(users), "rows": Figure(rows), "cold_share": nobody, "unknown_share": nobody}
    return dict(sorted(levels.items()))


def _few(segments: Segments, night: Night, name: str) -> tuple[int, int]:
    """Count users and rows of a segment with few users tonight, if it is known at all."""
    for feature, measure in night.segments.items():
        for row in np.flatnonzero(measure.users):
            if segments.name(feature, int(row)) == name:
                return int(measure.users[row]), int(measure.recommended[row])
    return 0, 0


def compared(
    run: Run,
    content: Content,
    night: Night,
    segments: Segments,
    levels: Levels,
    earlier: Earlier,
    limits: Limits,
    trained_through: Mapping[str, str],
) -> Levels:
    """Measure what lies between tonight and the last release, of all users and of each segment of *levels*."""
    before = earlier.content
    all_users = {
        **_users(content, before, limits),
        "items_gone": _gone("item_id", content.items, before.items, limits),
        "recent_changed": _recent_changed(night.recent, earlier),
        "popular_gone": _popular_gone(night, earlier),
    }
    all_users |= _replayed(run, content, earlier, limits, trained_through)
    if model_change(content, earlier):
        return {"": all_users}
    all_users["score_psi"] = score_psi(night.scores.bins, score_bins(before))
    all_users["churn"] = _churn(content, before, limits)
    found: Levels = {"": all_users, **{name: {} for name in levels if name}}
    for name in found:
        if name:
            none = Figure(None, f"this segment has fewer than {segments.least_users} users now or had so then")
            found[name] = {"score_psi": none, "churn": none}
    report = earlier.past[0].report
    for name, feature, row in named(segments, night.segments):
        recorded = report.segments.get(name) if report else None
        if recorded and len(recorded["score_bins"]) == night.segments[feature].bins.shape[1]:
            bins = np.array(recorded["score_bins"], np.int64)
            found[name]["score_psi"] = score_psi(night.segments[feature].bins[row], bins)
    for name, figure in _churns(run, content, night, segments, before, limits).items():
        found[name]["churn"] = figure
    return found


def _replayed(
    run: Run, content: Content, earlier: Earlier, limits: Limits, trained_through: Mapping[str, str]
) -> dict[str, Figure]:
    """Measure what tonight's models make of the sample of users as they stood when the data date began."""
    changed, before = model_change(content, earlier), earlier.content
    with opening_arrow(run.layout.catalogue, columns=["item_id"]) as reader:
        items = reader.read_all()["item_id"].combine_chunks()
    if other_ids(content, before):
        nothing = Figure(None, "the earlier release has other types of ids")
        return {"hit_rate_lost": nothing, "replay_churn": nothing}
    hits = count_hits(run, before, items)
    late = (date.fromisoformat(run.date) - date.fromisoformat(before.date)).days - 1
    said = f"the earlier release is {late} days older than the replay, which favours tonight" if late else ""
    known = {"hit_rate": hits.now / hits.events, "hit_rate_earlier": hits.before / hits.events} if hits.events else {}
    return {
        **{name: Figure(rate) for name, rate in known.items()},
        "hit_rate_lost": _hit_rate_lost(hits, changed, max(trained_through.values(), default="") >= run.date, said),
        "replay_churn": Figure(None, said) if late else _replay_churn(run, before, limits),
    }


def _hit_rate_lost(hits: Hits, changed: str, seen: bool, said: str) -> Figure:
    if not changed:
        return Figure(None, "the models are those of the earlier release")
    if seen:
        return Figure(None, "the models were trained on the day that would judge them")
    of = f"{hits.events} events of {hits.users} users"
    if not hits.enough:
        return Figure(None, f"too little to compare hits by: {hits.before} of {of}")
    rates = f"hit rate {hits.before / hits.events:.4f} before, {hits.now / hits.events:.4f} now, of {of}"
    return Figure(hits.certain_loss, f"{rates}; {said}" if said else rates)


def _replay_churn(run: Run, earlier: Content, limits: Limits) -> Figure:
    scores = replay_of(run).layout.scores(0, 1)
    pairs, kept = compare_tops([scores], earlier.scores, top=CHURN_TOP, limits=limits)
    return Figure(1 - kept / pairs) if pairs else Figure(None, "no user of the replay is in the earlier release")


def model_change(content: Content, earlier: Earlier) -> str:
    """Say which models are others than in the last release; ``""`` if none is."""
    now, before = content.models, earlier.content.models
    changed = [role for role in sorted(now.keys() | before.keys()) if now.get(role) != before.get(role)]
    return f"another model than in the earlier release ({', '.join(changed)})" if changed else ""


def recounted(earlier: Content) -> dict[str, float]:
    """Count in the last release what can be counted in it, whatever its record says."""
    users, cold = count_cold(earlier.interests)
    counted = {
        "users": users,
        "items": sum(batch.num_rows for batch in batches_of(earlier.items, ["item_id"])),
        "items_indexed": sum(batch.num_rows for batch in batches_of([earlier.index_items], ["item_id"])),
        "rows": sum(batch.num_rows for batch in batches_of(earlier.scores, ["user_id"])),
    }
    return {**counted, "cold_share": cold / users if users else 0.0}


def figures_of(gates: Sequence[Gate], levels: Levels, earlier: Earlier | None, changed: str) -> dict[str, Figure]:
    """Give the figure of each gate, of all users and of each segment.

    Args:
        gates: The table.
        levels: Tonight's numbers, and those between tonight and the last release.
        earlier: What they are compared with; None on a first night.
        changed: Which models have changed, in words; ``""`` for none.
    """
    last = recounted(earlier.content) if earlier else {}
    found = {}
    for gate in gates:
        for segment, own in levels.items():
            if segment and not gate.by_segment:
                continue
            anew = last.get(gate.level) if not segment else None
            found[name_in(gate.name, segment)] = _figure(gate, own, segment, earlier, changed, anew)
    return found


def _figure(
    gate: Gate, own: Mapping[str, Figure], segment: str, earlier: Earlier | None, changed: str, last: float | None
) -> Figure:
    if gate.against is Against.ABSOLUTE:
        return own[gate.level]
    if earlier is None:
        return Figure(None, _FIRST_NIGHT)
    if gate.of_model and changed:
        return Figure(None, f"{changed}: scores and lists are expected to differ")
    level = own[gate.level]
    if level.value is None:
        return level
    if gate.change is Change.BETWEEN and gate.against is Against.LAST:
        return Figure(level.value, level.why, earlier.version)
    return _moved(gate, level.value, segment, earlier, last)


def _moved(gate: Gate, now: float, segment: str, earlier: Earlier, last: float | None) -> Figure:
    """Measure how far a number has moved from the last release's, or from the median of several."""
    models = earlier.past[0].models
    past = [night for night in earlier.past if not gate.of_model or night.models == models]
    before, words = reference(gate.against, past, gate.level, segment, last)
    if before is None:
        return Figure(None, f"{earlier.version} has no record of it" + (" for this segment" if segment else ""))
    return _changed(gate, now, before, words)


def _changed(gate: Gate, now: float, before: float, words: str) -> Figure:
    if gate.change not in {Change.LOST, Change.GAINED}:
        return Figure(now - before, against=words)
    if before == 0:
        return Figure(None, f"{words} has none")
    change = now / before - 1
    share = max(0.0, -change if gate.change is Change.LOST else change)
    return Figure(share, f"{before:,.0f} before, {now:,.0f} now" if share else "", words)


def _users(content: Content, before: Content, limits: Limits) -> dict[str, Figure]:
    """Look for each of the earlier users: who is still there, and with no less of a history?"""
    ours, theirs = (schema_of(one.interests).field("user_id").type for one in (content, before))
    total = sum(batch.num_rows for batch in batches_of(before.interests, ["user_id"]))
    if ours != theirs:
        return {
            "users_gone": Figure(1.0, f"user_id was {theirs} and is {ours} now"),
            "histories_shorter": Figure(None, "no user is in both releases"),
        }
    both, shorter = compare_histories(content.interests, before.interests, limits)
    return {
        "users_gone": Figure(1 - both / total) if total else Figure(None, "the earlier release has none"),
        "histories_shorter": Figure(shorter / both) if both else Figure(None, "no user is in both releases"),
    }


def _gone(column: str, now: Sequence[Any], before: Sequence[Any], limits: Limits) -> Figure:
    ours, theirs = (schema_of(paths).field(column).type for paths in (now, before))
    total = sum(batch.num_rows for batch in batches_of(before, [column]))
    if total == 0:
        return Figure(None, "the earlier release has none")
    if ours != theirs:
        return Figure(1.0, f"{column} was {theirs} and is {ours} now")
    return Figure(count_gone(column, now, before, limits) / total)


def _recent_changed(now: RecentMeasure, earlier: Earlier) -> Figure:
    report = earlier.past[0].report
    if report is None:
        return Figure(None, f"{earlier.version} has no record of it")
    before = RecentMeasure(report.recent["first"], np.array(report.recent["counts"], np.int64))
    changed = now.changed(before)
    return Figure(None, "no event of the last four weeks is in both nights") if changed is None else Figure(changed)


def _popular_gone(night: Night, earlier: Earlier) -> Figure:
    report = earlier.past[0].report
    if report is None or not report.popular:
        return Figure(None, f"{earlier.version} has no record of popular items")
    before = report.popular[: max(10, min(POPULAR, night.indexed // 10))]  # of a small catalogue chance finds a hundred
    return Figure(1 - len(set(before) & set(night.popular[: 2 * len(before)])) / len(before))


def score_bins(earlier: Content) -> npt.NDArray[np.int64]:
    """Count the ranked rows of a night by score, between fixed edges."""
    edges = score_edges(earlier)
    bins = np.zeros(len(edges) + 1, np.int64)
    for batch in batches_of(earlier.scores, ["source", "score"]):
        bins += bins_of(pc.drop_null(batch.filter(pc.equal(batch["source"], 0))["score"]).to_numpy(), edges)
    return bins


def score_psi(now: npt.NDArray[np.int64], before: npt.NDArray[np.int64]) -> Figure:
    """Compare two histograms of scores by their stability index; with few rows it is not measured, for that reason."""
    fewest = int(min(before.sum(), now.sum()))
    if fewest < PSI_ROWS:
        return Figure(None, f"{fewest} ranked rows are too few (fewer than {PSI_ROWS}) to compare distributions")
    return Figure(stability_index(now, before))


def stability_index(now: npt.NDArray[np.int64], before: npt.NDArray[np.int64]) -> float:
    """Compute the population stability index of two histograms: sum of (p - q) ln(p / q) over their bins.

    Args:
        now: Counts [bins], not all zero.
        before: Counts [bins], not all zero.
    """
    p = np.maximum(now / now.sum(), _PSI_FLOOR)
    q = np.maximum(before / before.sum(), _PSI_FLOOR)
    return float(np.sum((p - q) * np.log(p / q)))


def other_ids(content: Content, earlier: Content) -> str:
    """Say why users and items of two nights cannot be matched; ``""`` if their ids are of the same types."""
    now, before = schema_of(content.scores), schema_of(earlier.scores)
    for column in ("user_id", "item_id"):
        if now.field(column).type != before.field(column).type:
            return f"{column} was {before.field(column).type} and is {now.field(column).type} now"
    return ""


def _churn(content: Content, earlier: Content, limits: Limits) -> Figure:
    if why := other_ids(content, earlier):
        return Figure(None, why)
    pairs, kept = compare_tops(content.scores, earlier.scores, top=CHURN_TOP, limits=limits)
    return Figure(1 - kept / pairs) if pairs else Figure(None, "no user is in both releases")


def _churns(
    run: Run, content: Content, night: Night, segments: Segments, earlier: Content, limits: Limits
) -> dict[str, Figure]:
    if not segments.values or other_ids(content, earlier):
        return {}
    users, now, before = histories_of(run), content.scores, earlier.scores
    counted = {
        feature: compare_tops_by(f"profile_{feature}", users, now, before, top=CHURN_TOP, limits=limits)
        for feature in segments.values
    }
    found = {}
    for name, feature, row in named(segments, night.segments):
        pairs, kept = counted[feature].get(row, (0, 0))
        found[name] = Figure(1 - kept / pairs) if pairs else Figure(None, "none of its users is in both releases")
    return found
