"""The protocol of quality, on a shop small enough to count by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from benchmarks.quality import floors, protocol
from benchmarks.quality.data import DataSet


def test_a_question_is_a_users_first_day_and_needs_a_history(part: protocol.Part) -> None:
    asked = [part.sequences.user_ids[int(user)].as_py() for user in part.questions.users]
    assert asked == [1, 2]  # 3 has no history; 4 does not come back
    baskets = [
        set(row[weights > 0]) for row, weights in zip(part.questions.targets, part.questions.weights, strict=True)
    ]
    assert baskets == [{0, 3}, {4}]  # of 1 the 11th alone, whole: catalogue rows of 10 and 13
    assert part.questions.ends.tolist() == [3, 8]  # three events of 1 before the 11th; two of 2 after 1's six


def test_by_last_day_every_user_is_asked_once_and_that_day_is_not_trained_on(made: DataSet) -> None:
    part = protocol.last_days(made)
    asked = [part.sequences.user_ids[int(user)].as_py() for user in part.questions.users]
    assert asked == [1, 2]  # 3 and 4 have one day each, and no history before it
    assert np.diff(part.sequences.starts).tolist() == [5, 2, 1, 2]
    assert part.questions.ends.tolist() == [5, 7]  # all that is left of each
    assert [
        row[known > 0].tolist() for row, known in zip(part.questions.targets, part.questions.weights, strict=True)
    ] == [[4], [4]]
    assert (part.sequences.items == 4).sum() == 0  # the item 14 was had on last days alone


def test_what_last_days_judge_is_chosen_on_the_days_before_them(made: DataSet) -> None:
    part = protocol.days_before_last(made)
    asked = [part.sequences.user_ids[int(user)].as_py() for user in part.questions.users]
    assert asked == [1]  # of 2 nothing is left before the 3rd
    assert part.questions.ends.tolist() == [3]
    assert set(part.questions.targets[0][part.questions.weights[0] > 0]) == {0, 3}  # the 11th: 10 and 13
    assert np.diff(part.sequences.starts).tolist() == [3, 2, 1, 2]


def test_lists_leave_out_what_the_user_had_for_new_alone(part: protocol.Part) -> None:
    found = protocol.lists_of(part, lambda asked: np.tile([6.0, 5, 4, 3, 2, 1], (len(asked), 1)), k=6)
    assert found["all"].tolist() == [[0, 1, 2, 3, 4, 5]] * 2
    assert found["new"].tolist() == [[3, 4, 5, -1, -1, -1], [2, 3, 4, 5, -1, -1]]


def test_measures_by_hand(part: protocol.Part) -> None:
    """Six items make lists of ten, four places of which are empty."""
    found = protocol.lists_of(part, lambda asked: np.tile([6.0, 5, 4, 3, 2, 1], (len(asked), 1)), k=10)
    measured = protocol.judge(part, found)
    log = np.log2
    assert measured["all.hr@10"] == 1.0
    first = (1 + 1 / log(5)) / (1 + 1 / log(3))  # at places 1 and 4, of two
    assert measured["all.ndcg@10"] == pytest.approx((first + 1 / log(6)) / 2)
    assert measured["new.ndcg@10"] == pytest.approx((1 + 1 / log(4)) / 2)


@given(st.lists(st.lists(st.sampled_from([-np.inf, -2.5, -0.0, 0.0, 1.0, 3.25]), min_size=7, max_size=7), min_size=1))
def test_the_best_are_those_of_a_stable_sort(rows: list[list[float]]) -> None:
    scores = np.array(rows, np.float32)
    assert protocol.best(scores, 4).tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :4].tolist()


def test_popularity_is_of_the_days_before_the_question(part: protocol.Part) -> None:
    scores = floors.popular(part, 7)(part.questions)
    assert scores.tolist() == [[0, 1, 0, 1, 0, 0], [1, 1, 1, 2, 1, 0]]  # the 4th to the 10th; the 6th to the 12th


def test_own_items_come_before_popular_ones(part: protocol.Part) -> None:
    found = protocol.lists_of(part, floors.own_items(part, half_life_days=30, popular_days=7), k=5)["all"]
    assert found[0].tolist() == [2, 0, 1, 3, 4]  # had on the 2nd, then both of the 1st; then popular ones
    assert set(found[1][:2].tolist()) == {0, 1}


@given(st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=6, max_size=6), st.integers(1, 6))
def test_the_nearest_are_the_most_alike_of_each_item(drawn: list[list[int]], most: int) -> None:
    together = np.array(drawn) + np.array(drawn).T + np.diag([9] * 6)
    like = together / (np.sqrt(np.outer(np.diag(together), np.diag(together))) + 1.0)
    np.fill_diagonal(like, 0)
    expected = np.zeros((6, 6))
    for item, row in enumerate(like):
        near = np.argsort(-row, kind="stable")[:most]
        expected[item, near] = row[near]
    found = floors.likeness(floors.nearest(sparse.csr_array(together), shrinkage=1.0), 6, neighbours=most, own=0.0)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)


def test_likeness_is_the_cosine_of_baskets_before_the_cut(part: protocol.Part) -> None:
    counts = floors.together(part).toarray()
    assert counts[0, 1] == 2  # on the 1st by one user, on the 3rd by another
    assert counts[1, 1] == 3
    assert counts[3].tolist() == [0, 1, 0, 1, 0, 0]  # what was had after the cut is not counted
    near = floors.nearest(floors.together(part), shrinkage=1.0)
    like = floors.likeness(near, 6, neighbours=1, own=0.5).toarray()
    assert like[0, 1] == pytest.approx(2 / (np.sqrt(2 * 3) + 1))
    assert like[1].tolist() == pytest.approx([2 / (np.sqrt(6) + 1), 0.5, 0, 0, 0, 0])  # the nearest, and itself
    alike = floors.likeness(floors.nearest(floors.together(part), shrinkage=0.0), 6, neighbours=5, own=0.0)
    scores = floors.item_knn(part, alike, half_life_days=1e9)
    assert scores(part.questions)[1, 3] == pytest.approx(1 / np.sqrt(3))  # 13 was had once, with 11, which 2 had
