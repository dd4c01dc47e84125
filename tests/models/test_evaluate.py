import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.errors import UsageError
from models import evaluate as module
from models.candidates import Candidates, Night
from models.evaluate import (
    auc,
    grouped_auc,
    hit_rate,
    item_neighbours,
    most_popular,
    ndcg,
    ndcg_of_ranks,
    nearest_items,
    of_candidates,
    ranking_quality,
    ranks_of,
    retrieval_quality,
)
from models.events import EventIndex
from models.examples import Window, next_day

DAY = 86_400_000_000
some = settings(max_examples=25, deadline=None)


@some
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=20))
def test_auc_is_the_share_of_pairs_in_order(pairs):
    """The area equals the share of (positive, negative) pairs in order, ties counting half."""
    scores, labels = (np.array(side) for side in zip(*pairs, strict=True))
    wins = [
        1.0 if one > other else 0.5 if one == other else 0.0
        for one, up in pairs
        if up
        for other, also in pairs
        if not also
    ]
    expected = np.mean(wins) if wins else math.nan
    assert auc(scores.astype(float), labels.astype(bool)) == pytest.approx(expected, nan_ok=True)


def test_grouped_auc_weighs_lists_by_length_and_leaves_out_those_without_both_kinds():
    """A list's own AUC counts as often as it is long; unused places and one-sided lists do not count."""
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 9.0], [1.0, 2.0, 3.0]])
    labels = np.array([[True, False, False], [True, False, False], [True, True, True]])
    used = np.array([[True, True, True], [True, True, False], [True, True, True]])
    assert grouped_auc(scores, labels, used) == pytest.approx((3 * 1.0 + 2 * 0.0) / 5)


def test_ndcg_of_a_list_worked_by_hand():
    """Gains are discounted by log2 of the place plus one, and divided by the best possible order's."""
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [4.0, 3.0, 2.0, 1.0]])
    labels = np.array([[False, True, False, True], [False, False, False, False]])
    used = np.array([[True, True, True, True], [True, True, True, True]])
    expected = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    assert ndcg(scores, labels, used, 10) == pytest.approx(expected)
    assert ndcg(scores, labels, used, 2) == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))


def test_ranks_count_better_items_and_break_ties_by_the_lower_item():
    """Rank 1 is the best item; of equal scores the lower item comes first."""
    scores = np.array([[0.5, 0.9, 0.5, -np.inf], [0.0, 0.0, 0.0, 0.0]])
    ranks = ranks_of(scores, np.array([0, 0, 0, 1, 1]), np.array([1, 0, 2, 0, 3]))
    assert ranks.tolist() == [1, 2, 3, 1, 4]
    assert hit_rate(ranks, 2) == pytest.approx(3 / 5)
    assert ndcg_of_ranks(ranks, 2) == pytest.approx((1 + 1 / math.log2(3) + 1) / 5)
    assert math.isnan(hit_rate(ranks[:0], 2))


def test_neighbours_are_the_cosine_of_baskets_with_shrinkage(make_sequences, monkeypatch):
    """Two items are alike by the users who had both, before the day asked for, over the shrunk geometric mean."""
    sequences = make_sequences(
        [[(0, 0), (1, 1), (2, 1)], [(0, 0), (1, 1)], [(0, 0), (1, 2)], [(0, 2), (9 * DAY, 1)], [(5, -3)]]
    )
    likeness = item_neighbours(sequences, 5 * DAY, shrinkage=10.0)
    assert likeness[0, 1] == pytest.approx(2 / (math.sqrt(3 * 2) + 10))
    assert likeness[0, 2] == pytest.approx(1 / (math.sqrt(3 * 2) + 10))
    assert likeness[1, 2] == 0
    assert (np.diag(likeness) == 0).all()
    np.testing.assert_array_equal(likeness, likeness.T)
    monkeypatch.setattr(module, "MOST_NEIGHBOURS_ITEMS", 5)
    with pytest.raises(UsageError, match="at most 5 items, found 24"):
        item_neighbours(sequences, 5 * DAY)


def test_floors_are_measured_on_what_the_night_could_recommend(make_sequences):
    """Popularity ranks by recent events; what the user has had is neither ranked nor asked for."""
    sequences = make_sequences(
        [
            [(0, 7), (3 * DAY, 7), (3 * DAY, 4)],
            [(2 * DAY, 4), (2 * DAY, 5)],
            [(2 * DAY, 4), (2 * DAY + 1, 7), (2 * DAY + 2, 7)],
            [(0, 5), (0, 5)],
        ]
    )
    window = Window(3 * DAY, 4 * DAY)
    index = EventIndex(sequences, zone="UTC", until_us=window.end_us)
    examples = next_day(sequences, window, zone="UTC")
    assert examples.targets.tolist() == [[4, 7]]
    # In the two days before: item 4 twice, 7 twice, 5 once. The user has had 7, so 4 is first.
    found = retrieval_quality(sequences, examples, most_popular(sequences, index, 2), night=Night(), ks=(1, 2))
    assert (found.events, found.hit_rate) == (1, {1: 1.0, 2: 1.0})
    again = retrieval_quality(
        sequences, examples, most_popular(sequences, index, 2), night=Night(exclude_seen="none"), ks=(1, 2)
    )
    assert (again.events, again.hit_rate) == (2, {1: 0.5, 2: 1.0})
    # Of all three days: 5 three times, 7 three times, 4 twice.
    older = retrieval_quality(sequences, examples, most_popular(sequences, index, 3), night=Night(), ks=(1, 2))
    assert older.hit_rate == {1: 0.0, 2: 1.0}


def test_neighbours_find_the_taste_that_popularity_cannot(sequences, split):
    """On the planted world item-kNN asks for the user's own taste; popularity serves all three tastes alike."""
    examples = next_day(sequences, split.valid, zone="UTC")
    index = EventIndex(sequences, zone="UTC", until_us=split.valid.end_us)
    near = nearest_items(sequences, item_neighbours(sequences, split.train.end_us))
    night = Night(exclude_seen="none")
    knn = retrieval_quality(sequences, examples, near, night=night, ks=(8,)).hit_rate[8]
    popular = retrieval_quality(sequences, examples, most_popular(sequences, index, 30), night=night, ks=(8,))
    assert knn > 0.95
    assert popular.hit_rate[8] < 0.6


def test_a_ranking_is_measured_on_lists_that_hold_a_positive(sequences, split):
    """Unused candidates and lists without a positive leave the figures as they are."""
    found = Candidates(
        np.array([[1, 2, 3], [1, 2, -1], [4, 5, 6]]),
        np.zeros((3, 3), np.float32),
        np.array([[1, 0, -1], [0, 0, -1], [0, 1, 0]], np.int8),
    )
    scores = np.array([[0.9, 0.1, 5.0], [7.0, 7.0, 7.0], [0.3, 0.2, 0.1]])
    quality = ranking_quality(scores, found)
    assert (quality.lists, quality.positives) == (2, 2)
    assert quality.gauc == pytest.approx((2 * 1.0 + 3 * 0.5) / 5)
    assert quality.auc == pytest.approx((3 + 2) / 6)
    assert quality.ndcg_10 == pytest.approx((1 + 1 / math.log2(3)) / 2)
    examples = next_day(sequences, split.valid, zone="UTC").take(np.arange(3))
    index = EventIndex(sequences, zone="UTC", until_us=split.valid.end_us)
    popular = most_popular(sequences, index, 30)
    taken = of_candidates(popular, examples, found)
    assert taken[2].tolist() == popular(examples)[2, [4, 5, 6]].tolist()
