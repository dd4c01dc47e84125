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
_AT_ONCE = 1024  # pairs of vectors; with more, the two copies leave the cache
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
    """

    ivf: Any
    items: np.ndarray
    vectors: np.ndarray
    nprobe: int
    threads: int
    most: int = _NEVER
    append: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))

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
        dropped: int64 [users], how many of the items that were found the user has had.
    """

    rows: np.ndarray
    scores: np.ndarray
    interests: np.ndarray
    dropped: np.ndarray


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
    faiss.omp_set_num_threads(index.threads)  # OpenMP keeps this for each calling thread
    faiss.cvar.distance_compute_blas_threshold = _NEVER
    parameters = faiss.SearchParametersIVF()
    parameters.nprobe = nprobe
    with stage("search"):
        scores, rows = index.ivf.search(queries, k, params=parameters)
    return rows, scores


def inner_products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Compute inner products over the last axis, each by a call of BLAS of its own: a row's bits depend on it alone.

    ``np.einsum`` and products of matrices choose the order of their sums by the shape of the whole.

    Args:
        left: float32 [..., d].
        right: float32 [..., d].
    """
    with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what is not finite
        return np.asarray(np.vecdot(np.ascontiguousarray(left), np.ascontiguousarray(right)))


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
    """Merge what the interests of each user found; what the user has had is left out.

    An item that several interests found counts once, with its best score and the interest that found it so (the
    first of those that tie).

    Args:
        rows: int64 [users, K, k], index rows; ``NO_ITEM`` (FAISS too says -1) where there was none.
        scores: float32 [users, K, k].
        seen: What each user has had.
        limit: C, how many to keep for a user at the most.
    """
    users, interests, _ = rows.shape
    bits = _bits_of(interests)
    keys = rows.view(np.uint64) << (_WORD + bits)  # of NO_ITEM all bits: last when sorted
    keys |= _descending(scores) << bits
    keys |= np.arange(interests, dtype=np.uint64)[:, None]
    keys = keys.reshape(users, -1)
    keys.sort(axis=1)  # by item, the best score first
    items = keys >> (_WORD + bits)
    wanted = items != _MISSING >> (_WORD + bits)
    wanted[:, 1:] &= items[:, 1:] != items[:, :-1]
    dropped = _drop(items, wanted, seen)
    keys = np.where(wanted, (keys >> bits) << _WORD | items << bits | keys & _mask(bits), _MISSING)
    return _best(keys, bits, limit, dropped)


def _drop(items: np.ndarray, wanted: np.ndarray, seen: Lists) -> np.ndarray:
    """Make what is *seen* no longer *wanted*, at its first place in *items*, uint64 [users, n], which ascend.

    Gives int64 [users], of how many items that was. Each thing seen is looked up among those found: of a user these
    are many more, and both ascend.
    """
    owners = np.arange(len(items), dtype=np.uint64)
    keys = (owners[:, None] << _WORD | items).ravel()
    asked = np.repeat(owners, seen.counts) << _WORD | seen.rows.view(np.uint64)
    places = np.searchsorted(keys, asked)
    places = places[keys[np.minimum(places, len(keys) - 1)] == asked]
    wanted.ravel()[places] = False
    return np.bincount(places // items.shape[1], minlength=len(items))


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
        for name in Candidates.__slots__:
            getattr(found, name)[narrow] = getattr(again, name)
    return _score_again(index, vectors, counts, found)


def _search_and_merge(
    index: Index, vectors: np.ndarray, counts: np.ndarray, seen: Lists, *, limit: int, k: int, nprobe: int
) -> tuple[Candidates, np.ndarray]:
    """Give candidates, and for each user the score that no item exceeds which the search did not show, float32."""
    active = np.arange(counts.max(initial=1)) < counts[:, None]
    rows = np.full((*active.shape, k), NO_ITEM)
    scores = np.full(rows.shape, np.finfo(np.float32).min)  # as FAISS says where the lists had fewer
    rows[active], scores[active] = search(index, vectors, k=k, nprobe=nprobe)
    return merge_interests(rows, scores, seen, limit=limit), scores[:, :, -1].max(axis=1)


def _score_again(index: Index, vectors: np.ndarray, counts: np.ndarray, found: Candidates) -> Candidates:
    """Compute the scores from the vectors themselves: FAISS's depend on what it stores and on its own sums."""
    there = found.rows != NO_ITEM
    starts = np.cumsum(counts) - counts
    asked = (starts[:, None] + found.interests)[there]
    scores = _scores_of(vectors, asked, index.vectors, found.rows[there])
    bits = _bits_of(int(counts.max(initial=1)))
    keys = np.full(found.rows.shape, _MISSING)
    rows, interests = found.rows[there].astype(np.uint64), found.interests[there].astype(np.uint64)
    keys[there] = _descending(scores) << _WORD | rows << bits | interests
    return _best(keys, bits, found.rows.shape[1], found.dropped)


def _scores_of(vectors: np.ndarray, asked: np.ndarray, items: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Compute the inner products of ``vectors[asked]`` and ``items[rows]``, so many at once as a cache holds."""
    parts = [slice(start, start + _AT_ONCE) for start in range(0, len(rows), _AT_ONCE)]
    some = [inner_products(vectors.take(asked[part], axis=0), items.take(rows[part], axis=0)) for part in parts]
    return np.concatenate([np.empty(0, np.float32), *some])


def _best(keys: np.ndarray, bits: np.uint64, limit: int, dropped: np.ndarray) -> Candidates:
    """Read the first *limit* keys of score, item and interest of each row, in order."""
    if limit < keys.shape[1]:
        keys = np.partition(keys, limit, axis=1)[:, :limit]
    keys.sort(axis=1)
    if (lacking := limit - keys.shape[1]) > 0:
        keys = np.pad(keys, ((0, 0), (0, lacking)), constant_values=_MISSING)
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
