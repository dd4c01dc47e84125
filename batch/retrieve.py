"""From interest vectors to the candidates of each user: search, merge, search wider where that falls short."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from artifacts.errors import UsageError
from batch.merge import Candidates, Lists, in_order, merge_interests
from batch.stages import stage
from features.encode import NO_ITEM, list_parts, require_rows

GPU_LIMIT = 2048  # the most neighbours and the most lists that FAISS searches on a GPU
WIDENINGS = 4  # how often the search for a short list is doubled

_NEVER = 1 << 30


@dataclass(frozen=True, slots=True)
class Index:
    """An index that can be searched, and what its rows stand for.

    Attributes:
        ivf: The FAISS index, on CPU or GPU; row i there is row i of the other fields.
        items: int32 [n], catalogue rows, ascending.
        vectors: float32 [n, width], the items' vectors themselves, whatever the index stores of them; behind the d
            numbers of the model stand those that meet *append*.
        nprobe: How many lists a search looks into.
        threads: How many threads FAISS may take.
        most: The most neighbours and lists of one search.
        append: float32 [width - d], what an interest is searched with behind its own numbers; none where recent
            popularity does not count.
        refine: How many times as many neighbours are found, to be scored again by *vectors*; 1 takes FAISS's scores.
        turn: What a search holds: on a GPU a lock, since FAISS searches there for one thread at a time.
    """

    ivf: Any
    items: np.ndarray
    vectors: np.ndarray
    nprobe: int
    threads: int
    most: int = _NEVER
    append: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    refine: int = 1
    turn: AbstractContextManager[Any] = field(default_factory=nullcontext, compare=False)

    @property
    def scores_exactly(self) -> bool:
        """Whether the scores of a search are those of :func:`inner_products_of`, bit for bit."""
        return self.refine > 1 or isinstance(self.ivf, faiss.IndexIVFFlat)

    def queries(self, interests: np.ndarray) -> np.ndarray:
        """Give what the index is searched with for *interests*, float32 [n, d]: float32 [n, width], contiguous."""
        if not len(self.append):
            return interests
        return np.hstack([interests, np.broadcast_to(self.append, (len(interests), len(self.append)))])


def seen_lists(seen: pa.RecordBatch, index_rows: np.ndarray, *, within: int | None) -> Lists:
    """Give what each user must not get again.

    Args:
        seen: Rows of ``schemas.seen``.
        index_rows: int64 [catalogue rows], the index row of each item; ``NO_ITEM`` where it is not indexed.
        within: Only what they had in the last so many seconds before the data date's end; ``None``: all.

    Raises:
        InputError: If a catalogue row is out of range.
    """
    counts, items = list_parts(seen.column("items"))
    items = items.to_numpy()
    require_rows("prepare/seen, items", items, len(index_rows))
    rows = index_rows[items]
    kept = rows != NO_ITEM
    if within is not None:
        kept &= list_parts(seen.column("last_gap"))[1].to_numpy() <= within
    owners = np.repeat(np.arange(len(counts)), counts)
    return Lists(rows[kept], np.bincount(owners[kept], minlength=len(counts)))


def search(index: Index, queries: np.ndarray, *, k: int, nprobe: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the items with the greatest inner products among the *nprobe* lists nearest to each query.

    A query's result depends on that query alone, to the bit: the lists are chosen without BLAS, whose sums change
    with the number of queries.

    Args:
        index: What to search.
        queries: float32 [queries, width], contiguous.
        k: How many to find.
        nprobe: Into how many lists to look.

    Returns:
        Index rows int64 [queries, k], ``NO_ITEM`` where the lists had fewer, and scores float32 [queries, k].
    """
    if len(queries) == 0:
        return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
    _without_blas(index.threads)
    parameters = faiss.SearchParametersIVF()
    parameters.nprobe = nprobe
    wider = k if index.refine == 1 else min(index.refine * k, index.most, max(len(index.items), k))
    with stage("search"):
        with index.turn:
            scores, rows = index.ivf.search(queries, wider, params=parameters)
        return (rows, scores) if index.refine == 1 else _refined(index, queries, rows, k)


def nearest_lists(index: Index, queries: np.ndarray, nprobe: int) -> np.ndarray:
    """Give the lists that :func:`search` looks into for each query, int64 [queries, nprobe], nearest first."""
    _without_blas(index.threads)
    return np.asarray(index.ivf.quantizer.search(queries, nprobe)[1])


def _without_blas(threads: int) -> None:
    faiss.omp_set_num_threads(threads)  # OpenMP keeps this for each calling thread
    faiss.cvar.distance_compute_blas_threshold = _NEVER


