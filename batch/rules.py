"""From scored candidates to a user's list: best first, at most n of one group, filled up from what is popular."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from batch.merge import Lists
from features.encode import NO_ITEM


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the shop.

    Attributes:
        group: Name of a ``group_NAME`` column of the catalogue.
        at_most: How many items of one value of it a list may hold; items without a value are not limited.
    """

    group: str
    at_most: int


def order_by_score(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Order each user's candidates by descending score, ties ascending by row, ``NO_ITEM`` last.

    Args:
        rows: int64 [users, C].
        scores: float32 [users, C]; what stands beside ``NO_ITEM`` is ignored.

    Returns:
        Places int64 [users, C], for ``np.take_along_axis``.
    """
    by_row = np.argsort(rows, axis=1, kind="stable")
    descending = np.where(rows == NO_ITEM, np.float32(np.inf), -scores)
    by_score = np.argsort(np.take_along_axis(descending, by_row, axis=1), axis=1, kind="stable")
    return np.take_along_axis(by_row, by_score, axis=1)


def choose(wanted: np.ndarray, groups: Sequence[np.ndarray], at_most: Sequence[int], *, limit: int) -> np.ndarray:
    """Go through each user's candidates in order and keep what no rule forbids.

    A candidate is kept if, for each rule, fewer than ``at_most`` of its group were kept before it, and fewer than
    *limit* candidates in all. All users are looked at together, one place after the other.

    Args:
        wanted: bool [users, W]; false where there is no candidate.
        groups: For each rule, int [users, W], the number of the candidate's group; negative for none.
        at_most: For each rule, the most of one group.
        limit: The most in all.

    Returns:
        bool [users, W], which are kept.
    """
    if not groups:
        return np.asarray(wanted & (wanted.cumsum(axis=1) <= limit))
    users, width = wanted.shape
    everyone = np.arange(users)
    kept = np.zeros(wanted.shape, dtype=bool)
    total = np.zeros(users, dtype=np.int64)
    codes = [_codes(numbers) for numbers in groups]
    counts = [np.zeros(wanted.shape, dtype=np.int64) for _ in groups]
    for place in range(width):
        keep = wanted[:, place] & (total < limit)
        for numbers, code, count, most in zip(groups, codes, counts, at_most, strict=True):
            keep &= (numbers[:, place] < 0) | (count[everyone, code[:, place]] < most)
        kept[:, place] = keep
        total += keep
        for code, count in zip(codes, counts, strict=True):
            count[everyone, code[:, place]] += keep
        if (total >= limit).all():
            break
    return kept


def fill(chosen: np.ndarray, pool: np.ndarray, seen: Lists) -> tuple[np.ndarray, np.ndarray]:
    """Line up what may fill the lists of some users after what they have been given.

    Args:
        chosen: int64 [users, N], rows that are in the list already; ``NO_ITEM`` where there are fewer.
        pool: int64 [P], rows that may fill a list, the most popular first.
        seen: What each user must not get.

    Returns:
        Rows int64 [users, N + P], and bool, whether the row may be in the list.
    """
    users = len(chosen)
    rows = np.concatenate([chosen, np.broadcast_to(pool, (users, len(pool)))], axis=1)
    owners, places = np.nonzero(chosen != NO_ITEM)
    taken = chosen[owners, places]
    order = np.lexsort((taken, owners))
    given = Lists(taken[order], np.bincount(owners, minlength=users))
    asked = np.repeat(np.arange(users), len(pool)), np.tile(pool, users)
    free = ~(seen.have(*asked) | given.have(*asked)).reshape(users, len(pool))
    return rows, np.concatenate([chosen != NO_ITEM, free], axis=1)


def _codes(numbers: np.ndarray) -> np.ndarray:
    """Number the distinct values within each row from 0, so that counting takes no more than a row's width."""
    order = np.argsort(numbers, axis=1, kind="stable")
    ordered = np.take_along_axis(numbers, order, axis=1)
    dense = np.zeros(numbers.shape, dtype=np.int64)
    np.cumsum(ordered[:, 1:] != ordered[:, :-1], axis=1, out=dense[:, 1:])
    codes = np.empty_like(dense)
    np.put_along_axis(codes, order, dense, axis=1)
    return codes
