"""Into how many lists a search looks: the least that meet the target, on users whose recall is known."""

import faiss
import numpy as np
import pytest

from batch.ivf import IndexOptions, train
from batch.nprobe import tune
from batch.recall import measure_recall, take_sample
from batch.retrieve import Index

WIDTH, LISTS, K = 8, 200, 128


def clustered(items: int, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((40, WIDTH)) * 2
    return (centres[rng.integers(0, 40, items)] + rng.standard_normal((items, WIDTH)) * 0.5).astype(np.float32)


def index_of(vectors: np.ndarray, options: IndexOptions) -> Index:
    ivf = train(vectors, options, threads=1)
    return Index(ivf, np.arange(len(vectors), dtype=np.int32), vectors, 1, 1)


def ivf_of(centroids: np.ndarray, vectors: np.ndarray, own: np.ndarray) -> faiss.IndexIVFFlat:
    """An index with these centroids, and each vector in its own list."""
    quantizer = faiss.IndexFlatIP(vectors.shape[1])
    quantizer.add(centroids)
    ivf = faiss.IndexIVFFlat(quantizer, vectors.shape[1], len(centroids), faiss.METRIC_INNER_PRODUCT)
    ivf.add_core(len(vectors), faiss.swig_ptr(vectors), None, faiss.swig_ptr(own))
    return ivf


def one_item_a_list() -> Index:
    """An index of which n lists, in the order of the query (1, 0), give n of its K best: a recall of n / K."""
    vectors = np.stack([np.arange(1, LISTS + 1), np.ones(LISTS)], axis=1).astype(np.float32)
    items = np.arange(LISTS)
    return Index(ivf_of(vectors, vectors, items), items.astype(np.int32), vectors, 1, 1)


@pytest.mark.parametrize(
    ("needed", "tried"),
    [
        (1, [1]),
        (2, [1, 2]),
        (7, [1, 2, 4, 6, 7, 8]),
        (23, [1, 2, 4, 8, 16, 20, 22, 23, 24, 32]),
        (73, [1, 2, 4, 8, 16, 32, 64, 72, 76, 80, 96, 128]),  # 76 meets, 72 does not: nearer than a 16th
        (128, [1, 2, 4, 8, 16, 32, 64, 96, 112, 120, 128]),
    ],
)
def test_the_least_nprobe_is_found_by_halving(needed: int, tried: list[int]) -> None:
    """Where n lists give a recall of n / 128, the one chosen meets the target and is at most a 16th above the least."""
    options = IndexOptions(recall_target=needed / K, recall_k=K)
    tuned = tune(one_item_a_list(), np.tile(np.float32([1, 0]), (8, 1)), np.ones(8, np.int64), options)

    assert tuned["curve"] == [[nprobe, nprobe / K] for nprobe in tried]
    assert tuned["nprobe"] == (76 if needed == 73 else needed)
    assert tuned["recall"] == tuned["nprobe"] / K


def test_the_lower_end_of_the_interval_meets_the_target() -> None:
    """Of two kinds of users one has a recall of n / 128, the other 1: the mean meets the target before its interval.

    Of 16 users that choose, n lists give a mean of 1 - y / 2, where y = 1 - n / 128, and a lower end of
    1 - y / 2 - 1.96 y / 2 sqrt(16 / 15) / 4. The mean is 0.75 from n = 64 on, the lower end from n = 86 on.
    """
    first, last = one_item_a_list(), np.arange(1, K + 1)
    beside = np.stack([0 * last, 0 * last, last], axis=1)
    vectors = np.vstack([np.pad(first.vectors, ((0, 0), (0, 1))), beside]).astype(np.float32)
    centroids = vectors[:LISTS].copy()
    centroids[0, 2] = 1
    own = np.append(np.arange(LISTS), 0 * last)  # all that lie beside are in the first list
    index = Index(ivf_of(centroids, vectors, own), np.arange(len(own), dtype=np.int32), vectors, 1, 1)
    users = np.float32([[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]] * 8)

    tuned = tune(index, users, np.ones(32, np.int64), IndexOptions(recall_target=0.75, recall_k=K))

    assert [nprobe for nprobe, _ in tuned["curve"]] == [1, 2, 4, 8, 16, 32, 64, 80, 84, 88, 96, 128]
    assert dict(tuned["curve"])[64] == 0.75
    assert tuned["nprobe"] == 88


@pytest.mark.parametrize("type_", ["Flat", "SQ8", "PQ"])
def test_nprobe_meets_the_target_on_users_that_did_not_choose(type_: str) -> None:
    """On clustered items the chosen nprobe is less than all lists, and recall of the other half meets the target."""
    items = clustered(12_000)
    users = clustered(400, seed=1)
    target = {"Flat": 0.9, "SQ8": 0.9, "PQ": 0.2}[type_]
    options = IndexOptions(type=type_, lists=64, recall_target=target, recall_k=10)
    index = index_of(items, options)

    tuned = tune(index, users, np.tile([1, 3], 100), options)

    assert 1 <= tuned["nprobe"] < 64
    low, high = tuned["recall_interval"]
    assert low <= tuned["recall"] <= high
    assert high >= target
    assert tuned["recall_users"] == 100
    curve = dict(tuned["curve"])
    assert curve[tuned["nprobe"]] >= target
    assert sorted(curve) == list(curve)
    half = take_sample(items, users[np.repeat(np.arange(200) % 2 == 1, np.tile([1, 3], 100))], np.full(100, 3), k=10)
    assert measure_recall(index, half, nprobe=tuned["nprobe"]).mean == tuned["recall"]


def test_a_target_that_no_nprobe_meets_takes_what_still_helps() -> None:
    """Where codes lose too much, nprobe stops where more lists add nothing, and recall is reported as it is."""
    items = clustered(12_000)
    options = IndexOptions(type="PQ", lists=64, recall_target=1.0, recall_k=10)
    tuned = tune(index_of(items, options), clustered(100, seed=1), np.ones(100, np.int64), options)

    curve = dict(tuned["curve"])
    assert max(curve.values()) - curve[tuned["nprobe"]] <= 0.01
    assert tuned["nprobe"] < 64
    assert tuned["recall"] < 1


def test_without_users_all_lists_are_searched_and_recall_is_unknown() -> None:
    """A night without a single warm user has no recall, not a made-up one."""
    options = IndexOptions(lists=4)
    tuned = tune(index_of(clustered(400), options), np.empty((0, WIDTH), np.float32), np.zeros(5, np.int64), options)

    assert (tuned["nprobe"], tuned["recall"], tuned["recall_interval"], tuned["curve"]) == (4, None, None, [])
