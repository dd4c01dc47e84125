"""The declared segments of users: who belongs to which, and what is counted of each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from artifacts.errors import UsageError
from artifacts.schemas import SOURCE_RANKED
from release.content import batches_of, schema_of
from release.measure import UNKNOWN_ROW, Counts, runs_of

_PREFIX = "profile_"


@dataclass(frozen=True, slots=True)
class Segments:
    """By which profile features the users are told apart.

    Attributes:
        values: Feature to its known values, in the order of its vocabulary: row 2 is the first.
        least_users: Users of the smallest segment that is judged.
    """

    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    least_users: int = 100

    def document(self) -> dict[str, Any]:
        """What a verdict depends on."""
        return {"values": {name: list(values) for name, values in self.values.items()}, "least": self.least_users}

    def name(self, feature: str, row: int) -> str:
        """Name the segment of a vocabulary row: ``"country=de"``."""
        known = self.values[feature]
        return f"{feature}={known[row - UNKNOWN_ROW - 1] if row > UNKNOWN_ROW else '(unknown)'}"

    def rows(self, feature: str) -> int:
        """Rows of a feature's vocabulary."""
        return len(self.values[feature]) + UNKNOWN_ROW + 1


ALL_USERS = Segments()  # nobody is told apart


@dataclass(slots=True)
class SegmentsMeasure:
    """What was counted of every segment of one feature, by vocabulary row.

    Attributes:
        users: Users [rows].
        cold: Those without a history [rows].
        behaviours: Behaviours in the histories [rows].
        unknown: Those whose item id the model does not know [rows].
        recommended: Rows of the score tables [rows].
        bins: The ranked ones among them by score [rows, bins].
    """

    users: Counts
    cold: Counts
    behaviours: Counts
    unknown: Counts
    recommended: Counts
    bins: Counts


def measure_segments(
    segments: Segments, histories: Sequence[Path], scores: Sequence[Path], edges: npt.NDArray[np.float64]
) -> dict[str, SegmentsMeasure]:
    """Count every segment of each declared feature.

    Args:
        segments: The declared ones.
        histories: Verified tables, one a shard.
        scores: Verified tables of the same users in the same order.
        edges: Ascending edges of the score bins.

    Raises:
        UsageError: If a feature is none of the histories' profile features.
    """
    _require_columns(segments, histories)
    total = {}
    for feature in segments.values:
        rows = segments.rows(feature)
        measure = _nothing(rows, len(edges) + 1)
        for ours, theirs in zip(histories, scores, strict=True):
            _count_histories(measure, ours, feature, rows)
            _count_scores(measure, ours, theirs, feature, edges)
        total[feature] = measure
    return total


def _nothing(rows: int, bins: int) -> SegmentsMeasure:
    users, cold, behaviours, unknown, recommended = np.zeros((5, rows), np.int64)
    return SegmentsMeasure(users, cold, behaviours, unknown, recommended, np.zeros((rows, bins), np.int64))


def _require_columns(segments: Segments, histories: Sequence[Path]) -> None:
    names = schema_of(histories).names
    known = [name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)]
    for feature in segments.values:
        if feature not in known:
            there = ", ".join(known) or "they have none"
            raise UsageError(
                f"[segments] columns: expected profile features of the models ({there}), found {feature!r}"
            )


def _count_histories(measure: SegmentsMeasure, path: Path, feature: str, rows: int) -> None:
    for batch in batches_of([path], [f"{_PREFIX}{feature}", "history_length", "history_item_id"]):
        own, lengths = (batch.column(name).to_numpy() for name in (f"{_PREFIX}{feature}", "history_length"))
        lists = batch.column("history_item_id")
        owners = np.repeat(own, lists.value_lengths().to_numpy())
        unknown = lists.flatten().to_numpy() == UNKNOWN_ROW
        measure.users += np.bincount(own, minlength=rows)
        measure.cold += np.bincount(own[lengths == 0], minlength=rows)
        measure.behaviours += np.bincount(owners, minlength=rows)
        measure.unknown += np.bincount(owners[unknown], minlength=rows)


def _count_scores(
    measure: SegmentsMeasure, histories: Path, scores: Path, feature: str, edges: npt.NDArray[np.float64]
) -> None:
    rows, width = measure.bins.shape
    profiles = _Profiles(histories, feature)
    for batch in batches_of([scores], ["user_id", "source", "score"]):
        own = profiles.of(batch.column("user_id"))
        known = own >= 0  # the user of a row that nobody knows is counted by a gate of its own
        measure.recommended += np.bincount(own[known], minlength=rows)
        score = pc.fill_null(batch.column("score"), float("nan")).to_numpy(zero_copy_only=False)
        counted = known & (batch.column("source").to_numpy() == SOURCE_RANKED) & np.isfinite(score)
        places = own[counted] * width + np.searchsorted(edges, score[counted], side="right")
        measure.bins += np.bincount(places, minlength=rows * width).reshape(rows, width)


class _Profiles:
    """The vocabulary rows of users that are asked for in ascending order; a few batches are held at a time."""

    def __init__(self, path: Path, feature: str) -> None:
        self._column = f"{_PREFIX}{feature}"
        self._batches = batches_of([path], ["user_id", self._column])
        self._held: list[pa.RecordBatch] = []

    def of(self, ids: pa.Array) -> Counts:
        """Give the row of each user of *ids* [rows, ascending, repeated]; -1 where the user is not found."""
        starts = runs_of(ids)
        users = ids.take(pa.array(starts))
        first, last = users[0].as_py(), users[-1].as_py()
        while not self._held or self._held[-1].column("user_id")[-1].as_py() < last:
            batch = next(self._batches, None)
            if batch is None:
                break
            if batch.num_rows:
                self._held.append(batch)
        self._held = [batch for batch in self._held if batch.column("user_id")[-1].as_py() >= first]
        known = pa.concat_arrays([pa.array([], ids.type), *(batch.column("user_id") for batch in self._held)])
        rows = np.concatenate(
            [np.empty(0, np.int64), *(batch.column(self._column).to_numpy() for batch in self._held), [-1]]
        )
        place = pc.fill_null(pc.index_in(users, value_set=known), -1).to_numpy(zero_copy_only=False)
        return np.asarray(np.repeat(rows[place].astype(np.int64), np.diff([*starts, len(ids)])))


def named(segments: Segments, measures: Mapping[str, SegmentsMeasure]) -> Iterator[tuple[str, str, int]]:
    """Yield name, feature and vocabulary row of each segment that has enough users."""
    for feature, measure in measures.items():
        for row in np.flatnonzero(measure.users >= segments.least_users):
            yield segments.name(feature, int(row)), feature, int(row)
