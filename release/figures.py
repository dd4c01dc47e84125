"""From a night's tables, and those of the earlier release, to the figures that the gates judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from artifacts.errors import CorruptError, InputError
from artifacts.run import Run, seen_within
from artifacts.tables import opening_arrow, verify_file
from release.content import Content, batches_of, schema_of
from release.gates import Figure
from release.measure import (
    InterestsMeasure,
    ScoresMeasure,
    VectorsMeasure,
    compare_users,
    count_cold,
    count_exhausted,
    measure_histories,
    measure_interests,
    measure_items,
    measure_scores,
)
from release.query import Limits, query

CHURN_TOP = 10  # ranks that churn looks at
PSI_ROWS = 1000  # below, the index is mostly noise: about bins x (1/rows + 1/rows)

# Bins of equal width in the logit of a probability, since most lie near 0; for an inner product, widening from 0.
PROBABILITY_EDGES = 1 / (1 + np.exp(-np.arange(-8.0, 8.5, 0.5)))
PRODUCT_EDGES = np.sinh(np.linspace(-5.0, 5.0, 21))

# Where each interaction that ``prepare`` reads must be found again.
_WAYS_OF_AN_INTERACTION = (
    "interactions",
    "interactions_null",
    "interactions_future",
    "interactions_of_excluded_users",
    "interactions_with_excluded_items",
)
_FIRST_NIGHT = "first night: there is no release of an earlier date to compare with"
_PSI_FLOOR = 1e-4  # an empty bin counts as this share, else its logarithm is infinite


@dataclass(frozen=True, slots=True)
class _Night:
    """All that one pass over tonight's tables has counted."""

    scores: ScoresMeasure
    interests: InterestsMeasure
    items: VectorsMeasure
    item_rows: int
    histories: int
    behaviours: int
    unknown: int
    missing: int
    empty: int  # those among the missing who have had everything
    extra: int
    signal: int
    eligible: int
    catalogue: int


def figures_of(
    run: Run,
    content: Content,
    earlier: Content | None,
    *,
    trained_through: Mapping[str, str],
    limits: Limits,
) -> tuple[dict[str, Figure], dict[str, float]]:
    """Measure what every gate judges, and some more for people.

    Args:
        run: Tonight's run; its catalogue and histories are verified here.
        content: Its verified tables.
        earlier: The verified tables of the earlier release; None on a first night.
        trained_through: Role to the last day the model was trained on, ISO; ``""`` where its maker does not say.
        limits: For DuckDB.

    Raises:
        CorruptError: If a table of the run is missing, changed, or lacks a column.
    """
    night = _measure(run, content)
    figures = {
        **_whole(run, content, night, limits),
        **_models(run, content, night, trained_through),
        **_spread(night),
        **_against(content, night, earlier, limits),
    }
    return figures, _for_people(night)


def _measure(run: Run, content: Content) -> _Night:
    layout = run.layout
    histories = [layout.histories(shard, run.shards) for shard in range(run.shards)]
    for path in (layout.catalogue, *histories):
        verify_file(path)
    with opening_arrow(layout.catalogue, columns=["item_id", "eligible", "signal"]) as reader:
        catalogue = reader.read_all()
    eligible, signal = (catalogue[name].to_numpy() for name in ("eligible", "signal"))
    ids = catalogue["item_id"].combine_chunks()
    edges = score_edges(content)
    users = [compare_users(h, s) for h, s in zip(histories, content.scores, strict=True)]
    items, item_rows = measure_items(content.items, eligible & signal)
    count, behaviours, unknown = measure_histories(histories, "item_id")
    indexed = np.zeros(len(ids), bool)
    for batch in batches_of([content.index_items], ["item"]):
        indexed[batch.column(0).to_numpy()] = True
    empty = sum(
        min(missing, _exhausted(run, content, shard, indexed)) for shard, (missing, _) in enumerate(users) if missing
    )
    return _Night(
        scores=measure_scores(content.scores, ids, eligible, edges),
        interests=measure_interests(content.interests),
        items=items,
        item_rows=item_rows,
        histories=count,
        behaviours=behaviours,
        unknown=unknown,
        missing=sum(missing for missing, _ in users),
        empty=empty,
        extra=sum(extra for _, extra in users),
        signal=int(np.count_nonzero(signal)),
        eligible=int(np.count_nonzero(eligible)),
        catalogue=len(ids),
    )


def _exhausted(run: Run, content: Content, shard: int, indexed: npt.NDArray[np.bool_]) -> int:
    """Count the users of a shard without rows for whom nothing is left, as the night excluded what they had."""
    seen = run.layout.seen(shard, run.shards)
    verify_file(seen)
    retrieve = run.semantic["retrieve"]
    within = seen_within(retrieve["exclude_seen"], retrieve["exclude_days"])
    return count_exhausted(seen, content.scores[shard], indexed, within=within)


def score_edges(content: Content) -> npt.NDArray[np.float64]:
    """Give the fixed edges of the score bins: probabilities where a ranker scored, else inner products."""
    return PROBABILITY_EDGES if "ranker" in content.models else PRODUCT_EDGES


