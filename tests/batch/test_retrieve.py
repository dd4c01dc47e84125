from dataclasses import replace

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.errors import UsageError
from batch.retrieve import Index, inner_products_of, most_of, require_searchable, retrieve, search
from features.encode import NO_ITEM
from tests.batch.slowly import listed, lists_of

LAW = settings(max_examples=25, deadline=None)


def make_index(vectors: np.ndarray, *, lists: int, nprobe: int, threads: int = 1) -> Index:
    faiss.cvar.distance_compute_blas_threshold = 20
    width = vectors.shape[1]
    ivf = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
    ivf.train(vectors)
    ivf.add(vectors)
    return Index(ivf, np.arange(len(vectors), dtype=np.int32), vectors, nprobe, threads)


def exact(index: Index, interests: np.ndarray, seen: list[int], limit: int) -> list[tuple[int, int]]:
    """Score every item with every interest, in float64; gives item and interest."""
    scores = interests.astype(np.float64) @ index.vectors.T.astype(np.float64)
    best = scores.max(axis=0)
    order = sorted((item for item in range(len(best)) if item not in seen), key=lambda item: (-best[item], item))
    return [(item, int(scores[:, item].argmax())) for item in order[:limit]]


@pytest.fixture
def world() -> tuple[Index, np.ndarray, np.ndarray, list[list[int]]]:
    """600 items in 8 lists, all of them searched; 9 users with 0 to 3 interests who have had 0 to 80 items."""
    rng = np.random.default_rng(3)
    index = make_index(rng.standard_normal((600, 16), dtype=np.float32), lists=8, nprobe=8)
    counts = np.array([1, 3, 0, 2, 3, 1, 2, 0, 3])
    vectors = rng.standard_normal((int(counts.sum()), 16), dtype=np.float32)
    seen = [rng.permutation(600)[: 10 * user].tolist() for user in range(9)]
    return index, vectors, counts, seen


def test_retrieving_agrees_with_exact_search(world: tuple[Index, np.ndarray, np.ndarray, list[list[int]]]) -> None:
    """With every list searched, each user gets the best unseen items of all interests, in order."""
    index, vectors, counts, seen = world

    found = retrieve(index, vectors, counts, lists_of(seen), limit=20, fetch=40)

    start = 0
    for user, count in enumerate(counts.tolist()):
        own = vectors[start : start + count]
        expected = exact(index, own, seen[user], 20) if count else []
        assert [(item, interest) for item, _, interest in listed(found, user)] == expected
        for item, score, interest in listed(found, user):
            assert score == pytest.approx(float(own[interest] @ index.vectors[item]), abs=1e-5)
        start += count


@pytest.mark.parametrize("nprobe", [1, 3])
def test_a_user_gets_the_same_alone_and_in_company(
    world: tuple[Index, np.ndarray, np.ndarray, list[list[int]]], nprobe: int
) -> None:
    """A user's candidates and their scores have the same bits whoever else is in the batch, in any order."""
    index, vectors, counts, seen = world
    index = Index(index.ivf, index.items, index.vectors, nprobe, 2)
    ends = np.cumsum(counts)
    own = [vectors[end - count : end] for end, count in zip(ends, counts, strict=True)]
    together = retrieve(index, vectors, counts, lists_of(seen), limit=30, fetch=30)

    backwards = np.arange(9)[::-1]
    turned = retrieve(
        index,
        np.concatenate([own[user] for user in backwards]),
        counts[backwards],
        lists_of([seen[user] for user in backwards]),
        limit=30,
        fetch=30,
    )
    for user in range(9):
        alone = retrieve(index, own[user], counts[user : user + 1], lists_of([seen[user]]), limit=30, fetch=30)
        for other, place in ((alone, 0), (turned, 8 - user)):
            for name in ("rows", "scores", "interests", "dropped"):
                assert np.array_equal(getattr(other, name)[place], getattr(together, name)[user]), name


def test_a_short_list_is_filled_by_widening() -> None:
    """A user who has had the nearest 200 items still gets a full list; others are searched no wider for it."""
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((1000, 8), dtype=np.float32)
    index = make_index(vectors, lists=10, nprobe=1)
    query = rng.standard_normal((2, 8), dtype=np.float32)
    nearest = np.argsort(-(query[0] @ vectors.T), kind="stable")[:200].tolist()

    found = retrieve(index, query, np.array([1, 1]), lists_of([nearest, []]), limit=50, fetch=60)
    narrow = retrieve(index, query[1:], np.array([1]), lists_of([[]]), limit=50, fetch=60)

    assert (found.rows[0] != NO_ITEM).all()
    assert not set(found.rows[0].tolist()) & set(nearest)
    assert np.array_equal(found.rows[1], narrow.rows[0])


