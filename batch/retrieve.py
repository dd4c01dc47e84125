"""From interest vectors to the candidates of each user: search, drop what was seen, merge, keep, score again."""

from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from artifacts.contract import MOST_INTERESTS
from artifacts.errors import UsageError
from batch.stages import stage
from features.encode import NO_ITEM, list_parts, require_rows

GPU_LIMIT = 2048  # the most neighbours and the most lists that FAISS searches on a GPU
WIDENINGS = 4  # how often the search for a short list is doubled

_NEVER = 1 << 30
_MISSING, _LOW, _WORD = np.uint64(0xFFFF_FFFF_FFFF_FFFF), np.uint64(0xFFFF_FFFF), np.uint64(32)


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
    """

    ivf: Any
    items: np.ndarray
    vectors: np.ndarray
    nprobe: int
    threads: int
    most: int = _NEVER
    append: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    refine: int = 1

    def queries(self, interests: np.ndarray) -> np.ndarray:
        """Give what the index is searched with for *interests*, float32 [n, d]: float32 [n, width], contiguous."""
        if not len(self.append):
            return interests
        return np.hstack([interests, np.broadcast_to(self.append, (len(interests), len(self.append)))])


@dataclass(frozen=True, slots=True)
class Lists:
    """One list of int64 index rows for each user, one after the other; each list ascends without repeats.

    Attributes:
        rows: int64 [sum of counts].
        counts: int64 [users].
    """

    rows: np.ndarray
    counts: np.ndarray

    def of(self, chosen: np.ndarray) -> "Lists":
        """Only the lists of the users for whom *chosen*, bool [users], is true."""
        return Lists(self.rows[np.repeat(chosen, self.counts)], self.counts[chosen])

    def have(self, users: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Whether row ``rows[i]`` is in the list of user ``users[i]``; both int64 [n], gives bool [n]."""
        keys = np.repeat(np.arange(len(self.counts)), self.counts) << 32 | self.rows
        wanted = users << 32 | rows
        places = np.searchsorted(keys, wanted)
        return np.asarray(np.append(keys, -1)[places] == wanted)


@dataclass(frozen=True, slots=True)
class Candidates:
    """At most C items for each user, best first, ties ascending by item.

    Attributes:
        rows: int64 [users, C], index rows; ``NO_ITEM`` where there are fewer.
        scores: float32 [users, C], inner products; ``-inf`` where there is no item.
        interests: uint8 [users, C], number of the interest that found the item; 0 where there is none.
        dropped: int64 [users], how many items stood before the last of these, or before a missing one, that the user
            has had.
    """

    rows: np.ndarray
    scores: np.ndarray
    interests: np.ndarray
    dropped: np.ndarray

    def put(self, users: np.ndarray, others: "Candidates") -> None:
        """Replace the candidates of the users for whom *users*, bool [users], is true by those of *others*."""
        for name in self.__slots__:
            getattr(self, name)[users] = getattr(others, name)


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
    with stage("search"):
        if index.refine == 1:
            scores, rows = index.ivf.search(queries, k, params=parameters)
            return rows, scores
        wider = min(index.refine * k, index.most, max(len(index.items), k))
        return _refined(index, queries, index.ivf.search(queries, wider, params=parameters)[1], k)


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
    keys = np.where(rows == NO_ITEM, _MISSING, _descending(scores) << _WORD | rows.view(np.uint64))
    best = _candidates(_first(keys, k), np.uint64(0), np.zeros(len(rows), np.int64))
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


def require_packable(items: int, interests: int) -> None:
    """Refuse more interests than are published, or items than fit beside an interest in the 64 bits that are sorted.

    Raises:
        UsageError: If they do not fit.
    """
    if interests > MOST_INTERESTS:
        raise UsageError(f"{interests} interests a user: expected at most {MOST_INTERESTS}; train a model with fewer")
    if items >= (most := 1 << (32 - _bits_of(interests))):
        raise UsageError(f"{items} items with {interests} interests a user: expected fewer than {most} items")


def merge_interests(rows: np.ndarray, scores: np.ndarray, seen: Lists, *, limit: int) -> Candidates:
    """Join what the interests of each user found: an item once, with its best score; nothing that was seen.

    Ties go to the interest with the lower number, and between items to the lower row.

    Args:
        rows: int64 [interests, users, n], index rows; ``NO_ITEM`` where an interest found fewer.
        scores: float32 [interests, users, n], descending in each row.
        seen: What each user must not get.
        limit: C, how many to keep for a user at the most.
    """
    interests, _, found = rows.shape
    bits = _bits_of(interests)
    marked = rows << bits.astype(np.int64)  # of NO_ITEM negative, whatever the interest
    marked |= np.arange(interests)[:, None, None]
    if interests == 1 or found <= limit:
        return _merge(_of_users(marked), _of_users(scores), seen, bits, limit)
    first_scores, first = faiss.merge_knn_results(scores, marked, keep_max=True)
    merged = _merge(first, first_scores, seen, bits, limit)
    left_out = (first[:, -1] >= 0) & ~(merged.scores[:, -1] > first_scores[:, -1])  # perhaps, of what was found
    if left_out.any():
        every, of_every = _of_users(marked[:, left_out]), _of_users(scores[:, left_out])
        merged.put(left_out, _merge(every, of_every, seen.of(left_out), bits, limit))
    return merged


def _of_users(array: np.ndarray) -> np.ndarray:
    """Lay what the interests of a user found beside each other: [interests, users, n] to [users, interests * n]."""
    return np.ascontiguousarray(array.swapaxes(0, 1)).reshape(array.shape[1], -1)


