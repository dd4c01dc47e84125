"""Why a user is given an item, or not: the way of one user and one item through a finished night, by the night's code.

Everything is computed again for this user alone, which gives the night's own bits: a result depends on its row only.
"""

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artifacts.bundle import Bundle, Role
from artifacts.errors import CorruptError
from artifacts.lookup import batches_around
from artifacts.run import Run
from artifacts.tables import read_table, reading_table
from batch.clicks import Click, clicks_of
from batch.lists import Ordered, Part, ScoreOptions, Shop, fill_up, open_shop, order_candidates
from batch.retrieve import inner_products
from batch.session import open_session
from features.cross import match_seen
from features.encode import NO_ITEM, list_parts, user_inputs
from features.hashing import shard_of

_CHUNK = 65_536  # items whose scores are held at once


class Fate(StrEnum):
    """What became of an item for a user; each but the first two is a reason why it is not in the list."""

    RANKED = "ranked"  # in the list, by its score
    FALLBACK = "fallback"  # in the list, as a popular item that fills it
    NO_USER = "no_user"  # the night does not know the user
    NO_ITEM = "no_item"  # the night does not know the item
    EXCLUDED = "excluded"  # one of the two is taken out by the inputs, and so is not known
    REVISED = "revised"  # taken out of the release since
    NOT_ELIGIBLE = "not_eligible"
    NO_SIGNAL = "no_signal"  # the model knows neither its id nor any side feature: not indexed
    NO_VECTOR = "no_vector"  # its vector holds NaN, Inf or nothing but zeros: not indexed
    HAD = "had"  # the user has had it
    COLD = "cold"  # the user has no interests, and the item is not popular enough to fill the list
    MISSED = "missed"  # its score is that of a candidate, but the search did not find it
    TOO_FAR = "too_far"  # others are nearer to the user's interests: no candidate
    RULE = "rule"  # one of the shop's rules: enough of its group stand before it
    BELOW = "below"  # the list is full before its turn
    UNTOLD = "untold"  # not in the list, but what would tell why is not there: the ranker, or the run


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How near the item is to the user's interests.

    Attributes:
        interest: Number of the interest with the greatest inner product, which found it if anyone did.
        interests: How many interests the user has.
        exact: Their inner product, from the item's own vector, as the night scores candidates.
        popularity: How much of it the item's recent popularity is; None where it does not count.
        stored: What the index says, by what it stores of the vector.
        exact_rank: Its place by exact scores among all items that the user may get; None for one that they may not.
        rank: Its place among the candidates; None if it is none.
        candidates: How many candidates the user has.
        least: Score of the last of them; None if there is none.
        lists_nearer: How many of the index's lists lie nearer to the interest than the item's own.
        nprobe: How many lists a search looks into at first.
    """

    interest: int
    interests: int
    exact: float
    popularity: float | None
    stored: float
    exact_rank: int | None
    rank: int | None
    candidates: int
    least: float | None
    lists_nearer: int
    nprobe: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """The item among the user's candidates by score: its place from 1, and its score."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Listed:
    """The item's row in the user's list as it was written; all but the rank are None for a row that fills the list."""

    rank: int
    score: float | None
    retrieval_score: float | None
    interest: int | None


