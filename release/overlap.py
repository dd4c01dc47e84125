"""What two nights have in common: users, items and the first ranks of lists, counted by DuckDB."""

from collections.abc import Sequence
from pathlib import Path

from release.query import Limits, query, query_rows


def compare_tops(now: Sequence[Path], before: Sequence[Path], *, top: int, limits: Limits) -> tuple[int, int]:
    """Count the rows of the first *top* ranks of users who are in both nights, and those that both nights have.

    Args:
        now: Tonight's verified score tables; shards of equal number and count hold the same users.
        before: The earlier ones; another count of shards is fine, but takes more memory or spill.
        top: Ranks looked at.
        limits: For DuckDB.
    """
    pairs = kept = 0
    for ours, theirs in cuts(now, before):
        found, same = query(
            """
            WITH a AS (SELECT user_id, item_id FROM ours WHERE rank <= $top),
                 b AS (SELECT user_id, item_id FROM theirs WHERE rank <= $top)
            SELECT (SELECT count(*) FROM a WHERE user_id IN (SELECT user_id FROM theirs WHERE rank = 1)),
                   (SELECT count(*) FROM a JOIN b USING (user_id, item_id))
            """,
            {"ours": ours, "theirs": theirs},
            {"top": top},
            limits,
        )
        pairs, kept = pairs + found, kept + same
    return pairs, kept


def compare_tops_by(
    column: str, users: Sequence[Path], now: Sequence[Path], before: Sequence[Path], *, top: int, limits: Limits
) -> dict[int, tuple[int, int]]:
    """Count as :func:`compare_tops` does, for each value of a *column* of *users*, tables cut as those of *now*."""
    total: dict[int, tuple[int, int]] = {}
    whole = len(cuts(now, before)) == 1
    for (ours, theirs), own in zip(cuts(now, before), [users] if whole else [[one] for one in users], strict=True):
        found = query_rows(
            f"""
            WITH a AS (SELECT user_id, item_id FROM ours WHERE rank <= $top),
                 b AS (SELECT user_id, item_id, 1 AS kept FROM theirs WHERE rank <= $top),
                 found AS (SELECT user_id, kept FROM a LEFT JOIN b USING (user_id, item_id)
                           WHERE user_id IN (SELECT user_id FROM theirs WHERE rank = 1))
            SELECT "{column}", count(*), count(kept) FROM found JOIN users USING (user_id) GROUP BY 1
            """,
            {"ours": ours, "theirs": theirs, "users": own},
            {"top": top},
            limits,
        )
        for value, pairs, kept in found:
            before_pairs, before_kept = total.get(value, (0, 0))
            total[value] = (before_pairs + pairs, before_kept + kept)
    return total


def count_repeated_users(histories: Sequence[Path], limits: Limits) -> int:
    """Count the rows of *histories* (verified tables) whose user is in another row too."""
    return query("SELECT count(*) - count(DISTINCT user_id) FROM users", {"users": histories}, {}, limits)[0]


def compare_histories(now: Sequence[Path], before: Sequence[Path], limits: Limits) -> tuple[int, int]:
    """Count the users who are in both nights' interest tables, and those whose history is shorter than it was."""
    both = shorter = 0
    for ours, theirs in cuts(now, before):
        found = query(
            """
            SELECT count(*), count(*) FILTER (a.history_length < b.history_length)
            FROM ours AS a JOIN theirs AS b USING (user_id)
            """,
            {"ours": ours, "theirs": theirs},
            {},
            limits,
        )
        both, shorter = both + found[0], shorter + found[1]
    return both, shorter


def count_gone(column: str, now: Sequence[Path], before: Sequence[Path], limits: Limits) -> int:
    """Count the ids in *column* of the tables of *before* that are in none of *now*.

    Only users are in the same shard every night; the ranges of the catalogue shift with what comes and goes.
    """
    gone = 0
    for ours, theirs in cuts(now, before) if column == "user_id" else [(now, before)]:
        sql = f'SELECT count(*) FROM theirs WHERE "{column}" NOT IN (SELECT "{column}" FROM ours)'
        (found,) = query(sql, {"ours": ours, "theirs": theirs}, {}, limits)
        gone += found
    return gone


def cuts(now: Sequence[Path], before: Sequence[Path]) -> list[tuple[Sequence[Path], Sequence[Path]]]:
    """Pair the shards by name where the cut is equal; else a shard's users are spread over all of the other night's."""
    if [path.name for path in now] == [path.name for path in before]:
        return [([ours], [theirs]) for ours, theirs in zip(now, before, strict=True)]
    return [(now, before)]
