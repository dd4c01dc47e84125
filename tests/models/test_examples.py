from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.errors import UsageError
from features import mapped
from features.day import data_day
from models.examples import (
    Window,
    age_weights,
    days_of,
    make_stale,
    next_day,
    next_events,
    of_mean_one,
    split_by_time,
)
from tests.models.drawn import DAY, behaviours, some


def asked(examples):
    """Each question as (user, time, end, its targets)."""
    return [
        (int(user), int(now), int(end), [int(item) for item, weight in zip(items, weights, strict=True) if weight > 0])
        for user, now, end, items, weights in zip(
            examples.users, examples.now_us, examples.ends, examples.targets, examples.weights, strict=True
        )
    ]


def whole(questions):
    """All of them as examples."""
    return questions.take(np.arange(len(questions)))


@some
@given(behaviours)
def test_a_single_target_is_told_all_and_only_what_was_strictly_before(make_sequences, lists):
    """Every event of the window with a history before it is one question, whose history ends before its time."""
    sequences, window = make_sequences(lists), Window(2 * DAY, 4 * DAY)
    expected = []
    for user, events in enumerate(lists):
        start = int(sequences.starts[user])
        for time, item in sorted(events):
            earlier = sum(other < time for other, _ in events)
            if window.start_us <= time < window.end_us and earlier:
                expected.append((user, time, start + earlier, [item]))
    assert asked(next_events(sequences, window, targets=1)) == expected


@some
@given(behaviours, st.integers(1, 4), st.integers(0, 3))
def test_every_event_is_a_target_once_however_questions_are_cut(make_sequences, lists, targets, shift):
    """Several targets for a question, and another cut of them each epoch, lose no event and tell none of them."""
    sequences, window = make_sequences(lists), Window(2 * DAY, 4 * DAY)
    single = asked(next_events(sequences, window, targets=1))
    cut = asked(next_events(sequences, window, targets=targets, shift=shift % targets))
    assert [(user, item) for user, _, _, items in cut for item in items] == [
        (user, item) for user, _, _, items in single for item in items
    ]
    first_times = {(user, now): end for user, now, end, _ in single}
    for user, now, end, items in cut:
        assert 1 <= len(items) <= targets
        assert first_times[user, now] == end


@some
@given(behaviours)
def test_a_night_asks_each_user_once_a_day_before_it_begins(make_sequences, lists):
    """A question of a night knows the days before; its targets are the different items of that day."""
    sequences, window = make_sequences(lists), Window(DAY, 4 * DAY)
    expected = []
    for user, events in enumerate(lists):
        for morning in range(DAY, 4 * DAY, DAY):
            items = sorted({item for time, item in events if morning <= time < morning + DAY})
            earlier = sum(time < morning for time, _ in events)
            if items and earlier:
                expected.append((user, morning, int(sequences.starts[user]) + earlier, items))
    assert asked(next_day(sequences, window, zone="UTC")) == expected


@some
@given(behaviours)
def test_examples_are_made_some_users_at_a_time(make_sequences, lists):
    """However few events are looked at at once, questions and their weights are the same, bit for bit."""
    sequences, window = make_sequences(lists), Window(0, 5 * DAY)
    weighed = replace(sequences, weights=np.arange(len(sequences.items), dtype=np.float32) % 3)

    def made(one):
        events = next_events(one, window, targets=3, half_life_days=2.0, shift=1)
        yield days_of(one, window, zone="UTC", half_life_days=2.0)
        yield events
        yield make_stale(one, events, rate=0.5, seed=[4])

    for one in (sequences, weighed):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mapped, "ROWS", 2)
            parts = list(made(one))
        for at_once, by_parts in zip(made(one), parts, strict=True):
            for name in type(at_once).__slots__:
                np.testing.assert_array_equal(getattr(at_once, name), getattr(by_parts, name))


