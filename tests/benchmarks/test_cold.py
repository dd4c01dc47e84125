"""What quality says of new users and new items, on a shop small enough to count by hand."""

import numpy as np
import pytest

from benchmarks.quality import cold, protocol
from models.examples import Examples


def test_a_newcomer_is_asked_on_the_first_day_of_all_and_about_the_whole_of_it(made) -> None:
    early = protocol.validation(made)  # fits through the 4th; here it asks through the 20th, as the data do
    asked = cold.newcomers(early).questions
    assert [early.sequences.user_ids[int(user)].as_py() for user in asked.users] == [3, 4]
    baskets = [set(row[known > 0].tolist()) for row, known in zip(asked.targets, asked.weights, strict=True)]
    assert baskets == [{2}, {1, 3}]  # 12 on the 12th; 11 and 13 on the 9th
    days = (asked.now_us - early.cut_us) // (24 * 3600 * 1_000_000)
    assert days.tolist() == [7, 4]  # after the 5th


def test_new_users_get_what_was_popular(made) -> None:
    """3 comes on the 12th, when 13 of the 9th and 11th leads; 12 was last had on the 2nd, and stands where all fits."""
    found = cold.of_users(protocol.test(made), popular_days=7)
    assert found["new users, what is popular"] == {"share": 1 / 3, "hr@50": 1.0}
    assert found["new users, by chance"] == {"share": 1 / 3, "hr@50": 1.0}  # six items fit into fifty places


def test_lists_by_chance() -> None:
    assert cold.by_chance(np.array([1]), items=6, k=2) == pytest.approx(1 / 3)
    assert cold.by_chance(np.array([2]), items=6, k=2) == pytest.approx(1 - (4 * 3) / (6 * 5))
    assert cold.by_chance(np.array([1, 5]), items=6, k=2) == pytest.approx((1 / 3 + 1) / 2)


def test_of_the_others_those_below_count_and_ties_half() -> None:
    assert cold.share_below(np.array([1.0, 2.0, 2.0, 3.0, 0.0]), 2.0) == pytest.approx((2 + 0.5) / 4)
    assert cold.share_below(np.array([5.0]), 5.0) == 0.5


def test_items_that_nobody_had_are_compared_with_each_other(part: protocol.Part) -> None:
    """Before the 11th nobody had 14 or 15, rows 4 and 5; user 2 takes 14 on the 13th, one of the three true items."""

    def score(questions: Examples) -> np.ndarray:
        return np.tile([9.0, 9, 9, 9, 2, 1], (len(questions), 1))

    assert cold.of_items(part, score) == {"share": pytest.approx(1 / 3), "above": 1.0}
    assert cold.of_items(part, lambda asked: -score(asked))["above"] == 0.0
