import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.bundle import Role, input_names
from models import candidates as module
from models.candidates import (
    NEGATIVE,
    POSITIVE,
    UNUSED,
    Candidates,
    Night,
    draw_negatives,
    excluded,
    popularity_of,
    ranker_inputs,
    retrieve,
    search,
)
from models.events import EventIndex
from models.examples import Window, next_events
from models.mind import Mind, MindConfig

DAY = 86_400_000_000
some = settings(max_examples=25, deadline=None)


@some
@given(st.integers(0, 2**31), st.integers(1, 12), st.sampled_from([3, 100]))
def test_search_is_a_full_sort(seed, k, chunk):
    """The best k of what is allowed, best first, whatever the chunks; -1 where there are no more."""
    random = np.random.default_rng(seed)
    interests, vectors = random.normal(size=(4, 3, 5)), random.normal(size=(9, 5))
    count = np.array([1, 2, 3, 3])
    banned = (np.array([0, 0, 2, 3]), np.array([1, 8, 4, 4]))
    eligible = random.random(9) < 0.8
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        found, scores = search(
            torch.tensor(interests),
            torch.tensor(count),
            torch.tensor(vectors),
            banned=banned,
            eligible=torch.tensor(eligible),
            k=k,
        )
    for user in range(4):
        best = (interests[user, : count[user]] @ vectors.T).max(axis=0)
        allowed = [item for item in range(9) if eligible[item] and (user, item) not in set(zip(*banned, strict=True))]
        expected = sorted(allowed, key=lambda item: -best[item])[:k]
        assert found[user].tolist() == expected + [-1] * (k - len(expected))
        np.testing.assert_allclose(scores[user, : len(expected)], best[expected], rtol=1e-6)


def test_popularity_is_added_as_of_each_examples_day(make_sequences):
    """Each user's scores are best inner product + weight * log(1 + events of the last days) of the user's own day."""
    sequences = make_sequences([[(0, 3), (3 * DAY, 3), (3 * DAY + 5, 4)], [(4 * DAY, 4), (4 * DAY, 4), (6 * DAY, 3)]])
    index = EventIndex(sequences, zone="UTC", until_us=9 * DAY)
    night = Night(popular_days=2, popularity_weight=1.5)
    now = np.array([5 * DAY + 7, 4 * DAY, 5 * DAY, 0])  # two of one day, in any order
    events = np.zeros((4, 6))
    events[[0, 2], 3], events[[0, 2], 4] = 1, 3  # of days 3 and 4
    events[1, 3], events[1, 4] = 1, 1  # of days 2 and 3
    random = np.random.default_rng(1)
    interests, vectors = random.normal(size=(4, 2, 5)).astype(np.float32), random.normal(size=(6, 5)).astype(np.float32)
    popularity = popularity_of(index, now, 6, night)
    assert popularity is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", 4)
        found, scores = search(
            torch.tensor(interests),
            torch.tensor([2, 1, 2, 2]),
            torch.tensor(vectors),
            banned=(np.array([0]), np.array([1])),
            eligible=torch.ones(6, dtype=torch.bool),
            k=6,
            added=(popularity.by_day, popularity.rows(now)),
        )
    best = (interests @ vectors.T).max(axis=1)
    best[1] = interests[1, 0] @ vectors.T
    best += 1.5 * np.log1p(events)
    best[0, 1] = -np.inf
    order = np.argsort(-best, axis=1)
    assert found.tolist() == [[*order[0, :5], -1], *order[1:].tolist()]
    np.testing.assert_allclose(scores[1:], np.take_along_axis(best, order, axis=1)[1:], rtol=1e-5)


def test_without_a_weight_popularity_adds_nothing(sequences):
    """What is not asked for is not computed; of no example either."""
    index = EventIndex(sequences, zone="UTC", until_us=20 * DAY)
    assert popularity_of(index, np.array([9 * DAY]), 24, Night()) is None
    none = popularity_of(index, np.zeros(0, np.int64), 24, Night(popularity_weight=1))
    assert none is not None
    assert none.by_day.shape == (0, 24)