@some
@given(behaviours, st.integers(1, 3))
def test_items_are_drawn_for_some_days_as_for_all(make_sequences, lists, targets):
    """Sorted by a random number, day by day, all at once; a few days in any order hold the same."""
    days = days_of(make_sequences(lists), Window(0, 5 * DAY), zone="UTC")
    question = np.repeat(np.arange(len(days)), np.diff(days.starts))
    order = np.lexsort((np.random.default_rng([3, 1]).random(len(question)), question))
    places = np.arange(len(question)) - days.starts[question]
    kept = places < targets
    expected = np.zeros((len(days), targets), np.int64)
    expected[question[kept], places[kept]] = days.items[order][kept]
    rows = np.random.default_rng(2).permutation(len(days))
    drawn = days.draw(targets, seed=[3, 1])
    for some_rows in np.array_split(rows, 3):
        taken = drawn.take(some_rows)
        np.testing.assert_array_equal(taken.targets, expected[some_rows])
        np.testing.assert_array_equal(taken.users, days.users[some_rows])


def test_a_history_ends_by_two_numbers_drawn_for_each(make_sequences):
    """The first says whether it ends earlier, the second how much; all of the first are drawn before the second."""
    sequences = make_sequences([[(time, 0) for time in range(6)]] * 4)
    examples = next_events(sequences, Window(3, 6), targets=1)
    random = np.random.default_rng([5])
    late, share = random.random(len(examples)) < 0.5, random.random(len(examples))
    spare = examples.ends - sequences.starts[examples.users] - 1
    expected = examples.ends - np.where(late, (share * (spare + 1)).astype(np.int64), 0)
    np.testing.assert_array_equal(make_stale(sequences, examples, rate=0.5, seed=[5]).ends, expected)
    assert (expected < examples.ends).any()


@some
@given(behaviours, st.integers(1, 3))
def test_a_draw_asks_for_some_of_each_days_items(make_sequences, lists, targets):
    """As many as fit, different ones, of that day; all of them if they fit; and a seed draws the same again."""
    days = days_of(make_sequences(lists), Window(DAY, 4 * DAY), zone="UTC")
    drawn, again = (whole(days.draw(targets, seed=[3, 1])) for _ in range(2))
    every = asked(whole(days))
    assert asked(again) == asked(drawn)
    assert len(drawn) == len(every)
    for (*question, some_items), (*expected, items) in zip(asked(drawn), every, strict=True):
        assert question == expected
        assert len(set(some_items)) == len(some_items) == min(targets, len(items))
        assert set(some_items) <= set(items)


def test_every_item_of_a_day_is_drawn_as_often(make_sequences):
    """Over many seeds each of five items is among the two that are asked for in two of five."""
    days = days_of(
        make_sequences([[(0, 0), *((DAY + item, item) for item in range(5))]]), Window(DAY, 2 * DAY), zone="UTC"
    )
    drawn = np.concatenate([whole(days.draw(2, seed=[seed])).targets[0] for seed in range(1_000)])
    np.testing.assert_allclose(np.bincount(drawn) / 1_000, np.full(5, 0.4), atol=0.05)


def test_the_heaviest_event_of_an_item_weighs_for_its_day(make_sequences):
    """Weights of events and of age come together to mean 1; what weighs nothing is no target."""
    events = [(0, 0), (DAY, 1), (DAY + 1, 1), (DAY + 2, 2), (2 * DAY, 3), (2 * DAY, 4)]
    weighed = replace(make_sequences([events]), weights=np.array([9, 3, 1, 0, 1, 1], np.float32))
    aged = days_of(weighed, Window(0, 3 * DAY), zone="UTC", half_life_days=1.0)
    assert asked(whole(aged)) == [(0, DAY, 1, [1]), (0, 2 * DAY, 4, [3, 4])]
    np.testing.assert_allclose(aged.weights, 3 * np.array([3, 2, 2]) / 7, rtol=1e-6)  # 3, 1, 1; twice that a day later
    light = days_of(replace(weighed, weights=np.zeros(6, np.float32)), Window(0, 3 * DAY), zone="UTC")
    assert whole(light.draw(2, seed=[1])).targets.shape == (0, 2)


