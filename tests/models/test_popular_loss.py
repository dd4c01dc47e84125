"""Popularity in MIND's training: the loss adds to each score what a night would, as of each example's day."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from artifacts.bundle import Role, input_names
from models.candidates import Night, popularity_of
from models.evaluate import hit_rate, ranks_of
from models.events import EventIndex
from models.examples import next_events
from models.fit import FitOptions, fit_mind, mind_batches, mind_trainer
from models.losses import sampled_softmax, score_targets, serving_scores
from models.mind import Mind, MindConfig
from models.trainers import MindTrainer, Sampler

DAY = 86_400_000_000
MIND = MindConfig(width=16, interests=2, hidden=(16,), start_rows=16, power=1.0, unknown_rate=0.0)
OPTIONS = FitOptions(epochs=2, patience=2, batch=32, learning_rate=0.02, targets=2, verbose=False)
NIGHT = Night(popular_days=3, popularity_weight=1.5)


@pytest.fixture
def asked(sequences, spec, vocabularies, split):
    """A MIND of start weights, validation's batches with popularity, and the trainer that compares them with all."""
    index = EventIndex(sequences, zone="UTC", until_us=split.valid.end_us)
    moments = np.array([split.train.start_us, split.valid.end_us - 1])
    popularity = popularity_of(index, moments, len(sequences.catalogue), NIGHT)
    mind = Mind(MIND, spec, vocabularies).eval()
    batches = mind_batches(sequences, split, spec=spec, options=OPTIONS, training=False, popularity=popularity)
    return mind, batches, mind_trainer(mind, sequences, split, OPTIONS, popularity)


def counted(sequences, now_us):
    """What the night would add to each item, one event after the other."""
    today = now_us // DAY
    added = np.zeros(len(sequences.catalogue))
    for item, time in zip(sequences.items, sequences.times_us, strict=True):
        if item >= 0 and today - NIGHT.popular_days <= time // DAY < today:
            added[item] += 1
    return NIGHT.popularity_weight * np.log1p(added)


def scored(mind, trainer, inputs, targets):
    """Scores of a batch by the network alone: of the targets, of all items, and as serving has them."""
    with torch.no_grad():
        interests, count, _ = mind.interests(*(torch.from_numpy(inputs[name]) for name in trainer.names))
        vectors = mind.item_vectors(*trainer.catalogue.rows)
        positive, others = score_targets(
            interests, count, vectors[targets], vectors, attention=MIND.attention, power=MIND.power
        )
        return positive, others, serving_scores(interests, count, vectors)


def test_a_batch_knows_its_examples_days(sequences, asked, split):
    """The row of each example is what everybody did on the days before its own."""
    _, batches, trainer = asked
    inputs, _, _ = batches[0]
    examples = next_events(sequences, split.valid, targets=OPTIONS.targets)
    assert len({int(day) for day in inputs["day"]}) > 1
    for row in (0, len(inputs["day"]) - 1):
        expected = counted(sequences, examples.now_us[row])
        np.testing.assert_allclose(trainer.catalogue.added[inputs["day"][row]], expected, rtol=1e-6)
        assert expected.max() > 1


def test_validation_judges_scores_with_popularity(asked):
    """Loss and hit rate are those of inner products and what popularity adds, over a catalogue of 120 items."""
    mind, batches, small = asked
    many = [rows.repeat(5) for rows in small.catalogue.rows]
    added = 2 * torch.rand((len(small.catalogue.added), 120), generator=torch.Generator().manual_seed(3))
    trainer = MindTrainer(mind, small.names, many, added=added)
    trainer.compile(optimizer="adam")
    told = trainer.evaluate(batches, return_dict=True, verbose=0)

    losses, ranks = [], []
    for number in range(len(batches)):
        inputs, targets, weight = batches[number]
        positive, others, served = scored(mind, trainer, inputs, targets)
        popular = added[inputs["day"]]
        chosen = positive + popular.gather(1, torch.from_numpy(targets))
        terms = (others[:, 0] + popular).logsumexp(dim=1, keepdim=True) - chosen
        losses.append((len(targets), float(terms.numpy()[weight > 0].mean())))
        rows, places = np.nonzero(weight)
        ranks.append(ranks_of((served + popular).numpy(), rows, targets[rows, places]))
    users, of_batch = np.array(losses).T
    assert told["loss"] == pytest.approx(np.average(of_batch, weights=users), rel=1e-5)
    assert 0.1 < told["hit_rate_50"] < 0.9
    assert told["hit_rate_50"] == pytest.approx(hit_rate(np.concatenate(ranks), 50), abs=1e-6)


@pytest.mark.parametrize("attention", ["own", "label"])
def test_a_step_compares_scores_with_popularity(asked, attention):
    """Against the whole catalogue and against a sample, the step's loss is that of the added scores."""
    mind, batches, trainer = asked
    mind.config = replace(MIND, attention=attention)
    inputs, targets, weight = batches[0]
    x = {name: torch.from_numpy(np.asarray(values)) for name, values in inputs.items()}
    y, weights = torch.from_numpy(targets), torch.from_numpy(weight)
    added = trainer.catalogue.added[inputs["day"]]
    drawn = torch.arange(0, len(added[0]), 2)
    with torch.no_grad():
        interests, count, _ = mind.interests(*(x[name] for name in trainer.names))
        vectors = mind.item_vectors(*trainer.catalogue.rows)
        how = {"attention": attention, "power": MIND.power}
        positive, others = score_targets(interests, count, vectors[targets], vectors, **how)
        told = trainer.compute_loss(x, y, (interests, count), weights)
        every = (others + added[:, None]).logsumexp(dim=2) - (positive + added.gather(1, y))
        assert told.item() == pytest.approx(((every * weights).sum() / weights.sum()).item(), rel=1e-5)

        sampler = Sampler(8, torch.full((len(added[0]),), 1 / len(added[0])))
        trainer.catalogue = replace(trainer.catalogue, sampler=sampler)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Sampler, "draw", lambda self: drawn)
            told = trainer.compute_loss(x, y, (interests, count), weights)
        expected = sampled_softmax(
            positive + added.gather(1, y),
            others[:, :, drawn] + added[:, None, drawn],
            weights,
            hits=y[:, :, None] == drawn,
            log_q=sampler.log_inclusion(y),
            candidate_log_q=sampler.log_inclusion(drawn),
        )
        assert told.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_fit_follows_its_weight_and_days(sequences, spec, vocabularies, split):
    """Equal ones give the same network, others another; with the weight 0 batches know no day, and no days matter."""

    def fitted(weight, days):
        options = replace(OPTIONS, popularity_weight=weight)
        told = {"spec": spec, "vocabularies": vocabularies, "split": split, "config": MIND, "options": options}
        return fit_mind(sequences, **told, popular_days=days).weights

    def same(one, other):
        return all(np.array_equal(one[name], other[name]) for name in one)

    first, plain = fitted(1.5, 3), fitted(0.0, 3)
    assert same(first, fitted(1.5, 3))
    assert same(plain, fitted(0.0, 5))
    assert not same(first, plain)
    assert not same(first, fitted(1.5, 5))
    batches = mind_batches(sequences, split, spec=spec, options=OPTIONS, training=False)
    assert tuple(batches[0][0]) == input_names(Role.USER, spec)