@dataclass(frozen=True, slots=True)
class Had:
    """How often the user has had the item, and how many seconds before the data date's end for the last time."""

    times: int
    seconds_ago: int


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that keeps the item out: at most so many of its group, and the items of it that stand before."""

    group: str
    at_most: int
    before: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Popularity:
    """Events of the last days, the item's place by them among indexed items, and that of the last one that fills."""

    events: int
    rank: int
    last_rank: int | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What became of an item for a user, and by what.

    Attributes:
        fate: Whether it is in the list, and if not, the first reason.
        title: Of the item, if the catalogue has one.
        history_length: How many behaviours the models were told of; None for an unknown user.
        listed: The item's row in the list.
        length: Rows of the list.
        last_score: Score of the list's last ranked row; None if there is none.
        had: What the user has had of it, kept out or not; None if never.
        retrieval: None for a cold user, or an item that is not indexed.
        ranking: None if it is no candidate, or the ranker is not there.
        broken: For ``Fate.RULE``.
        popularity: For a cold user, and for a row that fills a list.
        clicks: The user's history, newest first.
        same: Whether interests, to the bit, and list came out as the night wrote them; None where neither was made.
    """

    fate: Fate
    title: str | None = None
    history_length: int | None = None
    listed: Listed | None = None
    length: int = 0
    last_score: float | None = None
    had: Had | None = None
    retrieval: Retrieval | None = None
    ranking: Ranking | None = None
    broken: Broken | None = None
    popularity: Popularity | None = None
    clicks: tuple[Click, ...] = ()
    same: bool | None = None


@dataclass(frozen=True, slots=True)
class _User:
    """One row of each table of a shard."""

    histories: pa.RecordBatch
    interests: pa.RecordBatch
    seen: pa.RecordBatch
    scores: pa.Table

    @property
    def vectors(self) -> np.ndarray:
        """Active interests, float32 [k, d]."""
        lists = list_parts(self.interests.column("vectors"))[1]
        vectors: np.ndarray = lists.flatten().to_numpy().reshape(len(lists), lists.type.list_size)
        return vectors


def explain(
    run: Run,
    user_id: int | str,
    item_id: int | str,
    options: ScoreOptions,
    *,
    user_bundle: Bundle | None,
    ranker: Bundle | None,
) -> Explanation:
    """Follow an item through the night of a user, on this machine's processor.

    Args:
        run: Its steps up to ``score`` are done.
        user_id: Of the run's type of user ids.
        item_id: Of the run's type of item ids.
        options: What the run's lists were made with.
        user_bundle: The run's, verified; without it no routing weights are told.
        ranker: The run's, verified; without it no rank is told of a candidate that is not in the list.

    Raises:
        StaleRunError: If a step is not finished.
        CorruptError: If a file is changed.
    """
    catalogue = read_table(run.layout.catalogue)
    row = pc.index(catalogue["item_id"], pa.scalar(item_id, run.item_type)).as_py()
    told = Explanation(Fate.NO_ITEM, title=catalogue["title"][row].as_py() if row >= 0 else None)
    user = _find_user(run, user_id)
    if user is None:
        return replace(told, fate=Fate.NO_ITEM if row < 0 else Fate.NO_USER)
    shop = open_shop(run, options, ranker, "cpu")
    clicks, same = clicks_of(user.histories, user.seen, user.vectors, catalogue, user_bundle, run.profile)
    told = replace(
        told,
        history_length=user.histories.column("history_length")[0].as_py(),
        listed=listed_in(user.scores, pa.scalar(item_id, run.item_type)),
        length=len(user.scores),
        last_score=pc.min(user.scores["score"]).as_py(),
        clicks=clicks,
        same=same,
    )
    if row < 0:
        return told
    told = replace(told, had=_had(user, row))
    place = int(shop.index_rows[row])
    if place == NO_ITEM:
        return replace(told, fate=_why_not_indexed(catalogue, row))
    return _follow(run, shop, ranker, user, place, told)


def _find_user(run: Run, user_id: int | str) -> _User | None:
    layout, wanted = run.layout, pa.scalar(user_id, run.user_type)
    shard = int(shard_of(pa.array([user_id], run.user_type), run.shards)[0])
    place: tuple[int, int] | None = None
    with reading_table(layout.histories(shard, run.shards)) as reader:
        for number, batch in batches_around(reader, "user_id", wanted):
            if (row := pc.index(batch["user_id"], wanted).as_py()) >= 0:
                place, histories = (number, row), batch.slice(row, 1)
    if place is None:
        return None
    interests, seen = (
        _row(path, place, wanted) for path in (layout.interests(shard, run.shards), layout.seen(shard, run.shards))
    )
    with reading_table(layout.scores(shard, run.shards)) as reader:
        batches = [
            batch.filter(pc.equal(batch["user_id"], wanted)) for _, batch in batches_around(reader, "user_id", wanted)
        ]
        return _User(histories, interests, seen, pa.Table.from_batches(batches, reader.schema))


def _row(path: Path, place: tuple[int, int], wanted: pa.Scalar) -> pa.RecordBatch:
    """Take the row that stands where the user stands in the histories: the tables of a shard go row by row."""
    with reading_table(path) as reader:
        row = reader.get_batch(place[0]).slice(place[1], 1)
    if row["user_id"][0] != wanted:
        raise CorruptError(f"{path}: expected the users of prepare/histories, in its order; run `prepare` anew")
    return row


def listed_in(scores: pa.Table, item: pa.Scalar) -> Listed | None:
    """Find an item in one user's rows of ``schemas.scores``."""
    place = pc.index(scores["item_id"], item).as_py()
    return Listed(*(scores[field.name][place].as_py() for field in fields(Listed))) if place >= 0 else None


