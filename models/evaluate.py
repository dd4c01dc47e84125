"""What a model is worth on days it has not seen: hit rates and rankings, beside floors that need no training."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from artifacts.errors import UsageError
from features.encode import item_features
from features.sequences import Sequences, history_at
from models.bst import Bst
from models.candidates import (
    POSITIVE,
    UNUSED,
    Candidates,
    Night,
    excluded,
    item_vectors,
    ranker_inputs,
    user_interests,
)
from models.events import EventIndex, Floats, Ints, earlier_events, users_of
from models.examples import Examples
from models.losses import serving_scores
from models.mind import Mind

Scorer = Callable[[Examples], npt.NDArray[np.floating]]  # scores of the whole catalogue, [N, items]
MOST_NEIGHBOURS_ITEMS = 20_000  # item-kNN holds a matrix of items by items


# --- measures -------------------------------------------------------------------------------------------------------


def ranks_of(scores: npt.NDArray[np.floating], rows: Ints, items: Ints) -> Ints:
    """Rank items among all that their row scores: 1 is the best, ties go to the lower item.

    Args:
        scores: [N, items]; -inf for an item that may not be recommended.
        rows: Row of each question, [P].
        items: The item asked for, [P].
    """
    asked = scores[rows]
    own = np.take_along_axis(asked, items[:, None], axis=1)
    before = np.arange(scores.shape[1]) < items[:, None]
    better: Ints = ((asked > own) | ((asked == own) & before)).sum(axis=1)
    return better + 1


def hit_rate(ranks: Ints, k: int) -> float:
    """Share of held-out events whose item is among the best k (arXiv 1904.08030, section 5.1); NaN without events."""
    return float(np.mean(ranks <= k)) if len(ranks) else float("nan")


def ndcg_of_ranks(ranks: Ints, k: int) -> float:
    """Mean of 1 / log2(1 + rank) over held-out events, 0 beyond k; NaN without events."""
    return float(np.mean(np.where(ranks <= k, 1 / np.log2(1.0 + ranks), 0.0))) if len(ranks) else float("nan")


def auc(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.bool_]) -> float:
    """Probability that a positive scores above a negative, ties counting half; NaN where one kind is missing."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2  # the mean of the ranks that equal scores share
    return float((middle[inverse][labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def grouped_auc(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.bool_], used: npt.NDArray[np.bool_]) -> float:
    """Mean of each list's own AUC, weighted by its length (arXiv 1706.06978, section 6.3), over lists that have one.

    Args:
        scores: [N, C].
        labels: Which candidates came true, [N, C].
        used: Which places hold a candidate, [N, C].
    """
    values = np.array([auc(s[u], y[u]) for s, y, u in zip(scores, labels, used, strict=True)])
    known = ~np.isnan(values)
    lengths = used.sum(axis=1)
    return float(np.average(values[known], weights=lengths[known])) if known.any() else float("nan")


def ndcg(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.bool_], used: npt.NDArray[np.bool_], k: int) -> float:
    """Mean over lists with a positive of DCG over the best possible DCG, both of the first k; ties keep their order.

    Shapes as in :func:`grouped_auc`.
    """
    order = np.argsort(np.where(used, -scores, np.inf), axis=1, kind="stable")[:, :k]
    gains = np.take_along_axis(labels & used, order, axis=1)
    discounts = 1 / np.log2(2.0 + np.arange(order.shape[1]))
    positives = (labels & used).sum(axis=1)
    ideal = (discounts * (np.arange(order.shape[1]) < positives[:, None])).sum(axis=1)
    some = positives > 0
    return float(np.mean((gains * discounts).sum(axis=1)[some] / ideal[some])) if some.any() else float("nan")


# --- floors ---------------------------------------------------------------------------------------------------------


def most_popular(sequences: Sequences, index: EventIndex, days: int) -> Scorer:
    """Score items by everybody's events in the *days* days before today, the same for all users."""
    catalogue = np.arange(len(sequences.catalogue))

    def score(examples: Examples) -> npt.NDArray[np.floating]:
        now, inverse = np.unique(examples.now_us, return_inverse=True)
        return index.popularity(now, np.tile(catalogue, (len(now), 1)), days)[inverse].astype(np.float64)

    return score


def item_neighbours(sequences: Sequences, until_us: int, *, shrinkage: float = 10.0) -> Floats:
    """Compare items by who had both: ``n_ij / (sqrt(n_i n_j) + shrinkage)``, 0 on the diagonal; [items, items].

    n_ij counts the users who had i and j before *until_us*. Shrinkage keeps a chance pair of rare items down.

    Raises:
        UsageError: If the catalogue is too large for a matrix.
    """
    items = len(sequences.catalogue)
    if items > MOST_NEIGHBOURS_ITEMS:
        raise UsageError(f"item-kNN: expected at most {MOST_NEIGHBOURS_ITEMS} items, found {items}; leave it out")
    together = np.zeros((items, items), dtype=np.float32)
    known = (sequences.times_us < until_us) & (sequences.items >= 0)
    users = users_of(sequences)
    for start in range(0, len(sequences.starts) - 1, 1024):
        stop = min(start + 1024, len(sequences.starts) - 1)
        part = slice(int(sequences.starts[start]), int(sequences.starts[stop]))
        baskets = np.zeros((stop - start, items), dtype=np.float32)
        baskets[users[part][known[part]] - start, sequences.items[part][known[part]]] = 1.0
        together += baskets.T @ baskets
    alone = np.sqrt(np.diag(together))
    np.fill_diagonal(together, 0.0)
    together /= alone[:, None] * alone[None, :] + np.float32(shrinkage)
    return together


def nearest_items(sequences: Sequences, neighbours: Floats) -> Scorer:
    """Score items by the sum of their likeness to all that the user has had."""

    def score(examples: Examples) -> npt.NDArray[np.floating]:
        rows, positions = earlier_events(sequences, examples.users, examples.ends)
        kept = sequences.items[positions] >= 0
        baskets = np.zeros((len(examples), len(neighbours)), dtype=np.float32)
        baskets[rows[kept], sequences.items[positions[kept]]] = 1.0
        return baskets @ neighbours

    return score


# --- models ---------------------------------------------------------------------------------------------------------


def mind_scores(sequences: Sequences, mind: Mind) -> Scorer:
    """Score items by the best inner product with a user's interests."""
    vectors = item_vectors(mind, item_features(sequences.catalogue, mind.spec))

    def score(examples: Examples) -> npt.NDArray[np.floating]:
        inputs = history_at(sequences, examples.users, examples.now_us, examples.ends, mind.spec)
        scores: npt.NDArray[np.floating] = serving_scores(*user_interests(mind, inputs), vectors).numpy()
        return scores

    return score


def bst_scores(
    sequences: Sequences, examples: Examples, index: EventIndex, found: Candidates, *, bst: Bst, night: Night
) -> Floats:
    """Score candidates [N, C] by BST."""
    parts = []
    for start in range(0, len(examples), 256):
        rows = np.arange(start, min(start + 256, len(examples)))
        inputs = ranker_inputs(sequences, examples.take(rows), index, found.take(rows), spec=bst.spec, night=night)
        with torch.no_grad():
            parts.append(bst(*(torch.from_numpy(array) for array in inputs.values())).numpy())
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class Quality:
    """A row of the quality table.

    Attributes:
        hit_rate: By k.
        ndcg: By k.
        events: Held-out events that it was measured on.
    """

    hit_rate: dict[int, float]
    ndcg: dict[int, float]
    events: int


def retrieval_quality(
    sequences: Sequences, examples: Examples, score: Scorer, *, night: Night, ks: tuple[int, ...] = (10, 50, 100)
) -> Quality:
    """Measure a scorer on held-out events, against all items that the night would let it recommend.

    Events that could not be recommended (had before under the policy, not eligible) are left out.
    """
    eligible = sequences.catalogue["eligible"].to_numpy()
    ranks = [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(examples), 256):
        some = examples.take(np.arange(start, min(start + 256, len(examples))))
        scores = np.array(score(some), dtype=np.float64)
        scores[:, ~eligible] = -np.inf
        scores[excluded(sequences, some.users, some.now_us, some.ends, night)] = -np.inf
        rows, places = np.nonzero(some.weights > 0)
        items = some.targets[rows, places]
        possible = scores[rows, items] > -np.inf
        ranks.append(ranks_of(scores, rows[possible], items[possible]))
    every = np.concatenate(ranks)
    return Quality({k: hit_rate(every, k) for k in ks}, {k: ndcg_of_ranks(every, k) for k in ks}, len(every))


@dataclass(frozen=True, slots=True)
class RankingQuality:
    """A row of the ranking table: over the candidates that retrieval proposed, in lists that hold a positive."""

    auc: float
    gauc: float
    ndcg_10: float
    lists: int
    positives: int


def ranking_quality(scores: npt.NDArray[np.floating], found: Candidates) -> RankingQuality:
    """Measure the scores [N, C] of candidates by what came true."""
    used = found.labels != UNUSED
    labels = found.labels == POSITIVE
    some = labels.any(axis=1)
    used, labels, scores = used[some], labels[some], scores[some]
    return RankingQuality(
        auc=auc(scores[used], labels[used]),
        gauc=grouped_auc(scores, labels, used),
        ndcg_10=ndcg(scores, labels, used, 10),
        lists=int(some.sum()),
        positives=int(labels.sum()),
    )


def of_candidates(score: Scorer, examples: Examples, found: Candidates) -> npt.NDArray[np.floating]:
    """Take a scorer's scores of the candidates [N, C] out of those of the catalogue."""
    return np.take_along_axis(score(examples), np.maximum(found.items, 0), axis=1)
