"""An index of an open type: what fits the memory is tried, and of what meets the recall the cheapest is kept."""

from dataclasses import replace

import faiss
import numpy as np
import pytest

from artifacts.errors import UsageError
from batch.choose import RESCORED, WORK, Tried, choose_index, told, types_that_fit
from batch.ivf import IndexOptions, bytes_of, train
from batch.nprobe import halves_of
from batch.retrieve import Index, search
from features.encode import NO_ITEM

ITEMS, WIDTH = 12_000, 8
AUTO = IndexOptions(type="auto", recall_k=10, recall_target=0.9)


def drawn(rows: int, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((60, WIDTH)) * 2
    return (centres[rng.integers(0, 60, rows)] + rng.standard_normal((rows, WIDTH))).astype(np.float32)


def chosen_of(options: IndexOptions, items: np.ndarray, users: np.ndarray) -> tuple[Index, IndexOptions, dict]:
    def make(exact: IndexOptions) -> Index:
        ivf = train(items, exact, threads=1)
        return Index(ivf, np.arange(len(items), dtype=np.int32), items, 1, 1)

    return choose_index(make, items, halves_of(items, users, np.ones(len(users), np.int64), k=10), options)


def test_of_what_meets_the_recall_the_cheapest_is_kept() -> None:
    """Three numbers of lists are tried, then the other types; a cost is counted in vectors, as a slow count has it."""
    items, users = drawn(ITEMS), drawn(200, seed=1)
    index, exact, said = chosen_of(AUTO, items, users)

    tried = [Tried(**one) for one in said["tried"]]
    assert [(one.type, one.lists) for one in tried[:3]] == [("Flat", 187), ("Flat", 93), ("Flat", 307)]
    assert [one.type for one in tried[3:]] == sorted((one.type for one in tried[3:]), reverse=True)  # SQ8, then PQ
    best = min((one for one in tried if one.meets), key=lambda one: one.cost)
    assert (exact.type, exact.lists, said["nprobe"]) == (best.type, best.lists, best.nprobe)
    assert (index.ivf.nlist, index.refine, said["refine"]) == (best.lists, best.refine, best.refine)
    least = min(tried[:3], key=lambda one: (not one.meets, one.cost))
    assert {one.lists for one in tried[3:]} == {least.lists}
    for later, one in enumerate(tried[3:], 3):  # none is looked into further than what was the best by then
        assert one.cost < min(before.cost for before in tried[:later] if before.meets)

    centroids = index.ivf.quantizer.reconstruct_n(0, index.ivf.nlist).astype(np.float64)
    sizes = np.array([index.ivf.invlists.list_size(number) for number in range(index.ivf.nlist)])
    nearest = np.argsort(-(users[::2].astype(np.float64) @ centroids.T), axis=1)[:, : said["nprobe"]]
    again = RESCORED * 10 * best.refine if best.refine > 1 else 0
    expected = exact.lists + WORK[exact.type] * sizes[nearest].sum(axis=1).mean() + again
    assert best.cost == pytest.approx(expected, abs=0.06)


def test_what_does_not_fit_the_memory_is_not_tried() -> None:
    """12,000 items of 8 numbers: 480,000 bytes and lists as Flat, 192,000 as SQ8, 120,000 as PQ with 8,192 of codes."""
    users = drawn(100, seed=1)
    for memory, types in ((0, ["Flat", "SQ8", "PQ"]), (490_000, ["Flat", "SQ8", "PQ"]), (480_000, ["SQ8", "PQ"])):
        assert types_that_fit(replace(AUTO, memory=memory), ITEMS, WIDTH) == types
    _, exact, said = chosen_of(replace(AUTO, memory=150_000), drawn(ITEMS), users)
    assert (exact.type, said["memory"]) == ("PQ", 150_000)
    assert said["refine"] in {2, 8}
    assert {one["type"] for one in said["tried"]} == {"PQ"}
    assert all(one["memory"] <= 150_000 for one in said["tried"])

    with pytest.raises(UsageError, match=r"memory: 12,000 items take 131,168 bytes as PQ, and 100,000 are allowed"):
        types_that_fit(replace(AUTO, memory=100_000), ITEMS, WIDTH)
    assert types_that_fit(AUTO, 9_983, WIDTH) == ["Flat", "SQ8"]  # PQ needs 39 items for each of 256 codes


@pytest.mark.parametrize("kind", ["Flat", "SQ8", "PQ"])
def test_the_memory_of_an_index_is_known_before_it_is_built(kind: str) -> None:
    """What is said beforehand is within two parts in a hundred of the bytes that FAISS writes."""
    ivf = train(drawn(ITEMS), IndexOptions(type=kind, lists=50), threads=1)

    assert bytes_of(kind, items=ITEMS, width=WIDTH, lists=50) == pytest.approx(
        len(faiss.serialize_index(ivf)), rel=0.02
    )


def test_where_none_meets_the_recall_the_greatest_is_kept_and_said() -> None:
    """Product codes lose something: where nothing else fits, what comes nearest is kept, and the line says so."""
    options = replace(AUTO, recall_target=1.0, memory=150_000)
    _, exact, said = chosen_of(options, drawn(ITEMS), drawn(60, seed=1))

    tried = [Tried(**one) for one in said["tried"]]
    assert not any(one.meets for one in tried)
    assert dict(said["curve"])[said["nprobe"]] == max(one.recall or 0 for one in tried)
    line = told({"type": exact.type, "nlist": exact.lists, **said})
    assert line.endswith(", of 6 tried; none meets the recall: raise [index] memory or lower recall_target")


def test_without_users_the_first_that_fits_is_built() -> None:
    """Nothing can be measured: the type that loses least, the usual lists, all of them searched."""
    _, exact, said = chosen_of(AUTO, drawn(ITEMS), np.empty((0, WIDTH), np.float32))

    assert (exact.type, exact.lists, said["nprobe"], said["recall"]) == ("Flat", 187, 187, None)
    assert len(said["tried"]) == 1
    line = told({"type": exact.type, "nlist": exact.lists, **said})
    assert line == "Flat, 187 of 187 lists, of 1 tried; no user has a history to measure by"


@pytest.mark.parametrize("kind", ["SQ8", "PQ"])
def test_neighbours_are_scored_again_by_their_own_vectors(kind: str) -> None:
    """With all lists and as many neighbours as items, codes lose nothing: best first, ties by row, absent ones last."""
    items = np.tile(drawn(5_000), (2, 1))  # each vector twice
    ivf = train(items, IndexOptions(type=kind, lists=4), threads=1)
    index = Index(ivf, np.arange(len(items), dtype=np.int32), items, 1, 1, refine=1_000)
    queries = drawn(6, seed=3)

    rows, scores = search(index, queries, k=20, nprobe=4)

    exact = queries.astype(np.float64) @ items.astype(np.float64).T
    expected = np.lexsort((np.broadcast_to(np.arange(len(items)), exact.shape), -exact.round(9)), axis=1)[:, :20]
    assert np.array_equal(rows, expected)
    assert scores == pytest.approx(np.take_along_axis(exact, rows, axis=1), rel=1e-5)
    alone = [search(index, query[None], k=20, nprobe=4) for query in queries]
    assert np.array_equal(scores, np.concatenate([one[1] for one in alone]))

    rows, scores = search(index, queries, k=9_000, nprobe=1)
    sizes = {ivf.invlists.list_size(number) for number in range(4)}
    assert set((rows != NO_ITEM).sum(axis=1).tolist()) <= sizes
    assert (scores[rows == NO_ITEM] == np.finfo(np.float32).min).all()
