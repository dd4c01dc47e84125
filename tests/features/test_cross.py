import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.bundle import FeatureSpec
from features.cross import cross_features, match_seen

SEEN = st.lists(
    st.dictionaries(st.integers(0, 9), st.tuples(st.integers(1, 5), st.integers(0, 99)), max_size=6), max_size=5
)


def lists(kind, rows):
    return pa.array(rows, pa.list_(kind))


@settings(max_examples=25, deadline=None)
@given(seen=SEEN, data=st.data(), cut=st.integers(0, 2))
def test_candidates_are_matched_to_their_own_user(seen, data, cut):
    """A candidate's count and gap are its user's own, whatever the neighbours had; -1 is never had."""
    seen = [dict(sorted(had.items())) for had in seen]
    columns = [
        lists(pa.int32(), [list(had) for had in seen]),
        lists(pa.int32(), [[times for times, _ in had.values()] for had in seen]),
        lists(pa.int64(), [[gap for _, gap in had.values()] for had in seen]),
    ]
    users = seen[cut:]
    items = np.array(
        data.draw(
            st.lists(st.lists(st.integers(-1, 11), min_size=3, max_size=3), min_size=len(users), max_size=len(users))
        )
    ).reshape(len(users), 3)

    expected = [[had.get(item, (0, -1)) for item in row] for had, row in zip(users, items.tolist(), strict=True)]
    times, gap = match_seen(items, *(column[cut:] for column in columns))

    np.testing.assert_array_equal(np.stack([times, gap], axis=-1), np.array(expected).reshape(len(users), 3, 2))
    assert (times.dtype, gap.dtype) == (np.int32, np.int64)


def test_transforms_are_fixed_and_in_the_order_of_the_spec():
    """A model reads the same number for the same fact in training and at night, in the order that it declares."""
    spec = FeatureSpec(("item_id",), cross_features=("popularity", "days_since", "times_had", "retrieval_score"))
    found = cross_features(
        spec,
        retrieval_score=np.array([[0.25, -3.0]], np.float32),
        times_had=np.array([[1, 0]], np.int32),
        last_gap_seconds=np.array([[86_400, -1]], np.int64),
        popularity_events=np.array([[0, 3]], np.int64),
    )

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[[0.0, np.log(2), np.log(2), 0.25], [np.log(4), -1.0, 0.0, -3.0]]], rtol=1e-6)
    nothing = FeatureSpec(("item_id",))
    assert cross_features(
        nothing,
        retrieval_score=np.zeros((2, 3), np.float32),
        times_had=np.zeros((2, 3), np.int32),
        last_gap_seconds=np.zeros((2, 3), np.int64),
        popularity_events=np.zeros((2, 3), np.int64),
    ).shape == (2, 3, 0)


def test_candidates_and_what_was_had_are_of_the_same_users():
    """Lists of more users than there are candidates for would put one user's past beside another."""
    with pytest.raises(ValueError, match="expected what 1 users have had, found 2"):
        match_seen(
            np.array([[3]]),
            lists(pa.int32(), [[3], [4]]),
            lists(pa.int32(), [[1], [1]]),
            lists(pa.int64(), [[5], [5]]),
        )
