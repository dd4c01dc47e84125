"""Comparing two stored releases: what came, what went, what moved, and what they were made with."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from artifacts.documents import read_json
from artifacts.errors import CorruptError
from artifacts.release import read_record, verify_record_file
from artifacts.store import STAGING_PREFIX
from release.changes import other_ids, score_bins, score_psi
from release.content import Content, batches_of, content_of_release
from release.figures import score_edges
from release.measure import count_cold
from release.overlap import compare_tops, count_gone, cuts
from release.pointer import Release, find_release
from release.query import Limits, query, query_any

_MICRO = 1_000_000  # distances and shifts are added up as whole millionths: their sum has one value in any order
_NOT_PARAMETERS = {"format", "metadata", "counts", "curve"}  # of ``index.json``


@dataclass(frozen=True, slots=True)
class Count:
    """How many of something there are; ``came`` and ``went`` are None where ids are not compared.

    Attributes:
        before: In the first release.
        after: In the second.
        came: Those that only the second has.
        went: Those that only the first has.
    """

    before: int
    after: int
    came: int | None = None
    went: int | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """How far what both releases have is apart.

    Attributes:
        common: How many both have.
        moved: Those that differ.
        mean: Mean distance of all, to a millionth.
        largest: Largest distance, to a millionth.
        why: Why there is nothing to compare; ``""`` if there is.
    """

    common: int = 0
    moved: int = 0
    mean: float | None = None
    largest: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Mover:
    """An item, and in how many lists it was in the first release and is in the second."""

    item_id: int | str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Two releases side by side.

    Attributes:
        before: The first.
        after: The second.
        counts: Of users, cold users, recommendations, items and indexed items.
        top: The k of churn@k.
        churn: Share of the first k of each common user's list that changed; None where there is no common user.
        score_psi: Stability index of the two distributions of scores; None where it is not measured.
        scores: Scores of the recommendations that both have.
        item_vectors: Vectors of the items that both have; distances are Euclidean.
        user_vectors: Interest vectors of the users that both have; only whether they differ.
        movers: The items whose number of lists changed most, those first, ties by id; *top* of them at most.
        parameters: What they were made with, where it differs: key to both values, None for a key that is missing.
        notes: Why something was not measured.
    """

    before: str
    after: str
    counts: dict[str, Count]
    top: int
    churn: float | None
    score_psi: float | None
    scores: Moved
    item_vectors: Moved
    user_vectors: Moved
    movers: tuple[Mover, ...]
    parameters: dict[str, tuple[Any, Any]]
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """What goes into JSON."""
        return asdict(self)


def diff(root: Path, before: str, after: str, *, top: int = 10, memory: str = "1GB", threads: int = 0) -> Difference:
    """Compare two stored releases, shard by shard; what does not fit into *memory* goes to disk.

    Args:
        root: The surface's root.
        before: The first release.
        after: The second.
        top: How many ranks churn looks at, and how many items are named that moved.
        memory: What DuckDB may hold, such as ``"1GB"``.
        threads: Of DuckDB; 0 is all.

    Raises:
        UsageError: If there is no such release.
        CorruptError: If a table of one of them is missing or changed.
        NightrecError: If the memory does not do.
    """
    releases = [find_release(root, version) for version in (before, after)]
    old, new = (content_of_release(release.layout, release.manifest) for release in releases)
    why = other_ids(new, old)
    with tempfile.TemporaryDirectory(dir=root, prefix=STAGING_PREFIX) as spill:
        limits = Limits(memory, threads, Path(spill))
        churn = None if why else _churn(new, old, top, limits)
        psi = score_psi(score_bins(new), score_bins(old)) if list(score_edges(new)) == list(score_edges(old)) else None
        moved = {
            "scores": Moved(why=why) if why else _scores(new, old, limits),
            "item_vectors": Moved(why=why) if why else _item_vectors(new, old, limits),
            "user_vectors": Moved(why=why) if why else _user_vectors(new, old, limits),
        }
        counts = _counts(new, old, limits, ids=not why)
        movers = () if why else _movers(new, old, top, limits)
    unmeasured = {
        "churn": why or ("no user is in both" if churn is None else ""),
        "score_psi": (psi.why if psi else "one has a ranker, the other has not"),
        **{name: one.why for name, one in moved.items()},
    }
    return Difference(
        before=releases[0].version,
        after=releases[1].version,
        counts=counts,
        top=top,
        churn=churn,
        score_psi=psi.value if psi else None,
        **moved,
        movers=movers,
        parameters=dict(differing(_made_with(releases[0], old), _made_with(releases[1], new))),
        notes=tuple(f"{name}: {reason}" for name, reason in unmeasured.items() if reason),
    )


def _counts(new: Content, old: Content, limits: Limits, *, ids: bool) -> dict[str, Count]:
    users = [count_cold(content.interests) for content in (old, new)]
    paths = {
        "users": ("user_id", old.interests, new.interests),
        "items": ("item_id", old.items, new.items),
        "indexed": ("item_id", (old.index_items,), (new.index_items,)),
    }
    counts = {}
    for name, (column, one, other) in paths.items():
        came = count_gone(column, one, other, limits) if ids else None
        went = count_gone(column, other, one, limits) if ids else None
        counts[name] = Count(_rows(one, column), _rows(other, column), came, went)
    counts["cold users"] = Count(users[0][1], users[1][1])
    counts["recommendations"] = Count(_rows(old.scores, "user_id"), _rows(new.scores, "user_id"))
    return counts


