"""What a fit learns from: the same as if it were made at once, and no more of it in memory however many events."""

import tracemalloc
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from features import mapped
from models import batches as batches_module
from models import fit as fit_module
from models.batches import bst_batches, mind_batches
from models.bst import Bst, BstConfig
from models.candidates import POSITIVE, Night, draw_negatives, ranker_inputs, retrieve, retrieved
from models.events import EventIndex
from models.examples import next_events
from models.fit import FitOptions, calibrate, event_counts
from models.mind import Mind, MindConfig
from models.trainers import Batches, Epoch

DAY = 86_400_000_000
OPTIONS = FitOptions(batch=32, targets=2, ratio=2, positive_weight=1.5, half_life_days=5.0, verbose=False)
NIGHT = Night(candidates=12, exclude_seen="none")


@pytest.fixture
def mind(spec, vocabularies):
    return Mind(MindConfig(width=8, interests=2, hidden=(8,), start_rows=16), spec, vocabularies).eval()


@pytest.mark.parametrize("examples", [0, 1, 23, 24])
@pytest.mark.parametrize("seed", [None, 7])
def test_an_epoch_is_a_permutation_cut_into_batches(examples, seed, monkeypatch):
    """Each epoch has an order of its own, or the examples' without a seed; some batches have one example more."""
    monkeypatch.setattr(mapped, "ROWS", 5)
    batches = Batches(lambda epoch: Epoch(examples, lambda rows: rows), batch=7, seed=seed)
    for epoch in range(2):
        batches.on_epoch_begin()
        order = np.arange(examples)
        if seed is not None:
            order = np.random.default_rng([seed, epoch]).permutation(order)
        found = [batches[number] for number in range(len(batches))]
        for rows, expected in zip(found, np.array_split(order, max(1, -(-examples // 7))), strict=True):
            np.testing.assert_array_equal(rows, expected)


def test_lists_are_those_of_an_epoch_drawn_at_once(sequences, spec, mind, split, monkeypatch):
    """Retrieved, thrown away where nothing came true, drawn and weighed as whole arrays, and then cut into batches."""
    monkeypatch.setattr(mapped, "ROWS", 50)
    monkeypatch.setattr(batches_module, "retrieved", partial(retrieved, batch=7))
    batches = bst_batches(sequences, split, spec=spec, mind=mind, night=NIGHT, options=OPTIONS)
    index = EventIndex(sequences, zone="UTC", until_us=split.train.end_us)
    examples = next_events(sequences, split.train, targets=2, half_life_days=5.0)
    found = retrieve(sequences, examples, index, mind=mind, night=NIGHT, batch=7)
    true = (found.labels == POSITIVE).any(axis=1)
    examples, found = examples.take(true), found.take(true)
    assert 0 < len(examples) == batches.examples < len(true)
    batches.on_epoch_begin()
    for epoch in range(2):
        keys = np.random.default_rng([1, epoch]).random(found.items.shape)
        kept, filled = draw_negatives(found, keys, positives=2, ratio=2)
        order = np.random.default_rng([1, epoch]).permutation(len(examples))
        for number, rows in enumerate(np.array_split(order, len(batches))):
            inputs, labels, weights = batches[number]
            asked = examples.take(rows)
            told = ranker_inputs(sequences, asked, index, kept.take(rows), spec=spec, night=NIGHT)
            for name, values in told.items():
                np.testing.assert_array_equal(inputs[name], values)
            positive = kept.labels[rows] == POSITIVE
            np.testing.assert_array_equal(labels, positive)
            heaviest = asked.weights.max(axis=1)[:, None]
            np.testing.assert_array_equal(
                weights, (np.where(positive, 1.5, 1.0) * (filled[rows] * heaviest)).astype(np.float32)
            )
        batches.on_epoch_begin()


def test_of_many_lists_calibration_takes_some_evenly_spread(sequences, spec, vocabularies, mind, split, monkeypatch):
    """With as many as there are, all; of more lists evenly spread batches, and other weights."""
    batches = bst_batches(sequences, split, spec=spec, mind=mind, night=NIGHT, options=replace(OPTIONS, batch=4))

    def started(most):
        monkeypatch.setattr(fit_module, "CALIBRATION_LISTS", most)
        bst, asked = Bst(BstConfig(width=16, gap_width=4, heads=2, ffn_width=16, mlp=(16,)), spec, vocabularies), []
        monkeypatch.setattr(Batches, "__getitem__", lambda self, number: asked.append(number) or taken(self, number))
        calibrate(bst, batches)
        return bst.head.wide.detach().numpy().copy(), asked

    taken = Batches.__getitem__
    every, all_asked = started(batches.examples)
    more, more_asked = started(10 * batches.examples)
    half, half_asked = started(batches.examples // 2)
    assert all_asked == more_asked == list(range(len(batches)))
    np.testing.assert_array_equal(every, more)
    assert len(half_asked) == -(-(batches.examples // 2) * len(batches) // batches.examples)
    assert (half_asked[0], half_asked[-1]) == (0, len(batches) - 1)
    assert set(np.diff(half_asked)) <= {1, 2, 3}
    assert not np.array_equal(every, half)


def test_events_of_training_are_counted_for_each_item(sequences, split, monkeypatch):
    """Block by block, without what is not in the catalogue and what came later."""
    monkeypatch.setattr(mapped, "ROWS", 7)
    unknown = replace(sequences, items=np.where(sequences.items == 3, -2, sequences.items).astype(np.int32))
    expected = [
        sum(
            item == row and time < split.train.end_us for row, time in zip(unknown.items, unknown.times_us, strict=True)
        )
        for item in range(24)
    ]
    assert event_counts(unknown, split).tolist() == expected


def many(sequences, times):
    """The same users *times* times."""
    users = len(sequences.user_ids)
    return replace(
        sequences,
        user_ids=pa.array(np.arange(users * times)),
        starts=np.append((sequences.starts[:-1] + len(sequences.items) * np.arange(times)[:, None]).ravel(),
                         len(sequences.items) * times),
        items=np.tile(sequences.items, times),
        times_us=np.tile(sequences.times_us, times),
        profiles={name: np.tile(rows, times) for name, rows in sequences.profiles.items()},
    )  # fmt: skip


@pytest.mark.parametrize("asks", ["day", "events", "lists", "popular"])
def test_memory_does_not_grow_with_events(sequences, spec, mind, split, asks, monkeypatch):
    """Ten times the events are made into examples, an epoch and a batch with less than a byte more for each of them."""
    monkeypatch.setattr(mapped, "ROWS", 1000)
    few, more = many(sequences, 10), many(sequences, 100)

    def made(one):
        if asks == "lists":
            return bst_batches(one, split, spec=spec, mind=mind, night=NIGHT, options=OPTIONS)
        popularity = fit_module._popularity(one, split, 1.0, 5) if asks == "popular" else None
        options = replace(OPTIONS, asks="events" if asks == "events" else "day")
        return mind_batches(one, split, spec=spec, options=options, popularity=popularity)

    def peak(one):
        tracemalloc.start()
        batches = made(one)
        for _ in range(2):
            batches.on_epoch_begin()
            batches[0]
        event_counts(one, split)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(few)  # what is made once and kept
    assert peak(more) - peak(few) < len(more.items) - len(few.items)