def _refined(index: Index, queries: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the *k* best of *rows*, int64 [queries, more], by the items' own vectors, ties by row, as `search` does."""
    scores = inner_products_of(queries, np.broadcast_to(np.arange(len(rows))[:, None], rows.shape), index.vectors, rows)
    best = in_order(rows, scores, np.zeros((1, 1), np.uint8), np.zeros(len(rows), np.int64), limit=k)
    return best.rows, np.maximum(best.scores, np.finfo(np.float32).min)  # as FAISS says where there is none


def inner_products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Compute inner products over the last axis, as :func:`inner_products_of` does; the other axes are broadcast.

    Args:
        left: float32 [..., d].
        right: float32 [..., d].
    """
    shape = np.broadcast_shapes(left.shape, right.shape)
    left, right = (np.broadcast_to(side, shape).reshape(-1, shape[-1]) for side in (left, right))
    rows = np.arange(len(left))
    return inner_products_of(left, rows, right, rows).reshape(shape[:-1])


def inner_products_of(left: np.ndarray, left_rows: np.ndarray, right: np.ndarray, right_rows: np.ndarray) -> np.ndarray:
    """Compute the inner products of ``left[left_rows]`` and ``right[right_rows]``, none of which is copied for it.

    Each is a sum of its own, in the order that FAISS has for the width: its bits depend on its two rows alone.
    ``np.einsum`` and products of matrices choose the order by the shape of the whole.

    Args:
        left: float32 [n, d].
        left_rows: int64 [...]; not looked at where *right_rows* is ``NO_ITEM``.
        right: float32 [m, d].
        right_rows: int64, of the same shape; of ``NO_ITEM`` the product is ``-inf``.
    """
    sides = [np.ascontiguousarray(side) for side in (left, left_rows, right, right_rows)]
    products = np.empty(left_rows.shape, np.float32)
    pointers = [faiss.swig_ptr(array) for array in (*sides, products)]
    faiss.pairwise_indexed_inner_product(left.shape[1], products.size, *pointers)  # type: ignore[attr-defined]
    return products


def most_of(device: str) -> int:
    """Say how many neighbours and lists FAISS searches at the most."""
    return GPU_LIMIT if device == "gpu" else _NEVER


def require_searchable(device: str, *, k: int) -> None:
    """Refuse a search that FAISS does not do on a GPU.

    Raises:
        UsageError: If *k*, the neighbours of a query, are too many.
    """
    if k > (most := most_of(device)):
        raise UsageError(
            f"a GPU searches at most {most} neighbours, asked for {k}; lower recall_k, candidates or overfetch"
        )


def retrieve(
    index: Index, vectors: np.ndarray, counts: np.ndarray, seen: Lists, *, limit: int, fetch: int
) -> Candidates:
    """Find the candidates of some users; each user's depend on that user alone, to the bit.

    Where so many neighbours were dropped that the list is short, or that an item which was not looked at might belong
    into it, that user's search is widened: twice the neighbours in twice the lists, up to ``WIDENINGS`` times. Scores
    are computed again from the item vectors.

    Args:
        index: What to search.
        vectors: float32 [sum of counts, width], the queries of the active interests, user after user.
        counts: int [users], how many each user has; a user with 0 gets no candidates.
        seen: What each user has had and must not get.
        limit: C, candidates to keep.
        fetch: How many neighbours of each interest to look at first; more than *limit*, since some are dropped.
    """
    total, lists = len(index.items), index.ivf.nlist
    attainable = np.where(counts > 0, np.minimum(limit, total - seen.counts), 0)
    k, nprobe = min(fetch, total, index.most), min(index.nprobe, index.most)
    found, least = _search_and_merge(index, vectors, counts, seen, limit=limit, k=k, nprobe=nprobe)
    for _ in range(WIDENINGS):
        kept = (found.rows != NO_ITEM).sum(axis=1)
        narrow = (kept < attainable) | ((kept == limit) & (found.scores[:, -1] < least))
        wider = min(2 * k, total, index.most), min(2 * nprobe, lists, index.most)
        if not narrow.any() or wider == (k, nprobe):
            break
        k, nprobe = wider
        part = vectors[np.repeat(narrow, counts)]
        again, least[narrow] = _search_and_merge(
            index, part, counts[narrow], seen.of(narrow), limit=limit, k=k, nprobe=nprobe
        )
        found.put(narrow, again)
    return found if index.scores_exactly else _score_again(index, vectors, counts, found)


def _search_and_merge(
    index: Index, vectors: np.ndarray, counts: np.ndarray, seen: Lists, *, limit: int, k: int, nprobe: int
) -> tuple[Candidates, np.ndarray]:
    """Give candidates, and for each user the score that no item exceeds which the search did not show, float32."""
    rows, scores = search(index, vectors, k=k, nprobe=nprobe)
    active = np.arange(counts.max(initial=1)) < counts[:, None]
    rows, scores = _padded(rows, active, NO_ITEM), _padded(scores, active, float(np.finfo(np.float32).min))
    return merge_interests(rows, scores, seen, limit=limit), scores[:, :, -1].max(axis=1)


def _padded(rows: np.ndarray, active: np.ndarray, nothing: float) -> np.ndarray:
    """Lay *rows* [sum of active, k] where *active*, bool [users, interests], is true, and *nothing* elsewhere."""
    if active.all():
        return rows.reshape(*active.shape, -1)
    padded = np.full((*active.shape, rows.shape[1]), nothing, rows.dtype)
    padded[active] = rows
    return padded


def _score_again(index: Index, vectors: np.ndarray, counts: np.ndarray, found: Candidates) -> Candidates:
    """Compute the scores from the vectors themselves: FAISS's depend on what it stores and on its own sums."""
    starts = np.cumsum(counts) - counts
    scores = inner_products_of(vectors, starts[:, None] + found.interests, index.vectors, found.rows)
    return in_order(found.rows, scores, found.interests, found.dropped, limit=found.rows.shape[1])