def _whole(run: Run, content: Content, night: _Night, limits: Limits) -> dict[str, Figure]:
    """Is everybody and everything there, once, in order, and a number?"""
    histories = [run.layout.histories(shard, run.shards) for shard in range(run.shards)]
    scores = night.scores
    unaccounted = abs(night.histories - night.interests.users) + abs(night.catalogue - night.item_rows)
    unaccounted += _lost_rows(run.counts, night) + _unindexed(content, night)
    return {
        "rows": Figure(scores.rows),
        "users_missing": Figure(night.missing - night.empty),
        "users_empty": _share(night.empty, night.histories, "there are no users"),
        "users_unknown": Figure(night.extra),
        "users_repeated": Figure(count_repeated_users(histories, limits) if run.shards > 1 else 0),
        "rows_unaccounted": Figure(unaccounted),
        "rows_unsorted": Figure(scores.unsorted),
        "items_repeated": Figure(scores.repeated),
        "items_foreign": Figure(scores.foreign),
        "not_finite": Figure(scores.not_finite + night.interests.vectors.not_finite),
    }


def _lost_rows(counts: Mapping[str, int], night: _Night) -> int:
    """Count the rows that ``prepare`` read and neither kept nor counted as dropped."""
    lost = abs(counts["users"] - night.histories) + abs(counts["items"] - night.catalogue)
    if "interactions_read" in counts:
        lost += abs(counts["interactions_read"] - sum(counts[name] for name in _WAYS_OF_AN_INTERACTION))
    return lost


def _unindexed(content: Content, night: _Night) -> int:
    """Count the items that are neither in the index nor counted by it as kept out, each for one reason."""
    path, said = content.index_parameters, content.parameters.get("counts")
    if not isinstance(said, dict) or not all(isinstance(count, int) for count in said.values()):
        raise CorruptError(f"{path}: expected counts of the items that were indexed and kept out, found {said!r}")
    indexed: int = sum(batch.num_rows for batch in batches_of([content.index_items], ["item_id"]))
    unindexed: int = abs(night.catalogue - sum(said.values())) + abs(indexed - said.get("indexed", 0))
    return unindexed


def _models(run: Run, content: Content, night: _Night, trained_through: Mapping[str, str]) -> dict[str, Figure]:
    """Are the models sound, fresh, and do they know what people do?"""
    items, interests = night.items, night.interests
    days = [_days(run.date, last) for last in trained_through.values() if last]
    age = Figure(max(days)) if days else Figure(None, "no bundle says on which day its training ended")
    return {
        "items_unusable": _share(items.zero + items.not_finite, items.vectors, "no item is eligible and has a signal"),
        "items_without_signal": _share(night.catalogue - night.signal, night.catalogue, "the catalogue is empty"),
        "interests_zero": _share(interests.vectors.zero, interests.vectors.vectors, "no user has a history"),
        "unknown_share": _share(night.unknown, night.behaviours, "no user has a history"),
        "cold_share": _share(interests.cold, interests.users, "there are no users"),
        "model_age": age,
        "recall": _recall(content),
        "list_imbalance": Figure(_parameter(content, "imbalance")),
    }


def _recall(content: Content) -> Figure:
    if content.parameters.get("recall_users") == 0:
        return Figure(None, "too few users have a history to measure it by")
    return Figure(_parameter(content, "recall"))


