"""Recall of an index against exact search, on tonight's user vectors, with a 95 % interval."""

from dataclasses import dataclass

import faiss
import numpy as np

from batch.copied import held_by_gpu
from batch.indexed import on_device
from batch.machine import usable_cores
from batch.retrieve import Index, inner_products_of, search
from features.encode import NO_ITEM

QUERIES_AT_ONCE = 256
_BLAS_FROM = 20  # queries; FAISS's own default, which searches of the index set otherwise
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


def take_sample(
    items: np.ndarray, vectors: np.ndarray, counts: np.ndarray, *, k: int, threads: int = 0, device: str = "cpu"
) -> Sample:
    """Search exactly for the *k* best of each interest among *items*, float32 [n, d].

    Args:
        items: Vectors of all indexed items.
        vectors: float32 [sum of counts, d], user after user.
        counts: int [users]; users without interests are left out.
        k: How many count as the best.
        threads: Of FAISS; 0 takes all cores.
        device: ``cpu`` or ``gpu``.
    """
    k = min(k, len(items))
    faiss.omp_set_num_threads(threads or usable_cores())
    least = np.empty(0, np.float32) if len(vectors) == 0 else _kth_best(items, vectors, k, device)
    return Sample(vectors, counts[counts > 0], least, k)


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


def _kth_best(items: np.ndarray, queries: np.ndarray, k: int, device: str) -> np.ndarray:
    """Search exactly; gives the k-th greatest inner product of each query.

    BLAS says which items are the best, and these are computed again in the fixed order of ``inner_products_of``, so
    that an item that a search found compares as equal with itself.
    """
    if device == "gpu":
        rows = _searched_by_gpu(items, queries, k)
    else:
        faiss.cvar.distance_compute_blas_threshold = _BLAS_FROM
        _, rows = faiss.knn(queries, items, k, metric=faiss.METRIC_INNER_PRODUCT)
    return np.asarray(_exact_scores(queries, items, rows).min(axis=1))


def _searched_by_gpu(items: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Give the rows of the best *k* of *items*, int64 [queries, k]; the GPU must hold all of them."""
    with held_by_gpu():
        exact = on_device(faiss.IndexFlatIP(items.shape[1]), "gpu")
        exact.add(items)
        return np.asarray(exact.search(queries, k)[1])
