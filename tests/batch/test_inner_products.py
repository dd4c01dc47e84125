"""Inner products, of which every one is a sum of its own."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.retrieve import inner_products, inner_products_of
from features.encode import NO_ITEM


@settings(max_examples=25, deadline=None)
@given(data=st.data(), width=st.integers(1, 70), rows=st.integers(1, 9))
def test_inner_products_are_right_and_depend_on_their_row_alone(data: st.DataObject, width: int, rows: int) -> None:
    """An inner product equals float64's to rounding and has the same bits alone, in company and transposed."""
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    left, right = rng.standard_normal((2, rows, width), dtype=np.float32)

    together = inner_products(left, right)

    expected = (left.astype(np.float64) * right).sum(axis=1)
    np.testing.assert_allclose(together, expected, rtol=0, atol=1e-5)
    for row in range(rows):
        assert inner_products(left[row], right[row]) == together[row]
    turned = inner_products(np.asfortranarray(left), np.asfortranarray(right))
    assert np.array_equal(turned, together)


def test_inner_products_of_rows_gather_them() -> None:
    """Rows are taken by their numbers; of no item the product is -inf, and its other row may be anything."""
    left, right = np.array([[1, 2], [3, 4]], np.float32), np.array([[1, 0], [0, 1], [1, 1]], np.float32)

    found = inner_products_of(left, np.array([[0, 1], [1, 9]]), right, np.array([[2, 0], [1, NO_ITEM]]))

    assert found.tolist() == [[3, 3], [4, -np.inf]]


def test_what_is_too_large_becomes_infinite_without_a_word() -> None:
    """An overflow is no warning here: the caller refuses what is not finite, and says where it was."""
    huge = np.float32(3e38)
    left = np.array([[huge, 1], [huge, huge]], np.float32)
    right = np.array([[huge, 1], [huge, -huge]], np.float32)

    found = inner_products(left, right)

    assert np.isposinf(found[0])
    assert not np.isfinite(found[1])