@LAW
@given(seed=st.integers(0, 1000), fetch=st.integers(12, 60), had=st.integers(0, 60))
def test_looking_at_more_neighbours_first_changes_nothing(seed: int, fetch: int, had: int) -> None:
    """However many neighbours are dropped as seen, the list is that of exact search over all that is left."""
    rng = np.random.default_rng(seed)
    index = make_index(rng.standard_normal((80, 4), dtype=np.float32), lists=1, nprobe=1)
    own = rng.standard_normal((3, 4), dtype=np.float32)
    nearest = np.argsort(-(own[0] @ index.vectors.T), kind="stable")[:had].tolist()

    found = retrieve(index, own, np.array([3]), lists_of([nearest]), limit=12, fetch=fetch)

    assert [(item, interest) for item, _, interest in listed(found, 0)] == exact(index, own, nearest, 12)


def test_too_few_items_leave_gaps_and_never_the_last_row() -> None:
    """Where the catalogue is smaller than the list, the rest is NO_ITEM, and no item comes twice."""
    rng = np.random.default_rng(7)
    index = make_index(rng.standard_normal((5, 4), dtype=np.float32), lists=1, nprobe=1)

    found = retrieve(
        index, rng.standard_normal((3, 4), dtype=np.float32), np.array([3]), lists_of([[4]]), limit=8, fetch=16
    )

    assert sorted(found.rows[0].tolist()) == [NO_ITEM] * 4 + [0, 1, 2, 3]
    assert found.dropped.tolist() == [1]


@pytest.mark.parametrize("width", [1, 7, 16, 33, 64, 67, 128])
def test_a_flat_index_gives_the_inner_products_themselves(width: int) -> None:
    """FAISS's score of a vector that it stores as it is has the bits of the inner product, wherever in a list it is."""
    rng = np.random.default_rng(width)
    index = make_index(rng.standard_normal((500, width), dtype=np.float32), lists=3, nprobe=3)
    queries = rng.standard_normal((9, width), dtype=np.float32)

    rows, scores = search(index, queries, k=500, nprobe=3)

    assert index.scores_exactly
    asked = np.broadcast_to(np.arange(9)[:, None], rows.shape)
    assert np.array_equal(scores, inner_products_of(queries, asked, index.vectors, rows))


