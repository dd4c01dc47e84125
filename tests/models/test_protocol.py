"""The protocol on two users and a handful of items, counted by hand."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from models.examples import Window
from models.protocol import (
    judge,
    own_lists,
    popular_lists,
    popular_order,
    questions_of,
    truths,
    without_had,
)

DAY = 86_400_000_000
ASKED = Window(10 * DAY, 13 * DAY)


@pytest.fixture
def sequences(make_sequences):
    """User 0 comes back on days 10 and 11, user 1 on day 12; user 2 is new on day 10, and 3 does not come back."""
    return make_sequences(
        [
            [(4 * DAY, 1), (9 * DAY, 1), (9 * DAY + 5, 2), (10 * DAY, 1), (10 * DAY + 7, 5), (11 * DAY, 6)],
            [(8 * DAY, 3), (12 * DAY, 4)],
            [(10 * DAY, 2), (11 * DAY, 5)],
            [(9 * DAY, 3)],
        ]
    )


@pytest.fixture
def questions(sequences):
    """What user 0 is asked on day 10, and user 1 on day 12; halved every five days."""
    return questions_of(sequences, ASKED, zone="UTC", half_life_days=5.0)


def test_a_question_is_a_users_first_day_with_what_they_had(questions):
    """Targets are whole days; worth counts every time, the older ones less: 2^(-6/5) and 2^(-1/5) of item 1."""
    assert questions.asked.users.tolist() == [0, 1]
    asked = zip(questions.asked.targets, questions.asked.weights, strict=True)
    assert [set(row[kept > 0].tolist()) for row, kept in asked] == [{1, 5}, {4}]
    assert [had.tolist() for had in questions.had] == [[1, 2], [3]]
    np.testing.assert_allclose(questions.worth[0], [2**-1.2 + 2**-0.2, 2**-0.2], rtol=1e-6)
    np.testing.assert_allclose(questions.worth[1], [2**-0.4], rtol=1e-6)


def test_what_the_user_had_is_no_truth_of_new(questions):
    """Of user 0's two targets the one that they had before is left out."""
    counts = truths(questions)

    assert counts["all"].sum(axis=1).tolist() == [2, 1]
    assert counts["new"].sum(axis=1).tolist() == [1, 1]


def test_the_floors_are_what_they_say(sequences, questions):
    """Of the days 5 to 9: item 3 twice, 1 and 2 once, then by row. An item that is not eligible is nowhere."""
    order = popular_order(sequences, Window(5 * DAY, 10 * DAY))
    assert order[:5].tolist() == [3, 1, 2, 0, 4]

    popular, own = popular_lists(questions, order, k=4), own_lists(questions, order, k=4)

    assert popular["all"].tolist() == [[3, 1, 2, 0]] * 2
    assert popular["new"].tolist() == [[3, 0, 4, 5], [1, 2, 0, 4]]
    assert own["all"].tolist() == [[1, 2, 3, 0], [3, 1, 2, 0]]
    assert own["new"].tolist() == popular["new"].tolist()
    shop = sequences.catalogue
    closed = shop.set_column(shop.schema.get_field_index("eligible"), "eligible", pa.array(np.arange(len(shop)) != 1))
    order = popular_order(replace(sequences, catalogue=closed), Window(5 * DAY, 10 * DAY))
    assert order[:4].tolist() == [3, 2, 0, 4]
    assert own_lists(questions, order, k=3)["all"].tolist() == [[2, 3, 0], [3, 2, 0]]
    assert popular_lists(questions, order[:2], k=3)["all"].tolist() == [[3, 2, -1]] * 2


def test_lists_without_what_was_had_close_the_gaps(questions):
    """Ranks move up, and the end is empty."""
    assert without_had(questions, np.array([[1, 7, 2, 5], [4, 3, -1, -1]])).tolist() == [
        [7, 5, -1, -1],
        [4, -1, -1, -1],
    ]


def test_measures_by_hand(questions):
    """A hit is any of the truth; NDCG is over the best that a list could be; a k longer than the lists is left out."""
    lists = {"all": np.array([[7, 1, 5], [0, 3, 2]]), "new": np.array([[5, -1, -1], [0, 2, 4]])}

    measured = judge(questions, lists, ks=(1, 3, 10))

    log = np.log2
    assert measured == pytest.approx(
        {
            "all.hr@1": 0.0,
            "all.ndcg@1": 0.0,
            "all.hr@3": 0.5,
            "all.ndcg@3": (1 / log(3) + 1 / log(4)) / (1 + 1 / log(3)) / 2,
            "new.hr@1": 0.5,
            "new.ndcg@1": 0.5,
            "new.hr@3": 1.0,
            "new.ndcg@3": (1 + 1 / log(4)) / 2,
        }
    )


def test_without_a_question_there_is_no_figure(sequences):
    """Days on which nobody came back measure nothing, and break nothing."""
    none = questions_of(sequences, Window(20 * DAY, 21 * DAY), zone="UTC")

    assert len(none) == 0
    assert judge(none, popular_lists(none, np.arange(3), k=2), ks=(2,)) == {}