@pytest.mark.parametrize(
    ("policy", "expected"), [("all", [(0, 3), (0, 4)]), ("days", [(0, 4)]), ("none", [])], ids=["all", "days", "none"]
)
def test_what_is_excluded_follows_the_policy(make_sequences, policy, expected):
    """`all` drops the whole history, `days` what is recent, `none` nothing; unknown items cannot be dropped."""
    sequences = make_sequences([[(0, 3), (5 * DAY, 4), (5 * DAY, -7), (9 * DAY, 5)]])
    rows, items = excluded(
        sequences, np.array([0]), np.array([6 * DAY]), np.array([3]), Night(exclude_seen=policy, exclude_days=2)
    )
    assert sorted(zip(rows.tolist(), items.tolist(), strict=True)) == expected


@some
@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 4))
def test_drawn_negatives_keep_every_positive_and_the_declared_ratio(seed, positives, ratio):
    """All positives stay, each with `ratio` different negatives while there are any, and nothing unused is drawn."""
    random = np.random.default_rng(seed)
    labels = random.choice([NEGATIVE, UNUSED], size=(6, 12), p=[0.8, 0.2]).astype(np.int8)
    for row in range(6):
        labels[row, random.choice(12, random.integers(0, positives + 1), replace=False)] = POSITIVE
    items = np.tile(np.arange(12), (6, 1))
    found = Candidates(items, items.astype(np.float32), labels)
    kept, filled = draw_negatives(found, random.random((6, 12)), positives=positives, ratio=ratio)
    for row in range(6):
        chosen, chosen_labels = kept.items[row][filled[row]], kept.labels[row][filled[row]]
        assert len(set(chosen)) == len(chosen)
        wanted = items[row][labels[row] == POSITIVE]
        assert set(chosen[chosen_labels == POSITIVE]) == set(wanted)
        there = int((labels[row] == NEGATIVE).sum())
        assert int((chosen_labels == NEGATIVE).sum()) == min(ratio * len(wanted), there)
        assert UNUSED not in chosen_labels


@pytest.fixture
def mind(spec, vocabularies):
    return Mind(MindConfig(width=8, interests=2, hidden=(8,), start_rows=16), spec, vocabularies).eval()


def test_a_candidate_is_positive_if_asked_for_and_unused_if_it_comes_later(sequences, mind):
    """Targets are positives; what the user takes after them is no negative; the rest are, and nothing had is there."""
    window, night = Window(0, 20 * DAY), Night(candidates=24)
    index = EventIndex(sequences, zone="UTC", until_us=window.end_us)
    examples = next_events(sequences, window, targets=2).take(np.arange(40))
    found = retrieve(sequences, examples, index, mind=mind, night=night, batch=7)
    for row in range(len(examples)):
        user, end = examples.users[row], examples.ends[row]
        had = set(sequences.items[sequences.starts[user] : end])
        later = set(sequences.items[end : sequences.starts[user + 1]])
        targets = set(examples.targets[row][examples.weights[row] > 0])
        real = found.items[row] >= 0
        assert set(found.items[row][real]) == set(range(24)) - had
        for item, label in zip(found.items[row][real], found.labels[row][real], strict=True):
            assert label == (POSITIVE if item in targets else UNUSED if item in later else NEGATIVE)
        assert (found.labels[row][~real] == UNUSED).all()


def test_cross_features_are_those_of_the_time(make_sequences, mind, spec):
    """Times had, days since and popularity count only what was before the question."""
    sequences = make_sequences([[(0, 3), (2 * DAY, 3), (4 * DAY, 5), (6 * DAY, 3)], [(3 * DAY, 5), (5 * DAY, 5)]])
    index = EventIndex(sequences, zone="UTC", until_us=9 * DAY)
    examples = next_events(sequences, Window(4 * DAY, 5 * DAY), targets=1)
    assert examples.users.tolist() == [0]
    found = Candidates(np.array([[3, 5, -1]]), np.array([[0.5, -0.25, 0.0]], np.float32), np.zeros((1, 3), np.int8))
    inputs = ranker_inputs(sequences, examples, index, found, spec=spec, night=Night(popular_days=2))
    assert tuple(inputs) == input_names(Role.RANKER, spec)
    log = np.log1p
    expected = [[0.5, log(2), log(2), log(1)], [-0.25, 0, -1, log(1)], [0, 0, -1, 0]]
    np.testing.assert_allclose(inputs["cross"][0], expected, rtol=1e-6)
    assert inputs["candidate_item_id"].tolist() == [[5, 7, 0]]
    assert inputs["history_item_id"][0].tolist() == [5, 5, 0, 0, 0, 0]