def _merge(marked: np.ndarray, scores: np.ndarray, seen: Lists, bits: np.uint64, limit: int) -> Candidates:
    """Keep the best of each user, of index rows with the interest in their last *bits*, int64 [users, n], any order."""
    found = marked.view(np.uint64)
    keys = (found >> bits) << (_WORD + bits)  # of NO_ITEM all bits: last when sorted
    keys |= _descending(scores) << bits
    keys |= found & _mask(bits)
    keys.sort(axis=1)  # by item, the best score first
    items = keys >> (_WORD + bits)
    wanted = items != _MISSING >> (_WORD + bits)
    wanted[:, 1:] &= items[:, 1:] != items[:, :-1]
    keys = np.where(wanted, (keys >> bits) << _WORD | items << bits | keys & _mask(bits), _MISSING)
    had = _places_of(items, seen)
    had_keys = keys.ravel()[had]
    keys.ravel()[had] = _MISSING
    keys = _first(keys, limit)
    owners = had // items.shape[1]
    dropped = np.bincount(owners[had_keys < keys[owners, -1]], minlength=len(keys))
    return _candidates(keys, bits, dropped)


def _places_of(items: np.ndarray, seen: Lists) -> np.ndarray:
    """Find what is *seen* at its first place in the flat *items*, uint64 [users, n], which ascend for each user.

    Each thing seen is looked up among those found: of a user these are many more, and both ascend.
    """
    owners = np.arange(len(items), dtype=np.uint64)
    keys = (owners[:, None] << _WORD | items).ravel()
    asked = np.repeat(owners, seen.counts) << _WORD | seen.rows.view(np.uint64)
    places = np.searchsorted(keys, asked)
    return np.asarray(places[keys[np.minimum(places, len(keys) - 1)] == asked])


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
    return _score_again(index, vectors, counts, found)


def _search_and_merge(
    index: Index, vectors: np.ndarray, counts: np.ndarray, seen: Lists, *, limit: int, k: int, nprobe: int
) -> tuple[Candidates, np.ndarray]:
    """Give candidates, and for each user the score that no item exceeds which the search did not show, float32."""
    interests = np.arange(counts.max(initial=1))[:, None]
    active, starts = interests < counts, np.cumsum(counts) - counts
    found, scores = search(index, vectors.take((starts + interests)[active], axis=0), k=k, nprobe=nprobe)
    if active.all():
        rows = found.reshape(*active.shape, k)
        scores = scores.reshape(rows.shape)
    else:
        rows = np.full((*active.shape, k), NO_ITEM)
        rows[active] = found
        padded = np.full(rows.shape, np.finfo(np.float32).min)  # as FAISS says where the lists had fewer
        padded[active] = scores
        scores = padded
    return merge_interests(rows, scores, seen, limit=limit), scores[:, :, -1].max(axis=0)


def _score_again(index: Index, vectors: np.ndarray, counts: np.ndarray, found: Candidates) -> Candidates:
    """Compute the scores from the vectors themselves: FAISS's depend on what it stores and on its own sums."""
    starts = np.cumsum(counts) - counts
    scores = inner_products_of(vectors, starts[:, None] + found.interests, index.vectors, found.rows)
    bits = _bits_of(int(counts.max(initial=1)))
    keys = _descending(scores) << _WORD | found.rows.view(np.uint64) << bits | found.interests
    keys = np.where(found.rows == NO_ITEM, _MISSING, keys)
    keys.sort(axis=1)
    return _candidates(keys, bits, found.dropped)


def _first(keys: np.ndarray, limit: int) -> np.ndarray:
    """Give the *limit* least keys of each row in order, ``_MISSING`` where there are fewer: uint64 [rows, limit]."""
    if keys.shape[1] > 2 * limit:
        keys = np.partition(keys, limit, axis=1)[:, :limit]
    keys.sort(axis=1)
    lacking = max(limit - keys.shape[1], 0)
    return np.pad(keys, ((0, 0), (0, lacking)), constant_values=_MISSING) if lacking else keys[:, :limit]


def _candidates(keys: np.ndarray, bits: np.uint64, dropped: np.ndarray) -> Candidates:
    """Read keys of score, item and interest, uint64 [users, C], in order."""
    missing = keys == _MISSING
    rows = np.where(missing, NO_ITEM, ((keys & _LOW) >> bits).astype(np.int64))
    scores = np.where(missing, np.float32(-np.inf), _ascending(keys >> _WORD))
    interests = np.where(missing, 0, keys & _mask(bits)).astype(np.uint8)
    return Candidates(rows, scores, interests, dropped)


def _bits_of(interests: int) -> np.uint64:
    """How many bits the number of an interest takes."""
    return np.uint64((interests - 1).bit_length())


def _mask(bits: np.uint64) -> np.uint64:
    return np.uint64((1 << int(bits)) - 1)


def _descending(scores: np.ndarray) -> np.ndarray:
    """Bits of float32 as unsigned numbers that ascend where the scores descend; 0.0 and -0.0 are one."""
    bits = np.ascontiguousarray(scores + np.float32(0)).view(np.uint32)
    return np.where(bits >> np.uint32(31), bits, bits ^ np.uint32(0x7FFF_FFFF)).astype(np.uint64)


def _ascending(words: np.ndarray) -> np.ndarray:
    """The scores that :func:`_descending` was given."""
    bits = words.astype(np.uint32)
    return np.where(bits >> np.uint32(31), bits, bits ^ np.uint32(0x7FFF_FFFF)).astype(np.uint32).view(np.float32)
