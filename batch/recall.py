"""Recall of an index against exact search, on tonight's user vectors, with a 95 % interval."""

from dataclasses import dataclass

import numpy as np

from batch.retrieve import Index, inner_products_of, search
from features.encode import NO_ITEM

QUERIES_AT_ONCE = 256
ITEMS_AT_ONCE = 1 << 18
_BLOCKS = 1024
_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Sample:
    """Some users' interests, and how good an item must be to belong to the best of each.

    Attributes:
        vectors: float32 [sum of counts, d], user after user.
        counts: int [users], 1 or more.
        least: float32 [sum of counts], the k-th greatest inner product of each interest with any item.
        k: Capped by the number of items.
    """

    vectors: np.ndarray
    counts: np.ndarray
    least: np.ndarray
    k: int


@dataclass(frozen=True, slots=True)
class Recall:
    """An estimate: the mean over users, and its 95 % interval by the normal approximation, cut to 0 .. 1."""

    mean: float
    low: float
    high: float


def take_sample(items: np.ndarray, vectors: np.ndarray, counts: np.ndarray, *, k: int) -> Sample:
    """Search exactly for the *k* best of each interest among *items*, float32 [n, d].

    Args:
        items: Vectors of all indexed items.
        vectors: float32 [sum of counts, d], user after user.
        counts: int [users]; users without interests are left out.
        k: How many count as the best.
    """
    k = min(k, len(items))
    parts = [
        _kth_best(items, vectors[start : start + QUERIES_AT_ONCE], k)
        for start in range(0, len(vectors), QUERIES_AT_ONCE)
    ]
    return Sample(vectors, counts[counts > 0], np.concatenate([np.empty(0, np.float32), *parts]), k)


def measure_recall(index: Index, sample: Sample, *, nprobe: int) -> Recall:
    """Measure which share of each interest's k best a search finds: the mean over a user's interests, then users.

    An item counts that is as good as the k-th best, so that items with equal vectors may stand for each other.

    Raises:
        ValueError: If *sample* has no users.
    """
    users = len(sample.counts)
    if users == 0:
        raise ValueError("expected at least one user with interests")
    shares = []
    for start in range(0, len(sample.vectors), QUERIES_AT_ONCE):
        queries = sample.vectors[start : start + QUERIES_AT_ONCE]
        rows, _ = search(index, queries, k=sample.k, nprobe=nprobe)
        good = _exact_scores(queries, index.vectors, rows) >= sample.least[start : start + len(queries), None]
        shares.append((good & (rows != NO_ITEM)).sum(axis=1) / sample.k)
    starts = np.cumsum(sample.counts) - sample.counts
    own = np.add.reduceat(np.concatenate(shares), starts) / sample.counts
    mean = float(own.mean())
    off = _Z95 * float(own.std(ddof=1)) / users**0.5 if users > 1 else 1.0
    return Recall(mean, max(mean - off, 0.0), min(mean + off, 1.0))


def _exact_scores(queries: np.ndarray, items: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Inner products [queries, k] of each query and its own items, in the one fixed order."""
    return inner_products_of(queries, np.broadcast_to(np.arange(len(rows))[:, None], rows.shape), items, rows)


def _kth_best(items: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Search exactly, a range of items at a time; gives the k-th greatest inner product of each query.

    BLAS says which items are the best, and these are computed again in the fixed order of ``inner_products_of``, so
    that an item that a search found compares as equal with itself.
    """
    best_rows = np.empty((len(queries), 0), dtype=np.int64)
    best_scores = np.empty((len(queries), 0), dtype=np.float32)
    for start in range(0, len(items), ITEMS_AT_ONCE):
        scores = queries @ items[start : start + ITEMS_AT_ONCE].T
        found = _top(scores, k)
        best_rows = np.concatenate([best_rows, found + start], axis=1)
        best_scores = np.concatenate([best_scores, np.take_along_axis(scores, found, axis=1)], axis=1)
        kept = np.argpartition(-best_scores, min(k, best_scores.shape[1]) - 1, axis=1)[:, :k]
        best_rows = np.take_along_axis(best_rows, kept, axis=1)
        best_scores = np.take_along_axis(best_scores, kept, axis=1)
    return np.asarray(_exact_scores(queries, items, best_rows).min(axis=1))


def _top(scores: np.ndarray, k: int) -> np.ndarray:
    """Find places of the *k* greatest of each row, in any order.

    Every one of them lies in one of the k blocks with the greatest maxima, so only these are sorted out: a maximum is
    far cheaper than a partition. Element j belongs to block j mod B.
    """
    rows, width = scores.shape
    depth = width // max(_BLOCKS, 4 * k)
    if depth < 2:
        return np.argpartition(-scores, min(k, width) - 1, axis=1)[:, :k]
    blocks = width // depth
    maxima = scores[:, : blocks * depth].reshape(rows, depth, blocks).max(axis=1)
    chosen = np.argpartition(-maxima, k - 1, axis=1)[:, :k]
    places = (chosen[:, None, :] + blocks * np.arange(depth)[:, None]).reshape(rows, -1)
    rest = np.broadcast_to(np.arange(blocks * depth, width), (rows, width - blocks * depth))
    places = np.concatenate([places, rest], axis=1)
    kept = np.argpartition(-np.take_along_axis(scores, places, axis=1), k - 1, axis=1)[:, :k]
    return np.take_along_axis(places, kept, axis=1)
