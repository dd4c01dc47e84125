import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from batch.merge import Lists
from batch.rules import choose, fill, order_by_score
from features.encode import NO_ITEM

LAW = settings(max_examples=25, deadline=None)
SHAPES = npst.array_shapes(min_dims=2, max_dims=2, max_side=7)


def choose_slowly(wanted: list[bool], groups: list[list[int]], at_most: list[int], limit: int) -> list[bool]:
    """The same for one user, as one would say it: counting as we go."""
    counts: dict[tuple[int, int], int] = {}
    kept: list[bool] = []
    for place, there in enumerate(wanted):
        values = [(rule, numbers[place]) for rule, numbers in enumerate(groups) if numbers[place] >= 0]
        allowed = all(counts.get(value, 0) < at_most[value[0]] for value in values)
        kept.append(there and allowed and sum(kept) < limit)
        for value in values if kept[-1] else []:
            counts[value] = counts.get(value, 0) + 1
    return kept


@LAW
@given(data=st.data(), shape=SHAPES, limit=st.integers(1, 8), rules=st.integers(0, 2))
def test_choosing_agrees_with_counting(data: st.DataObject, shape: tuple[int, int], limit: int, rules: int) -> None:
    """For any groups and limits, all users at once get what each would get by counting item after item."""
    wanted = data.draw(npst.arrays(np.bool_, shape))
    groups = [data.draw(npst.arrays(np.int32, shape, elements=st.integers(-1, 3))) for _ in range(rules)]
    at_most = data.draw(st.lists(st.integers(1, 3), min_size=rules, max_size=rules))

    kept = choose(wanted, groups, at_most, limit=limit)

    for user in range(shape[0]):
        own = [numbers[user].tolist() for numbers in groups]
        assert kept[user].tolist() == choose_slowly(wanted[user].tolist(), own, at_most, limit)


@LAW
@given(data=st.data(), shape=SHAPES)
def test_ordering_agrees_with_sorting_pairs(data: st.DataObject, shape: tuple[int, int]) -> None:
    """Candidates go by descending score, ties by ascending row, and what is missing goes last."""
    rows = data.draw(npst.arrays(np.int64, shape, elements=st.integers(NO_ITEM, 5)))
    scores = data.draw(npst.arrays(np.float32, shape, elements=st.sampled_from([-1.0, 0.0, 0.5, 1.0])))

    order = order_by_score(rows, scores)

    ordered_rows, ordered_scores = (np.take_along_axis(array, order, axis=1) for array in (rows, scores))
    for user in range(shape[0]):
        pairs = [(row, score) for row, score in zip(rows[user], scores[user], strict=True) if row != NO_ITEM]
        expected = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
        assert list(zip(ordered_rows[user], ordered_scores[user], strict=True))[: len(pairs)] == expected
        assert (ordered_rows[user, len(pairs) :] == NO_ITEM).all()


def test_what_may_fill_a_list_is_neither_seen_nor_in_it() -> None:
    """The pool follows what was chosen, in its order; what the user has had or been given is not wanted."""
    chosen = np.array([[9, NO_ITEM, 2], [NO_ITEM, NO_ITEM, NO_ITEM]])
    pool = np.array([5, 2, 7, 9, 0])
    seen = Lists(np.array([7, 0, 5]), np.array([1, 2]))

    rows, wanted = fill(chosen, pool, seen)

    assert rows.tolist() == [[9, NO_ITEM, 2, 5, 2, 7, 9, 0], [NO_ITEM, NO_ITEM, NO_ITEM, 5, 2, 7, 9, 0]]
    assert rows[0][wanted[0]].tolist() == [9, 2, 5, 0]
    assert rows[1][wanted[1]].tolist() == [2, 7, 9]
