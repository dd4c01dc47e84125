import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.bundle import FeatureSpec, Role, input_names
from artifacts.errors import InputError
from features.encode import bucket_gaps, pad_lists, pad_rows, require_rows, take_items, user_inputs

LISTS = st.lists(st.none() | st.lists(st.integers(1, 99), max_size=6), max_size=8)


@settings(max_examples=25, deadline=None)
@given(lists=LISTS, data=st.data(), large=st.booleans(), length=st.integers(1, 5), spare=st.integers(0, 3))
def test_lists_are_read_with_their_offsets(lists, data, large, length, spare):
    """Slices, nulls, empty and large lists are padded as a plain loop over Python lists does it."""
    kind = pa.large_list(pa.int32()) if large else pa.list_(pa.int32())
    start = data.draw(st.integers(0, len(lists)))
    stop = data.draw(st.integers(start, len(lists)))
    rows = stop - start + spare

    expected = np.zeros((rows, length), np.int32)
    for row, values in enumerate(lists[start:stop]):
        kept = (values or [])[:length]
        expected[row, : len(kept)] = kept

    found = pad_lists(pa.array(lists, kind)[start:stop], length, rows, np.int32)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


def test_a_null_list_that_covers_elements_is_empty():
    """The elements under a null list belong to no user."""
    lists = pa.ListArray.from_arrays(
        pa.array([0, 2, 4, 5]), pa.array([1, 2, 3, 4, 5]), mask=pa.array([False, True, False])
    )

    np.testing.assert_array_equal(pad_lists(lists, 2, 3, np.int32), [[1, 2], [0, 0], [5, 0]])


def test_gaps_fall_into_buckets_between_the_edges():
    """A bucket's row is 1 + the number of edges at or below the gap; a negative gap counts as 0."""
    gaps = np.array([[-5, 0, 9], [10, 11, 10**12]], np.int64)

    np.testing.assert_array_equal(bucket_gaps(gaps, (10, 100)), [[1, 1, 1], [2, 2, 3]])
    np.testing.assert_array_equal(bucket_gaps(gaps, (0,)), [[2, 2, 2], [2, 2, 2]])
    np.testing.assert_array_equal(bucket_gaps(gaps, ()), np.ones((2, 3)))


@pytest.mark.parametrize("role", [Role.USER, Role.RANKER])
def test_user_arrays_come_in_the_order_of_the_graph(role):
    """A batch gives the history, gap and profile inputs of a graph in its order, at the fixed batch size."""
    spec = FeatureSpec(("item_id", "brand"), ("country",), history_length=3, gap_edges=(5,))
    batch = pa.record_batch(
        {
            "user_id": pa.array([7, 8]),
            "history_item_id": pa.array([[4, 5], []], pa.list_(pa.int32())),
            "history_brand": pa.array([[1, 2], []], pa.list_(pa.int32())),
            "gap": pa.array([[1, 2], []], pa.list_(pa.int32())),
            "profile_country": pa.array([3, 1], pa.int32()),
            "history_length": pa.array([2, 0], pa.int32()),
        }
    )
    arrays = user_inputs(batch, spec, role, 3)

    asked = [name for name in input_names(role, spec) if not name.startswith(("candidate_", "cross"))]
    assert list(arrays) == asked
    np.testing.assert_array_equal(arrays["history_item_id"], [[4, 5, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(arrays["profile_country"], [3, 1, 0])
    with pytest.raises(ValueError, match="at most 1"):
        user_inputs(batch, spec, role, 1)


def test_catalogue_rows_are_range_checked():
    """-1 is no item and gives padding, never the last item; any other row outside the catalogue is an error."""
    features = {"item_id": np.array([2, 3, 4], np.int32)}

    np.testing.assert_array_equal(take_items(features, np.array([[2, -1], [0, 1]]))["item_id"], [[4, 0], [2, 3]])
    for bad in (-2, 3):
        with pytest.raises(InputError, match=f"catalogue row: expected 0 to 2, found {bad}"):
            take_items(features, np.array([0, bad]))
    require_rows("row", np.empty(0, np.int64), 0)


def test_what_does_not_fit_a_batch_is_refused():
    """More lists or rows than the batch has, and nulls within a list, are never cut off or taken for padding."""
    lists = pa.array([[1], [2, None]], pa.list_(pa.int32()))
    with pytest.raises(ValueError, match="expected at most 1 lists, found 2"):
        pad_lists(lists, 3, 1, np.int32)
    with pytest.raises(ValueError, match="expected no null elements, found 1"):
        pad_lists(lists, 3, 2, np.int32)
    with pytest.raises(ValueError, match="expected at most 2 rows, found 3"):
        pad_rows(np.ones((3, 4)), 2)
    assert pad_rows(np.ones((1, 2), np.int32), 2).tolist() == [[1, 1], [0, 0]]