def _rows(paths: Sequence[Path], column: str) -> int:
    return sum(batch.num_rows for batch in batches_of(paths, [column]))


def _churn(new: Content, old: Content, top: int, limits: Limits) -> float | None:
    pairs, kept = compare_tops(new.scores, old.scores, top=top, limits=limits)
    return 1 - kept / pairs if pairs else None


def _scores(new: Content, old: Content, limits: Limits) -> Moved:
    """Compare the scores of the rows that both have, by user and item; a row without a score is a fallback."""
    return _moved(
        "SELECT a.score IS DISTINCT FROM b.score AS moved, abs(a.score::DOUBLE - b.score::DOUBLE) AS far "
        "FROM ours a JOIN theirs b USING (user_id, item_id)",
        cuts(new.scores, old.scores),
        limits,
    )


def _item_vectors(new: Content, old: Content, limits: Limits) -> Moved:
    widths = [_width(content) for content in (old, new)]
    if widths[0] != widths[1]:
        return Moved(why=f"they were {widths[0]} numbers wide and are {widths[1]} now")
    return _moved(
        "SELECT a.vector IS DISTINCT FROM b.vector AS moved, array_distance(a.vector, b.vector)::DOUBLE AS far "
        "FROM ours a JOIN theirs b USING (item_id)",
        [(new.items, old.items)],
        limits,
    )


def _movers(new: Content, old: Content, top: int, limits: Limits) -> tuple[Mover, ...]:
    sql = """
        WITH one AS (SELECT item_id, count(*) AS lists FROM theirs GROUP BY item_id),
             other AS (SELECT item_id, count(*) AS lists FROM ours GROUP BY item_id),
             paired AS (SELECT item_id, coalesce(one.lists, 0) AS was, coalesce(other.lists, 0) AS is_now
                        FROM one FULL JOIN other USING (item_id))
        SELECT item_id, was, is_now FROM paired WHERE was <> is_now ORDER BY abs(is_now - was) DESC, item_id LIMIT $top
    """
    rows = query_any(sql, {"ours": new.scores, "theirs": old.scores}, {"top": top}, limits)
    return tuple(Mover(*row) for row in rows)


def _width(content: Content) -> int:
    for batch in batches_of(content.items, ["vector"]):
        return int(batch.column(0).type.list_size)
    raise CorruptError(f"{content.index_parameters.parent.parent}: expected tables of item vectors, found none")


def _user_vectors(new: Content, old: Content, limits: Limits) -> Moved:
    return _moved(
        "SELECT a.vectors IS DISTINCT FROM b.vectors AS moved, NULL::DOUBLE AS far "
        "FROM ours a JOIN theirs b USING (user_id)",
        cuts(new.interests, old.interests),
        limits,
    )


def _moved(pairs: str, groups: Sequence[tuple[Sequence[Path], Sequence[Path]]], limits: Limits) -> Moved:
    """Add up the rows that *pairs*, an SQL query, gives for each group: whether they moved, and how far."""
    common = moved = measured = total = largest = 0
    sql = f"""
        WITH pairs AS ({pairs}),
             apart AS (SELECT moved, CASE WHEN isfinite(far) THEN round(far * $micro)::HUGEINT END AS far FROM pairs)
        SELECT count(*), count(*) FILTER (WHERE moved), count(far), sum(far), max(far) FROM apart
    """
    for ours, theirs in groups:
        found = query(sql, {"ours": ours, "theirs": theirs}, {"micro": _MICRO}, limits)
        common, moved, measured, total = (a + b for a, b in zip((common, moved, measured, total), found, strict=False))
        largest = max(largest, found[4])
    if not measured:
        return Moved(common, moved, why="" if common else "nothing is in both")
    return Moved(common, moved, total / measured / _MICRO, largest / _MICRO)


def _made_with(release: Release, content: Content) -> dict[str, Any]:
    return made_with(content.parameters, release.manifest.bundles, semantic_of(release))


def semantic_of(release: Release) -> dict[str, Any] | None:
    """Give the config of a release as far as content depends on it; None where its record does not say."""
    record = release.layout.record
    if record.run.name not in read_record(record):
        return None
    semantic: dict[str, Any] | None = read_json(verify_record_file(record, record.run)).get("semantic")
    return semantic


def made_with(
    parameters: Mapping[str, Any], bundles: Mapping[str, Any], semantic: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Give what a night was made with, flat: its index, its bundles, its config as far as content depends on it.

    Args:
        parameters: What ``index.json`` says.
        bundles: Role to ids.
        semantic: The config; None where it is not known.
    """
    said: dict[str, Any] = {
        "index": {key: value for key, value in parameters.items() if key not in _NOT_PARAMETERS},
        "bundles": bundles,
    }
    return dict(_flat(said | ({"config": semantic} if semantic is not None else {})))


def _flat(said: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in said.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield the keys whose values differ, in order, with both values; None where a key is not there."""
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield key, (old.get(key), new.get(key))