def test_scores_of_a_compressed_index_are_computed_again() -> None:
    """Eight bits a number find the items; scores and their order are those of the vectors themselves."""
    rng = np.random.default_rng(12)
    vectors, query = rng.standard_normal((300, 8), dtype=np.float32), rng.standard_normal((2, 8), dtype=np.float32)
    coarse = faiss.IndexFlatIP(8)
    ivf = faiss.IndexIVFScalarQuantizer(coarse, 8, 1, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    ivf.train(vectors)
    ivf.add(vectors)
    index = replace(make_index(vectors, lists=1, nprobe=1), ivf=ivf)

    found = retrieve(index, query, np.array([2]), lists_of([[]]), limit=20, fetch=300)

    assert not index.scores_exactly
    assert (np.diff(found.scores[0]) <= 0).all()
    best = (vectors[found.rows[0]] * query[found.interests[0]]).sum(axis=1)
    np.testing.assert_allclose(found.scores[0], best, rtol=0, atol=1e-5)


def test_equal_vectors_go_by_item() -> None:
    """Items with one and the same vector come in ascending order, whatever order FAISS found them in."""
    vectors = np.ones((40, 4), np.float32)
    index = make_index(vectors, lists=1, nprobe=1)

    found = retrieve(index, np.ones((1, 4), np.float32), np.array([1]), lists_of([[3]]), limit=40, fetch=40)

    assert found.rows[0].tolist() == [row for row in range(40) if row != 3] + [NO_ITEM]


def test_limits_of_a_gpu_are_kept() -> None:
    """More than 2,048 neighbours are refused for a GPU alone, and no search looks at more neighbours or lists."""
    require_searchable("cpu", k=5000)
    require_searchable("gpu", k=2048)
    with pytest.raises(UsageError, match="at most 2048 neighbours, asked for 2049"):
        require_searchable("gpu", k=2049)

    rng = np.random.default_rng(9)
    index = make_index(rng.standard_normal((500, 4), dtype=np.float32), lists=4, nprobe=4)
    index = replace(index, most=most_of("gpu") // 64)  # 32
    found = retrieve(
        index, rng.standard_normal((1, 4), dtype=np.float32), np.array([1]), lists_of([[]]), limit=40, fetch=80
    )
    assert (found.rows != NO_ITEM).sum() == 32


def ladder(items: int, *, lists: int, nprobe: int) -> Index:
    """Items in two opposite directions in turns: 0 and 1 are the nearest to their own, the last ones the farthest."""
    away = 1 - np.arange(items) // 2 / items
    return make_index(
        np.stack([away * (-1) ** np.arange(items), np.zeros(items)], axis=1).astype(np.float32),
        lists=lists,
        nprobe=nprobe,
    )


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """How many queries each search had, how many neighbours it looked for, and in how many lists."""
    asked: list[tuple[int, int, int]] = []

    def counted(index: Index, queries: np.ndarray, *, k: int, nprobe: int) -> tuple[np.ndarray, np.ndarray]:
        asked.append((len(queries), k, nprobe))
        return search(index, queries, k=k, nprobe=nprobe)

    monkeypatch.setattr("batch.retrieve.search", counted)
    return asked


RIGHT, LEFT = np.array([[1, 0]], np.float32), np.array([[-1, 0]], np.float32)


def test_only_short_lists_are_searched_again(searches: list[tuple[int, int, int]]) -> None:
    """Who has had the 10 nearest is searched with twice the neighbours until 4 are left, and nobody else is."""
    index = ladder(64, lists=1, nprobe=1)
    had = lists_of([list(range(0, 20, 2)), [], []])

    found = retrieve(index, np.concatenate([RIGHT, RIGHT]), np.array([1, 1, 0]), had, limit=4, fetch=4)

    assert searches == [(2, 4, 1), (1, 8, 1), (1, 16, 1)]
    assert found.rows.tolist() == [[20, 22, 24, 26], [0, 2, 4, 6], [NO_ITEM] * 4]
    assert found.dropped.tolist() == [10, 0, 0]


def test_a_list_is_searched_again_where_a_better_item_may_not_have_been_shown(
    searches: list[tuple[int, int, int]],
) -> None:
    """Seven of eight found were had: the other interest fills the list, but what the first did not show may be better.

    The first interest's eighth is item 14 with 1 - 7/64; the second's best are worth a tenth of that, so that the
    items behind the eighth, from 16 on, take their places.
    """
    index = ladder(64, lists=1, nprobe=1)
    own = np.concatenate([RIGHT, LEFT / 10])

    found = retrieve(index, own, np.array([2]), lists_of([list(range(0, 14, 2))]), limit=4, fetch=8)

    assert searches == [(2, 8, 1), (2, 16, 1)]
    assert found.rows.tolist() == [[14, 16, 18, 20]]
    assert found.interests.tolist() == [[0, 0, 0, 0]]


def test_who_has_been_found_all_that_is_left_is_not_searched_again(searches: list[tuple[int, int, int]]) -> None:
    """Two interests that find five of six items between them, and the sixth was had: there is nothing to look for."""
    index = ladder(6, lists=1, nprobe=1)

    found = retrieve(index, np.concatenate([RIGHT, LEFT]), np.array([2]), lists_of([[0]]), limit=8, fetch=3)

    assert searches == [(2, 3, 1)]
    assert sorted(found.rows[0].tolist()) == [NO_ITEM] * 3 + [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("lists", "most", "expected"),
    [
        (3, 1 << 30, [(1, 6, 1), (1, 6, 2), (1, 6, 3)]),  # no more lists than there are
        (3, 2, [(1, 2, 1), (1, 2, 2)]),  # no more of anything than the device searches
    ],
)
def test_a_search_widens_to_what_there_is(
    searches: list[tuple[int, int, int]], lists: int, most: int, expected: list[tuple[int, int, int]]
) -> None:
    """Neighbours stop at the items that there are, lists at theirs, and both at the device's limit."""
    vectors = np.array([[1, 0], [0.9, 0], [0, 1], [0, 0.9], [-1, 0], [-0.9, 0]], np.float32)
    index = replace(make_index(vectors, lists=lists, nprobe=1), most=most)

    retrieve(index, RIGHT, np.array([1]), lists_of([[]]), limit=8, fetch=100)

    assert searches == expected


def test_cold_users_have_no_candidates_and_are_not_searched(searches: list[tuple[int, int, int]]) -> None:
    """A batch without a single interest gives tables of the right shape and types, with nothing in them."""
    index = ladder(6, lists=1, nprobe=1)
    none = np.empty((0, 2), np.float32)

    found = retrieve(index, none, np.array([0, 0]), lists_of([[], [1]]), limit=4, fetch=8)
    rows, scores = search(index, none, k=3, nprobe=1)

    assert [queries for queries, _, _ in searches] == [0]
    assert found.rows.tolist() == [[NO_ITEM] * 4] * 2
    assert np.isneginf(found.scores).all()
    assert (rows.shape, rows.dtype) == ((0, 3), np.int64)
    assert (scores.shape, scores.dtype) == ((0, 3), np.float32)
