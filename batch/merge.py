"""Merging what the interests of a user found: each item once, nothing that was seen, the best first."""

from dataclasses import dataclass

import numpy as np

from artifacts.contract import MOST_INTERESTS
from artifacts.errors import UsageError
from features.encode import NO_ITEM

_MISSING, _LOW, _WORD = np.uint64(0xFFFF_FFFF_FFFF_FFFF), np.uint64(0xFFFF_FFFF), np.uint64(32)
_QUICKLY = 256  # so many 64-bit words are sorted without leaving the registers


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

    Ties go to the interest with the lower number, and between items to the lower row. The ends of the lists are looked
    at for those users alone whose candidates are not all better than what may stand there.

    Args:
        rows: int64 [users, interests, n], index rows; ``NO_ITEM`` where an interest found fewer.
        scores: float32 [users, interests, n], descending in each row.
        seen: What each user must not get.
        limit: C, how many to keep for a user at the most.
    """
    near = limit + limit // 4
    merged = _merge(rows[:, :, :near], scores[:, :, :near], seen, limit)
    if rows.shape[2] > near:
        goes_on = (rows[:, :, near] != NO_ITEM).any(axis=1)
        unsure = goes_on & ~(merged.scores[:, -1] > scores[:, :, near].max(axis=1))
        if unsure.any():
            merged.put(unsure, _merge(rows[unsure], scores[unsure], seen.of(unsure), limit))
    return merged


def _merge(rows: np.ndarray, scores: np.ndarray, seen: Lists, limit: int) -> Candidates:
    """Do the work of :func:`merge_interests` on lists in any order."""
    users, interests, found = rows.shape
    bits = _bits_of(interests)
    keys = np.left_shift(rows.view(np.uint64), _WORD + bits, order="C")  # of NO_ITEM all bits: last when sorted
    keys |= _descending(scores).astype(np.uint64) << bits
    keys |= np.arange(interests, dtype=np.uint64)[:, None]
    keys = keys.reshape(users, interests * found)
    keys.sort(axis=1)  # by item, the best score first
    items = keys >> (_WORD + bits)
    wanted = items != _MISSING >> (_WORD + bits)
    wanted[:, 1:] &= items[:, 1:] != items[:, :-1]
    counts, places = np.count_nonzero(wanted, axis=1), np.flatnonzero(wanted)
    owners = np.repeat(np.arange(users), counts)
    keys, items = keys.take(places), items.take(places)
    had = _places_of(owners.view(np.uint64) << _WORD | items, seen)
    keys = (keys >> bits) << _WORD | items << bits | keys & _mask(bits)
    had_keys, owners = keys[had], owners[had]
    keys[had] = _MISSING
    best = _first(_rows_of(keys, counts), limit)
    dropped = np.bincount(owners[had_keys < best[owners, -1]], minlength=users)
    return _candidates(best, bits, dropped)


def _places_of(found: np.ndarray, seen: Lists) -> np.ndarray:
    """Say where what is *seen* stands in *found*, uint64 [n], users and items, ascending.

    Each thing seen is looked up among those found: of a user these are many more, and both ascend.
    """
    owners = np.arange(len(seen.counts), dtype=np.uint64)
    asked = np.repeat(owners, seen.counts) << _WORD | seen.rows.view(np.uint64)
    places = np.searchsorted(found, asked)
    return np.asarray(places[np.append(found, _MISSING)[places] == asked])


def _rows_of(keys: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Lay the *keys* of one user after the other in rows, uint64 [users, most], ``_MISSING`` behind them."""
    rows = np.full((len(counts), counts.max(initial=0)), _MISSING)
    rows[np.arange(rows.shape[1]) < counts[:, None]] = keys
    return rows


def in_order(
    rows: np.ndarray, scores: np.ndarray, interests: np.ndarray, dropped: np.ndarray, *, limit: int
) -> Candidates:
    """Put what was found for each user, no item twice, in order of score, then row, and keep the first *limit*.

    Args:
        rows: int64 [users, n], index rows; ``NO_ITEM`` where there are fewer.
        scores: float32 [users, n].
        interests: uint8 [users, n], or what becomes that by broadcasting.
        dropped: As in :class:`Candidates`.
        limit: How many to keep.
    """
    bits = _bits_of(int(interests.max(initial=0)) + 1)
    keys = _descending(scores).astype(np.uint64) << _WORD | rows.view(np.uint64) << bits | interests
    return _candidates(_first(np.where(rows == NO_ITEM, _MISSING, keys), limit), bits, dropped)


def _first(keys: np.ndarray, limit: int) -> np.ndarray:
    """Give the *limit* least keys of each row in order, ``_MISSING`` where there are fewer: uint64 [rows, limit]."""
    if keys.shape[1] > max(2 * limit, _QUICKLY):
        words = (keys >> _WORD).astype(np.uint32)  # sorted several times as fast as whole keys
        near = words <= np.sort(words, axis=1)[:, limit - 1 : limit]
        keys = _rows_of(keys.take(np.flatnonzero(near)), np.count_nonzero(near, axis=1))
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
    bits = np.add(scores, np.float32(0), order="C").view(np.int32)
    return np.asarray(bits ^ (~(bits >> 31) & 0x7FFF_FFFF)).view(np.uint32)


def _ascending(words: np.ndarray) -> np.ndarray:
    """The scores that :func:`_descending` was given."""
    bits = words.astype(np.uint32).view(np.int32)
    return np.asarray(bits ^ (~(bits >> 31) & 0x7FFF_FFFF)).view(np.float32)