def _spread(night: _Night) -> dict[str, Figure]:
    """Over how many of the items are the recommendations spread?"""
    exposure, rows = night.scores.exposure, night.scores.rows
    top = -(-night.eligible // 100)  # the ceiling
    most = np.sort(exposure)[::-1][:top].sum()
    few = rows < night.eligible
    return {
        "coverage": _share(int(np.count_nonzero(exposure)), min(night.eligible, rows), "no item is recommended"),
        "exposure_top": Figure(None, "there are fewer recommendations than items")
        if few
        else _share(int(most), rows, ""),
    }


def _against(content: Content, night: _Night, earlier: Content | None, limits: Limits) -> dict[str, Figure]:
    """How far is the night from the earlier release?"""
    names = ("users_lost", "users_gained", "items_lost", "items_gained", "cold_rise", "score_psi", "churn")
    if earlier is None:
        return {name: Figure(None, _FIRST_NIGHT) for name in names}
    users, cold = count_cold(earlier.interests)
    items = sum(batch.num_rows for batch in batches_of(earlier.items, ["item_id"]))
    changed = [
        role for role in sorted(content.models.keys() | earlier.models.keys()) if _differs(role, content, earlier)
    ]
    if changed:
        why = (
            f"another model than in the earlier release ({', '.join(changed)}): scores and lists are expected to differ"
        )
        moved = {"score_psi": Figure(None, why), "churn": Figure(None, why)}
    else:
        moved = {"score_psi": _score_psi(night.scores, earlier), "churn": _churn(content, earlier, limits)}
    return {
        **_lost_and_gained("users", night.interests.users, users),
        **_lost_and_gained("items", night.catalogue, items),
        "cold_rise": Figure(_ratio(night.interests.cold, night.interests.users) - _ratio(cold, users)),
        **moved,
    }


def _differs(role: str, one: Content, other: Content) -> bool:
    return one.models.get(role) != other.models.get(role)


def _lost_and_gained(name: str, now: int, before: int) -> dict[str, Figure]:
    if before == 0:
        nothing = Figure(None, f"the earlier release has no {name}")
        return {f"{name}_lost": nothing, f"{name}_gained": nothing}
    change = now / before - 1
    return {f"{name}_lost": Figure(max(0.0, -change)), f"{name}_gained": Figure(max(0.0, change))}


def _score_psi(scores: ScoresMeasure, earlier: Content) -> Figure:
    before = np.zeros_like(scores.bins)
    edges = score_edges(earlier)
    for batch in batches_of(earlier.scores, ["source", "score"]):
        score = pc.drop_null(batch.filter(pc.equal(batch["source"], 0))["score"]).to_numpy()
        before += np.bincount(np.searchsorted(edges, score, side="right"), minlength=len(before))
    fewest = int(min(before.sum(), scores.bins.sum()))
    if fewest < PSI_ROWS:
        return Figure(None, f"{fewest} ranked rows are too few (fewer than {PSI_ROWS}) to compare distributions")
    return Figure(stability_index(scores.bins, before))


def stability_index(now: npt.NDArray[np.int64], before: npt.NDArray[np.int64]) -> float:
    """Compute the population stability index of two histograms: sum of (p - q) ln(p / q) over their bins.

    Args:
        now: Counts [bins], not all zero.
        before: Counts [bins], not all zero.
    """
    p = np.maximum(now / now.sum(), _PSI_FLOOR)
    q = np.maximum(before / before.sum(), _PSI_FLOOR)
    return float(np.sum((p - q) * np.log(p / q)))


def _churn(content: Content, earlier: Content, limits: Limits) -> Figure:
    now, before = schema_of(content.scores), schema_of(earlier.scores)
    for column in ("user_id", "item_id"):
        if now.field(column).type != before.field(column).type:
            return Figure(None, f"{column} was {before.field(column).type} and is {now.field(column).type} now")
    pairs, kept = compare_tops(content.scores, earlier.scores, top=CHURN_TOP, limits=limits)
    if pairs == 0:
        return Figure(None, "no user is in both releases")
    return Figure(1 - kept / pairs)


def compare_tops(now: Sequence[Path], before: Sequence[Path], *, top: int, limits: Limits) -> tuple[int, int]:
    """Count the rows of the first *top* ranks of users who are in both nights, and those that both nights have.

    Args:
        now: Tonight's verified score tables; shards of equal number and count hold the same users.
        before: The earlier ones; another count of shards is fine, but takes more memory or spill.
        top: Ranks looked at.
        limits: For DuckDB.
    """
    # Only an equal cut pairs shards by name; otherwise the users of a shard are spread over all of the other night's.
    same_cut = [path.name for path in now] == [path.name for path in before]
    groups = [([a], [b]) for a, b in zip(now, before, strict=True)] if same_cut else [(now, before)]
    pairs = kept = 0
    for ours, theirs in groups:
        found = query(
            """
            WITH a AS (SELECT user_id, item_id FROM ours WHERE rank <= $top),
                 b AS (SELECT user_id, item_id FROM theirs WHERE rank <= $top)
            SELECT (SELECT count(*) FROM a WHERE user_id IN (SELECT user_id FROM theirs WHERE rank = 1)),
                   (SELECT count(*) FROM a JOIN b USING (user_id, item_id))
            """,
            {"ours": ours, "theirs": theirs},
            {"top": top},
            limits,
        )
        pairs, kept = pairs + found[0], kept + found[1]
    return pairs, kept


def count_repeated_users(histories: Sequence[Path], limits: Limits) -> int:
    """Count the rows of *histories* (verified tables) whose user is in another row too."""
    return query("SELECT count(*) - count(DISTINCT user_id) FROM users", {"users": histories}, {}, limits)[0]


def _parameter(content: Content, name: str) -> float:
    found = content.parameters.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise CorruptError(f"{content.index_parameters}: expected a number for {name}, found {found!r}")
    return float(found)


def _days(data_date: str, last: str) -> int:
    try:
        return (date.fromisoformat(data_date) - date.fromisoformat(last)).days
    except ValueError as error:
        raise InputError(f"trained_through: expected an ISO date such as {data_date}, found {last!r}") from error


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _share(part: int, whole: int, why: str) -> Figure:
    return Figure(part / whole) if whole else Figure(None, why)


def _for_people(night: _Night) -> dict[str, float]:
    scores = night.scores
    return {
        "users": night.interests.users,
        "users_cold": night.interests.cold,
        "users_empty": night.empty,
        "items": night.catalogue,
        "items_eligible": night.eligible,
        "rows": scores.rows,
        "rows_fallback": scores.rows - scores.ranked,
        "items_recommended": int(np.count_nonzero(scores.exposure)),
        "interest_vectors": night.interests.vectors.vectors,
        "behaviours": night.behaviours,
    }