def test_an_item_that_is_not_in_the_catalogue_is_no_target(make_sequences):
    """Negative rows stay in histories, but nobody is asked for them."""
    sequences = make_sequences([[(0, 1), (DAY, -2), (2 * DAY, 3)]])
    assert asked(next_events(sequences, Window(0, 3 * DAY), targets=1)) == [(0, 2 * DAY, 2, [3])]
    assert asked(next_day(sequences, Window(0, 3 * DAY), zone="UTC")) == [(0, 2 * DAY, 2, [3])]


@some
@given(behaviours, st.sampled_from([0.0, 0.5, 1.0]))
def test_a_stale_history_is_shorter_but_never_empty(make_sequences, lists, rate):
    """Only the end of a history moves, backwards, and one event stays; at rate 0 nothing moves."""
    sequences = make_sequences(lists)
    examples = next_events(sequences, Window(0, 5 * DAY), targets=2)
    stale = make_stale(sequences, examples, rate=rate, seed=[1, 2])
    assert (stale.ends <= examples.ends).all()
    assert (stale.ends > sequences.starts[stale.users]).all()
    assert rate > 0 or (stale.ends == examples.ends).all()
    for name in ("users", "now_us", "targets", "weights"):
        np.testing.assert_array_equal(getattr(stale, name), getattr(examples, name))


def test_the_share_of_stale_histories_is_the_rate(make_sequences):
    """A share of the histories loses its newest events, each number of them equally often."""
    sequences = make_sequences([[(time, 0) for time in range(5)]])
    examples = next_events(sequences, Window(4, 5), targets=1).take(np.zeros(10_000, dtype=np.int64))
    dropped = 4 - make_stale(sequences, examples, rate=0.4, seed=[3]).ends
    np.testing.assert_allclose(np.bincount(dropped) / 10_000, [0.6 + 0.1, 0.1, 0.1, 0.1], atol=0.02)


def test_weights_halve_with_every_half_life_and_have_mean_one():
    """An event ten days older weighs half where ten days are the half-life."""
    weights = age_weights(np.array([0, 10 * DAY, 20 * DAY]), 20 * DAY, 10.0)
    np.testing.assert_allclose(weights, [0.25, 0.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(of_mean_one(weights), np.array([3, 6, 12]) / 7, rtol=1e-6)
    np.testing.assert_array_equal(age_weights(np.array([0, DAY]), DAY, 0.0), [1.0, 1.0])


def test_a_split_leaves_no_training_day_after_a_validation_day():
    """Validation begins where training ends, and the checkpoint's last day is the last of training."""
    split = split_by_time(train_until=date(2026, 3, 10), validate_until=date(2026, 3, 12), zone="America/New_York")
    assert split.train.end_us == split.valid.start_us == data_day(date(2026, 3, 10), "America/New_York")[1]
    assert split.valid.end_us == data_day(date(2026, 3, 12), "America/New_York")[1]
    assert split.trained_through == "2026-03-10"
    with pytest.raises(UsageError, match=r"2026-03-10, 2026-03-09"):
        split_by_time(train_until=date(2026, 3, 10), validate_until=date(2026, 3, 9), zone="UTC")


def test_weights_of_events_are_those_of_targets(make_sequences):
    """Scaled to mean 1, times the weight by age; an event of weight 0 is no target, and stays in histories."""
    sequences = make_sequences([[(0, 1), (DAY, 2), (2 * DAY, 3), (3 * DAY, 4)]])
    weighed = replace(sequences, weights=np.array([5.0, 1.0, 0.0, 3.0], np.float32))

    plain = next_events(weighed, Window(0, 4 * DAY), targets=2)
    aged = next_events(weighed, Window(0, 4 * DAY), targets=2, half_life_days=2.0)

    assert asked(plain) == [(0, DAY, 1, [2, 4])]
    assert plain.weights.tolist() == [[0.5, 1.5]]
    np.testing.assert_allclose(aged.weights, [[2 * 1 / 7, 2 * 6 / 7]], rtol=1e-6)  # 1 to 3, times 1 to 2 for two days
    assert (
        next_events(replace(weighed, weights=np.zeros(4, np.float32)), Window(0, 4 * DAY), targets=2).weights.size == 0
    )