def _had(user: _User, row: int) -> Had | None:
    lists = (user.seen.column(name) for name in ("items", "times", "last_gap"))
    times, gap = match_seen(np.array([[row]]), *lists)
    return Had(int(times[0, 0]), int(gap[0, 0])) if times[0, 0] else None


def _why_not_indexed(catalogue: pa.Table, row: int) -> Fate:
    for column, fate in (("eligible", Fate.NOT_ELIGIBLE), ("signal", Fate.NO_SIGNAL)):
        if not catalogue[column][row].as_py():
            return fate
    return Fate.NO_VECTOR


def _follow(run: Run, shop: Shop, ranker: Bundle | None, user: _User, row: int, told: Explanation) -> Explanation:
    """Follow index row *row* from the search to the list."""
    session, inputs = None, {}
    if ranker is not None:
        session = open_session(ranker, rows=run.profile["batch_lists"], threads=1)
        inputs = dict(user_inputs(user.histories, ranker.spec, Role.RANKER, session.rows))
    ordered = order_candidates(shop, session, Part(user.interests, user.seen, inputs))
    filled = fill_up(shop, ordered)[1]
    places = np.flatnonzero(ordered.rows[0] == row)
    alike = False
    if ranker is not None or str(Role.RANKER) not in run.bundles:
        made = np.concatenate([ordered.rows[0][ordered.kept[0]], filled])
        alike = shop.item_ids.take(pa.array(shop.index.items[made])).equals(user.scores["item_id"].combine_chunks())
        told = replace(told, same=alike and told.same is not False)
        if len(places):
            told = replace(told, ranking=Ranking(int(places[0]) + 1, float(ordered.scores[0, places[0]])))
    if len(user.vectors):
        told = replace(told, retrieval=_retrieval(shop, shop.index.queries(user.vectors), ordered, row))
    if not len(user.vectors) or (told.listed and told.listed.score is None):
        told = replace(told, popularity=_popularity(shop, filled, row))
    if told.listed:
        return replace(told, fate=Fate.FALLBACK if told.listed.score is None else Fate.RANKED)
    return _why_not_listed(shop, ordered, filled, row, told, alike=alike)


def _why_not_listed(
    shop: Shop, ordered: Ordered, filled: np.ndarray, row: int, told: Explanation, *, alike: bool
) -> Explanation:
    """Find the first reason; those after the search hold if the list comes out *alike*, item for item."""
    if ordered.seen.have(np.array([0]), np.array([row]))[0]:
        return replace(told, fate=Fate.HAD)
    if told.retrieval is None:
        before = filled[[_popularity_rank(shop, other) < _popularity_rank(shop, row) for other in filled]]
        broken = _broken(shop, before, row) if len(before) < shop.options.top_n else None
        return replace(told, fate=Fate.RULE if broken else Fate.COLD, broken=broken)
    if told.retrieval.rank is None:
        near = told.retrieval.exact_rank is not None and told.retrieval.exact_rank <= shop.options.candidates
        return replace(told, fate=Fate.MISSED if near else Fate.TOO_FAR)
    if told.ranking is None or not alike:
        return replace(told, fate=Fate.UNTOLD)
    place = told.ranking.rank - 1
    before = ordered.rows[0, :place][ordered.kept[0, :place]]
    broken = _broken(shop, before, row) if len(before) < shop.options.top_n else None
    return replace(told, fate=Fate.RULE if broken else Fate.BELOW, broken=broken)


