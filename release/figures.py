"""Tonight's tables to numbers: all that can be said of a night without looking at another."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt

from artifacts.errors import CorruptError, InputError
from artifacts.run import Run, seen_within
from artifacts.tables import opening_arrow, verify_file
from release.content import Content, batches_of
from release.measure import (
    UNKNOWN_ROW,
    HistoriesMeasure,
    InterestsMeasure,
    RecentMeasure,
    ScoresMeasure,
    VectorsMeasure,
    compare_users,
    count_exhausted,
    measure_histories,
    measure_interests,
    measure_items,
    measure_recent,
    measure_scores,
)
from release.overlap import count_repeated_users
from release.query import Limits
from release.segments import Segments, SegmentsMeasure, measure_segments
from release.verdicts import Figure

# Bins of equal width in the logit of a probability, since most lie near 0; for an inner product, widening from 0.
PROBABILITY_EDGES = 1 / (1 + np.exp(-np.arange(-8.0, 8.5, 0.5)))
PRODUCT_EDGES = np.sinh(np.linspace(-5.0, 5.0, 21))

POPULAR = 100  # most popular items, at most, that are looked for among twice as many

# Where each interaction that ``prepare`` reads must be found again.
_WAYS_OF_AN_INTERACTION = (
    "interactions",
    "interactions_null",
    "interactions_future",
    "interactions_of_excluded_users",
    "interactions_with_excluded_items",
)


@dataclass(frozen=True, slots=True)
class Night:
    """All that one pass over tonight's tables has counted.

    Attributes:
        scores: The recommendations.
        interests: The interest vectors.
        items: The vectors of items that can be recommended.
        item_rows: Rows of the item vectors.
        histories: The histories.
        recent: When users and items last met.
        popular: Ids of the items with the most events of the last days, most first.
        missing: Users of the histories without a recommendation.
        empty: Those among them who have had everything.
        extra: Recommended users who are in no history.
        signal: Items with an id or a side feature that the model knows.
        eligible: Items that may be recommended.
        catalogue: Items.
        indexed: Those in the index.
        features: Items whose value of a side feature the model does not know, by feature.
        segments: By declared feature.
    """

    scores: ScoresMeasure
    interests: InterestsMeasure
    items: VectorsMeasure
    item_rows: int
    histories: HistoriesMeasure
    recent: RecentMeasure
    popular: list[int | str]
    missing: int
    empty: int
    extra: int
    signal: int
    eligible: int
    catalogue: int
    indexed: int
    features: dict[str, int]
    segments: dict[str, SegmentsMeasure]


def histories_of(run: Run) -> list[Path]:
    """Name the tables of the histories."""
    return [run.layout.histories(shard, run.shards) for shard in range(run.shards)]


def measure_night(run: Run, content: Content, segments: Segments) -> Night:
    """Count all that the gates ask of a night; its prepared tables are verified here.

    Args:
        run: Tonight's.
        content: Its verified tables.
        segments: The declared ones.

    Raises:
        CorruptError: If a table of the run is missing, changed, or lacks a column.
        UsageError: If a segment is no profile feature of the models.
    """
    layout, histories = run.layout, histories_of(run)
    seen = [layout.seen(shard, run.shards) for shard in range(run.shards)]
    for path in (layout.catalogue, layout.popular, *histories, *seen):
        verify_file(path)
    with opening_arrow(layout.catalogue) as reader:
        catalogue = reader.read_all()
    eligible, signal = (catalogue[name].to_numpy() for name in ("eligible", "signal"))
    ids = catalogue["item_id"].combine_chunks()
    edges = score_edges(content)
    with ThreadPoolExecutor(1) as aside:  # most of the work; the rest is done meanwhile
        scores = aside.submit(measure_scores, content.scores, ids, eligible, edges)
        users = [compare_users(h, s) for h, s in zip(histories, content.scores, strict=True)]
        items, item_rows = measure_items(content.items, eligible & signal)
        indexed = np.zeros(len(ids), bool)
        for batch in batches_of([content.index_items], ["item"]):
            indexed[batch.column(0).to_numpy()] = True
        empty = sum(
            min(missing, _exhausted(run, content, shard, indexed))
            for shard, (missing, _) in enumerate(users)
            if missing
        )
        side = [name for name in catalogue.column_names if name.startswith("feature_") and name != "feature_item_id"]
        return Night(
            interests=measure_interests(content.interests),
            items=items,
            item_rows=item_rows,
            histories=measure_histories(histories),
            recent=measure_recent(seen, run.now),
            popular=_most_popular(layout.popular),
            missing=sum(missing for missing, _ in users),
            empty=empty,
            extra=sum(extra for _, extra in users),
            signal=int(np.count_nonzero(signal)),
            eligible=int(np.count_nonzero(eligible)),
            catalogue=len(ids),
            indexed=int(np.count_nonzero(indexed)),
            features={name: int(np.count_nonzero(catalogue[name].to_numpy() == UNKNOWN_ROW)) for name in side},
            segments=measure_segments(segments, histories, content.scores, edges),
            scores=scores.result(),
        )


def _most_popular(path: Path) -> list[int | str]:
    for batch in batches_of([path], ["item_id"], most=2 * POPULAR):
        found: list[int | str] = batch.column(0).to_pylist()
        return found
    return []


def _exhausted(run: Run, content: Content, shard: int, indexed: npt.NDArray[np.bool_]) -> int:
    """Count the users of a shard without rows for whom nothing is left, as the night excluded what they had."""
    retrieve = run.semantic["retrieve"]
    within = seen_within(retrieve["exclude_seen"], retrieve["exclude_days"])
    return count_exhausted(run.layout.seen(shard, run.shards), content.scores[shard], indexed, within=within)


def score_edges(content: Content) -> npt.NDArray[np.float64]:
    """Give the fixed edges of the score bins: probabilities where a ranker scored, else inner products."""
    return PROBABILITY_EDGES if "ranker" in content.models else PRODUCT_EDGES


def levels_of(
    run: Run, content: Content, night: Night, *, trained_through: Mapping[str, str], limits: Limits
) -> dict[str, Figure]:
    """Give every number that is tonight's own, by name: those that gates look at, and some more for people.

    Args:
        run: Tonight's run.
        content: Its verified tables.
        night: What was counted in them.
        trained_through: Role to the last day the model was trained on, ISO; ``""`` where its maker does not say.
        limits: For DuckDB.
    """
    return {
        **_whole(run, content, night, limits),
        **_models(run, content, night, trained_through),
        **_spread(night),
        **_counted(run, night),
    }


def _whole(run: Run, content: Content, night: Night, limits: Limits) -> dict[str, Figure]:
    """Is everybody and everything there, once, in order, and a number?"""
    scores, users = night.scores, night.histories.users
    unaccounted = abs(users - night.interests.users) + abs(night.catalogue - night.item_rows)
    unaccounted += _lost_rows(run.counts, night) + _unindexed(content, night)
    return {
        "rows": Figure(scores.rows),
        "users_missing": Figure(night.missing - night.empty),
        "users_empty": _share(night.empty, users, "there are no users"),
        "users_unknown": Figure(night.extra),
        "users_repeated": Figure(count_repeated_users(histories_of(run), limits) if run.shards > 1 else 0),
        "rows_unaccounted": Figure(unaccounted),
        "rows_unsorted": Figure(scores.unsorted),
        "items_repeated": Figure(scores.repeated),
        "items_foreign": Figure(scores.foreign),
        "not_finite": Figure(scores.not_finite + night.interests.vectors.not_finite),
    }


def _lost_rows(counts: Mapping[str, int], night: Night) -> int:
    """Count the rows that ``prepare`` read and neither kept nor counted as dropped."""
    lost = abs(counts["users"] - night.histories.users) + abs(counts["items"] - night.catalogue)
    if "interactions_read" in counts:
        lost += abs(counts["interactions_read"] - sum(counts[name] for name in _WAYS_OF_AN_INTERACTION))
    return lost


def _unindexed(content: Content, night: Night) -> int:
    """Count the items that are neither in the index nor counted by it as kept out, each for one reason."""
    path, said = content.index_parameters, content.parameters.get("counts")
    if not isinstance(said, dict) or not all(isinstance(count, int) for count in said.values()):
        raise CorruptError(f"{path}: expected counts of the items that were indexed and kept out, found {said!r}")
    indexed: int = sum(batch.num_rows for batch in batches_of([content.index_items], ["item_id"]))
    unindexed: int = abs(night.catalogue - sum(said.values())) + abs(indexed - said.get("indexed", 0))
    return unindexed


def _models(run: Run, content: Content, night: Night, trained_through: Mapping[str, str]) -> dict[str, Figure]:
    """Are the models sound, fresh, and do they know what people do?"""
    items, interests, histories = night.items, night.interests, night.histories
    days = [_days(run.date, last) for last in trained_through.values() if last]
    age = Figure(max(days)) if days else Figure(None, "no bundle says on which day its training ended")
    return {
        "items_unusable": _share(items.zero + items.not_finite, items.vectors, "no item is eligible and has a signal"),
        "items_without_signal": _share(night.catalogue - night.signal, night.catalogue, "the catalogue is empty"),
        "interests_zero": _share(interests.vectors.zero, interests.vectors.vectors, "no user has a history"),
        "unknown_share": _share(histories.unknown, histories.behaviours, "no user has a history"),
        "features_unknown": _greatest(night.features, night.catalogue, "the models know no side feature of items"),
        "profiles_unknown": _greatest(histories.profiles, histories.users, "the models know no profile feature"),
        "cold_share": _share(interests.cold, interests.users, "there are no users"),
        "model_age": age,
        "recall": _recall(content),
        "list_imbalance": Figure(_parameter(content, "imbalance")),
        "scores_constant": _share(night.scores.constant, night.scores.listed, "nobody has two ranked items"),
    }


def _recall(content: Content) -> Figure:
    if content.parameters.get("recall_users") == 0:
        return Figure(None, "too few users have a history to measure it by")
    return Figure(_parameter(content, "recall"))


def _spread(night: Night) -> dict[str, Figure]:
    """Over how many of the items are the recommendations spread?"""
    exposure, rows = night.scores.exposure, night.scores.rows
    top = -(-night.eligible // 100)  # the ceiling
    most = np.sort(exposure)[::-1][:top].sum()
    recommended = int(np.count_nonzero(exposure))
    few = rows < night.eligible
    return {
        "items_recommended": Figure(recommended),
        "coverage": _share(recommended, min(night.eligible, rows), "no item is recommended"),
        "exposure_top": Figure(None, "there are fewer recommendations than items")
        if few
        else _share(int(most), rows, ""),
    }


def _counted(run: Run, night: Night) -> dict[str, Figure]:
    """How much of everything is there?"""
    events = run.counts.get("interactions", 0)
    elsewhere = run.counts.get("interactions_uncatalogued", 0)
    return {
        "events": Figure(events),
        "uncatalogued_share": _share(elsewhere, events, "there are no events"),
        "users": Figure(night.interests.users),
        "users_cold": Figure(night.interests.cold),
        "items": Figure(night.catalogue),
        "items_eligible": Figure(night.eligible),
        "items_indexed": Figure(night.indexed),
        "rows_fallback": Figure(night.scores.rows - night.scores.ranked),
        "interest_vectors": Figure(night.interests.vectors.vectors),
        "behaviours": Figure(night.histories.behaviours),
    }


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


def _share(part: int, whole: int, why: str) -> Figure:
    return Figure(part / whole) if whole else Figure(None, why)


def _greatest(parts: Mapping[str, int], whole: int, why: str) -> Figure:
    return _share(max(parts.values()), whole, why) if parts else Figure(None, why)
