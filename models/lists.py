"""Lists of candidates as arrays: how a night retrieves, which candidates came true, what a ranker is told; no torch."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from artifacts.bundle import FeatureSpec, Role, input_names
from features.cross import NEVER, cross_features
from features.encode import item_features, take_items
from features.sequences import Sequences, history_at
from models.events import EventIndex, Floats, Ints
from models.examples import Examples

POSITIVE, NEGATIVE, UNUSED = 1, 0, -1


@dataclass(frozen=True, slots=True)
class Night:
    """How the night retrieves; the fields mean what they mean in its config.

    Attributes:
        candidates: C, items retrieved for a user.
        exclude_seen: Whether what the user has had is dropped: ``"all"`` of it, that of some ``"days"``, or ``"none"``.
        exclude_days: Of ``"days"``.
        popular_days: Days before today in which events make an item popular.
        popularity_weight: What log(1 + those events) is multiplied by and added to an item's inner products.
    """

    candidates: int = 100
    exclude_seen: Literal["all", "days", "none"] = "all"
    exclude_days: int = 30
    popular_days: int = 30
    popularity_weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidates:
    """What was retrieved for N examples, best first.

    Attributes:
        items: Catalogue rows, -1 where fewer were found, [N, C].
        scores: Best inner product of an interest and the item, with what popularity adds; 0 where there is none,
            [N, C].
        labels: ``POSITIVE`` for a target; ``UNUSED`` for no item, or one that the user takes later than the targets:
            calling it a negative would punish a good guess; [N, C].
    """

    items: Ints
    scores: Floats
    labels: npt.NDArray[np.int8]

    def take(self, rows: npt.NDArray[Any]) -> "Candidates":
        """Keep *rows*, a mask or positions."""
        return Candidates(self.items[rows], self.scores[rows], self.labels[rows])


def columns_of(rows: Examples | Candidates) -> tuple[npt.NDArray[Any], ...]:
    """Give the arrays of some rows in their order."""
    return tuple(getattr(rows, name) for name in type(rows).__slots__)


def draw_negatives(
    candidates: Candidates, keys: npt.NDArray[np.float64], *, positives: int, ratio: int
) -> tuple[Candidates, npt.NDArray[np.bool_]]:
    """Keep each example's positives, and for each of them *ratio* of its negatives, drawn without replacement.

    Args:
        candidates: Of N examples.
        keys: Drawn from 0 to below 1, [N, C]: the negatives with the least are kept.
        positives: The most positives of an example.
        ratio: Negatives for a positive; fewer where fewer were retrieved.

    Returns:
        Candidates [N, positives * (1 + ratio)], positives first, and which of the places are filled.
    """
    width = min(positives * (1 + ratio), candidates.items.shape[1])
    keys = keys - (candidates.labels == POSITIVE) + (candidates.labels == UNUSED)
    order = np.argsort(keys, axis=1, kind="stable")[:, :width]
    kept = Candidates(*(np.take_along_axis(column, order, 1) for column in columns_of(candidates)))
    wanted = (candidates.labels == POSITIVE).sum(axis=1, keepdims=True) * (1 + ratio)
    return kept, (np.arange(width) < wanted) & (kept.labels != UNUSED)


def ranker_inputs(
    sequences: Sequences, examples: Examples, index: EventIndex, kept: Candidates, *, spec: FeatureSpec, night: Night
) -> dict[str, npt.NDArray[Any]]:
    """Give the ranker's inputs by name, as of each example's time; cross features come from ``features.cross``."""
    inputs: dict[str, npt.NDArray[Any]] = dict(
        history_at(sequences, examples.users, examples.now_us, examples.ends, spec)
    )
    rows = take_items(item_features(sequences.catalogue, spec), kept.items)
    inputs |= {f"candidate_{name}": values for name, values in rows.items()}
    if spec.cross_features:
        times, last_us = index.had(examples.users, examples.ends, kept.items)
        gap = np.where(times > 0, (examples.now_us[:, None] - last_us) // 1_000_000, NEVER)
        inputs["cross"] = cross_features(
            spec,
            retrieval_score=kept.scores,
            times_had=times.astype(np.int32),
            last_gap_seconds=gap,
            popularity_events=index.popularity(examples.now_us, kept.items, night.popular_days),
        )
    return {name: inputs[name] for name in input_names(Role.RANKER, spec)}