def _broken(shop: Shop, before: np.ndarray, row: int) -> Broken | None:
    """Find the rule that forbids *row* after the rows *before* it."""
    for rule, groups in zip(shop.options.rules, shop.groups, strict=True):
        alike = before[groups[before] == groups[row]]
        if groups[row] >= 0 and len(alike) >= rule.at_most:
            ids = shop.item_ids.take(pa.array(shop.index.items[alike])).to_pylist()
            return Broken(rule.group, rule.at_most, tuple(ids))
    return None


def _popularity_rank(shop: Shop, row: int) -> int:
    events = shop.events
    return 1 + int((events > events[row]).sum() + (events[:row] == events[row]).sum())


def _popularity(shop: Shop, filled: np.ndarray, row: int) -> Popularity:
    last = max((_popularity_rank(shop, other) for other in filled), default=None)
    return Popularity(int(shop.events[row]), _popularity_rank(shop, row), last)


def _retrieval(shop: Shop, queries: np.ndarray, ordered: Ordered, row: int) -> Retrieval:
    index, found, append = shop.index, ordered.found, shop.index.append
    scores = inner_products(queries, index.vectors[row])
    interest = int(scores.argmax())
    exact = scores[interest]
    query = np.ascontiguousarray(queries[interest : interest + 1])
    places, there = np.flatnonzero(found.rows[0] == row), found.rows[0] != NO_ITEM
    if len(places):
        interest = int(found.interests[0, places[0]])
    may = not ordered.seen.have(np.array([0]), np.array([row]))[0]
    return Retrieval(
        interest=interest,
        interests=len(queries),
        exact=float(exact),
        popularity=float(inner_products(append, index.vectors[row, -len(append) :])) if len(append) else None,
        stored=_stored_score(index.ivf, query, row),
        exact_rank=_exact_rank(shop, queries, ordered, row, exact) if may else None,
        rank=int(places[0]) + 1 if len(places) else None,
        candidates=int(there.sum()),
        least=float(found.scores[0][there][-1]) if there.any() else None,
        lists_nearer=_lists_nearer(index.ivf, query, row),
        nprobe=index.nprobe,
    )


def _exact_rank(shop: Shop, queries: np.ndarray, ordered: Ordered, row: int, exact: np.float32) -> int:
    """Count the items that the user may get and whose best inner products come before *row*'s, and one."""
    items, better = len(shop.index.items), 0
    allowed = np.ones(items, dtype=bool)
    allowed[ordered.seen.rows] = False
    for start in range(0, items, _CHUNK):
        part = shop.index.vectors[start : start + _CHUNK]
        best = np.max([inner_products(part, query) for query in queries], axis=0)
        numbers = start + np.arange(len(part))
        first = (best > exact) | ((best == exact) & (numbers < row))
        better += int((first & allowed[start : start + _CHUNK]).sum())
    return better + 1


def _stored_score(ivf: Any, query: np.ndarray, row: int) -> float:
    """Ask the index for its own score of one row, whichever of its lists that is in."""
    chosen = faiss.IDSelectorBatch(np.array([row]))  # held here: FAISS keeps a bare pointer to it
    parameters = faiss.SearchParametersIVF()
    parameters.nprobe, parameters.sel = ivf.nlist, chosen
    scores, _ = ivf.search(query, 1, params=parameters)
    return float(scores[0, 0])


def _lists_nearer(ivf: Any, query: np.ndarray, row: int) -> int:
    ivf.make_direct_map()
    own = ivf.direct_map.get(row) >> 32
    order = ivf.quantizer.search(query, ivf.nlist)[1][0]
    return int(np.flatnonzero(order == own)[0])
