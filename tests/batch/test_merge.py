"""Merging what the interests of a user found is what a dict would say, to the last tie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from artifacts.errors import UsageError
from batch.merge import Candidates, in_order, merge_interests, require_packable
from features.encode import NO_ITEM
from tests.batch.slowly import listed, lists_of, merge_slowly


def merged(rows: np.ndarray, scores: np.ndarray, seen: list[list[int]], limit: int) -> Candidates:
    """Merge rows and scores [users, interests, n], put into the order in which FAISS gives them."""
    order = np.lexsort((-scores, rows == NO_ITEM))
    ordered = [np.take_along_axis(array, order, axis=2) for array in (rows, scores)]
    return merge_interests(*ordered, lists_of(seen), limit=limit)


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    shape=npst.array_shapes(min_dims=3, max_dims=3, max_side=7),
    limit=st.integers(1, 20) | st.integers(1, 4),
)
def test_merging_agrees_with_a_dict(data: st.DataObject, shape: tuple[int, int, int], limit: int) -> None:
    """For any rows, scores and seen lists, with repeats, ties and gaps, the packed merge says what a dict says."""
    rows = data.draw(npst.arrays(np.int64, shape, elements=st.integers(NO_ITEM, 6) | st.integers(0, 60)))
    numbers = st.one_of(st.integers(-2, 2).map(float), st.floats(width=32, allow_nan=False, allow_infinity=False))
    scores = data.draw(npst.arrays(np.float32, shape, elements=numbers))
    seen = data.draw(st.lists(st.lists(st.integers(0, 6), max_size=4), min_size=shape[0], max_size=shape[0]))

    found = merged(rows, scores, seen, limit)

    assert found.rows.shape == found.scores.shape == found.interests.shape == (shape[0], limit)
    for user in range(shape[0]):
        expected = merge_slowly(rows[user], scores[user], seen[user], limit)
        assert listed(found, user) == expected
        every = [item for item, _, _ in merge_slowly(rows[user], scores[user], [], rows.size)]
        before = every[: every.index(expected[-1][0])] if len(expected) == limit else every
        assert found.dropped[user] == len(set(before) & set(seen[user]))


@pytest.mark.parametrize(("limit", "found_by_each"), [(100, 200), (100, 120), (140, 180), (30, 70)])
def test_merging_long_lists_agrees_with_a_dict(limit: int, found_by_each: int) -> None:
    """Lists so long that only their beginnings are looked at, and sorted by scores first, with many ties and seen."""
    random = np.random.default_rng(limit + found_by_each)
    rows = np.stack([random.permutation(1500)[: 4 * found_by_each].reshape(4, -1) for _ in range(6)])
    rows[2] = rows[2, 0]  # each interest finds the same
    rows[3, 1:] = NO_ITEM
    rows[4, :, limit // 8 :] = NO_ITEM
    scores = random.integers(-40, 40, rows.shape).astype(np.float32)
    seen = [random.choice(rows[user, 0], 20).tolist() if user != 4 else [] for user in range(6)]

    found = merged(rows, scores, seen, limit)

    for user in range(6):
        assert listed(found, user) == merge_slowly(rows[user], scores[user], seen[user], limit)


def test_what_all_interests_found_leaves_no_gap() -> None:
    """Four interests that found the same six items, two of which were had: the list is the best three of the rest."""
    rows = np.broadcast_to(np.array([5, 4, 3, 2, 1, 0]), (2, 4, 6))
    scores = np.broadcast_to(np.array([6, 5, 5, 4, 4, 1], np.float32), (2, 4, 6))

    found = merged(rows, scores, [[5, 2], []], 3)

    assert found.rows.tolist() == [[3, 4, 1], [5, 3, 4]]
    assert found.interests.tolist() == [[0] * 3] * 2
    assert found.dropped.tolist() == [1, 0]


def test_more_interests_than_are_published_are_refused() -> None:
    """Interest 255 comes out as it went in; a 257th would wrap to 0 in uint8, so it is refused."""
    rows = np.full((1, 256, 1), NO_ITEM)
    rows[0, 255, 0] = 7
    found = merged(rows, np.ones(rows.shape, np.float32), [[]], 1)
    assert listed(found, 0) == [(7, 1.0, 255)]
    require_packable(10, 256)
    with pytest.raises(UsageError, match="257 interests a user: expected at most 256"):
        require_packable(10, 257)


def test_the_greatest_rows_and_scores_fit_the_sorted_word() -> None:
    """Rows up to the limit and the greatest finite scores of both signs come out as they went in."""
    most = (1 << 30) - 2
    huge = float(np.finfo(np.float32).max)
    rows = np.array([[[most, 0], [NO_ITEM, 5], [NO_ITEM, NO_ITEM], [7, NO_ITEM]]])
    scores = np.array([[[huge, -huge], [0, -0.0], [0, 0], [0.0, 0]]], np.float32)

    found = merged(rows, scores, [[]], 9)

    assert listed(found, 0) == [(most, huge, 0), (5, 0.0, 1), (7, 0.0, 3), (0, -huge, 0)]
    require_packable(most + 1, 4)
    with pytest.raises(UsageError, match="1073741824 items with 4 interests"):
        require_packable(most + 2, 4)


def test_lists_have_what_they_hold() -> None:
    """A row is in a user's list only if that user's list holds it; an empty list holds nothing."""
    lists = lists_of([[1, 5], [], [0]])
    users, rows = np.meshgrid(np.arange(3), np.arange(7), indexing="ij")

    found = lists.have(users.ravel(), rows.ravel()).reshape(3, 7)

    assert [np.flatnonzero(row).tolist() for row in found] == [[1, 5], [], [0]]
    assert lists.of(np.array([True, False, True])).rows.tolist() == [1, 5, 0]
    assert not lists_of([[0]]).have(np.array([0]), np.array([1])).any()  # behind the last of all


@pytest.mark.parametrize("most", [0, 4, 255])
@pytest.mark.parametrize("limit", [3, 8])
def test_what_was_found_is_put_in_order(most: int, limit: int) -> None:
    """By score, then row, whatever its interest; a gap is last whatever stands beside it, and counts are kept."""
    rows = np.array([[9, 4, NO_ITEM, 2, 7], [NO_ITEM] * 5, [(1 << 24) - 2, 0, 3, 1, 2]])
    scores = np.array([[1, 1, 9, -2, 1], [5] * 5, [-0.0, 0.0, 0.5, 1, 0.5]], np.float32)
    interests = np.array([[0, most, 1, most, 0], [0] * 5, [most, 0, 0, most, most]]).astype(np.uint8)

    found = in_order(rows, scores, interests, np.array([4, 0, 2]), limit=limit)

    expected = [
        [(4, 1.0, most), (7, 1.0, 0), (9, 1.0, 0), (2, -2.0, most)],
        [],
        [(1, 1.0, most), (2, 0.5, most), (3, 0.5, 0), (0, 0.0, 0), ((1 << 24) - 2, 0.0, most)],
    ]
    assert [listed(found, user) for user in range(3)] == [one[:limit] for one in expected]
    assert found.rows.shape == (3, limit)
    assert found.dropped.tolist() == [4, 0, 2]
    assert in_order(rows[:0], scores[:0], interests[:0], np.zeros(0, int), limit=limit).rows.shape == (0, limit)
