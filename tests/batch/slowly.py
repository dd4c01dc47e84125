"""What retrieval does, said slowly, and ways to write and read lists of it."""

import numpy as np

from batch.merge import Candidates, Lists
from features.encode import NO_ITEM


def lists_of(values: list[list[int]]) -> Lists:
    flat = [row for rows in values for row in sorted(set(rows))]
    return Lists(np.array(flat, np.int64), np.array([len(set(rows)) for rows in values], np.int64))


def merge_slowly(rows: np.ndarray, scores: np.ndarray, seen: list[int], limit: int) -> list[tuple[int, float, int]]:
    """The same for one user, as one would say it: a dict of the best, sorted."""
    best: dict[int, tuple[float, int]] = {}
    for interest in range(rows.shape[0]):
        for item, score in zip(rows[interest].tolist(), scores[interest].tolist(), strict=True):
            if item != NO_ITEM and item not in seen and (item not in best or score > best[item][0]):
                best[item] = (score, interest)
    ordered = sorted(best.items(), key=lambda pair: (-pair[1][0], pair[0]))
    return [(item, score, interest) for item, (score, interest) in ordered[:limit]]


def listed(found: Candidates, user: int) -> list[tuple[int, float, int]]:
    there = found.rows[user] != NO_ITEM
    assert np.isneginf(found.scores[user][~there]).all()
    columns = (found.rows[user][there], found.scores[user][there], found.interests[user][there])
    return list(zip(*(column.tolist() for column in columns), strict=True))
