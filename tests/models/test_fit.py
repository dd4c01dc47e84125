from dataclasses import replace
from datetime import date

import numpy as np
import pytest
import torch

from artifacts.bundle import Role, input_names
from artifacts.errors import InputError, UsageError
from models import fit as module
from models.backend import keras
from models.bst import Bst, BstConfig
from models.candidates import Night, retrieve
from models.checkpoint import build, load_checkpoint
from models.evaluate import bst_scores, mind_scores, most_popular, ranking_quality, retrieval_quality
from models.events import EventIndex
from models.examples import next_day, next_events, split_by_time
from models.fit import (
    FitOptions,
    bst_batches,
    calibrate,
    fit_bst,
    fit_mind,
    forget_untrained,
    mind_batches,
    mind_trainer,
)
from models.mind import Mind, MindConfig
from models.trainers import BstTrainer, hide_ids, reproducible

MIND = MindConfig(width=16, interests=2, hidden=(16,), start_rows=16, normalise=True, temperature=0.1, power=1.0)
BST = BstConfig(width=16, gap_width=4, heads=2, ffn_width=16, mlp=(16,))
OPTIONS = FitOptions(epochs=20, patience=20, batch=32, learning_rate=0.02, targets=2)
NIGHT = Night(candidates=12, exclude_seen="none")
DAY = 86_400_000_000


def days(train_until, validate_until):
    return split_by_time(
        train_until=date(1970, 1, train_until), validate_until=date(1970, 1, validate_until), zone="UTC"
    )


@pytest.fixture(scope="module")
def fitted(sequences, spec, vocabularies, split):
    return fit_mind(sequences, spec=spec, vocabularies=vocabularies, split=split, config=MIND, options=OPTIONS)


@pytest.fixture(scope="module")
def earlier(sequences, spec, vocabularies):
    """A MIND that knows little: one epoch, without the last days that BST is trained on."""
    return fit_mind(
        sequences,
        spec=spec,
        vocabularies=vocabularies,
        split=days(6, 6),
        config=MIND,
        options=replace(OPTIONS, epochs=1),
    )


def hit_rate(sequences, split, score):
    examples = next_day(sequences, split.valid, zone="UTC")
    return retrieval_quality(sequences, examples, score, night=NIGHT, ks=(8,)).hit_rate[8]


def test_mind_finds_the_planted_taste(sequences, split, fitted):
    """On held-out days the eight best items are those of the user's own taste; popularity finds a third of them."""
    index = EventIndex(sequences, zone="UTC", until_us=split.valid.end_us)
    assert hit_rate(sequences, split, mind_scores(sequences, build(fitted))) > 0.95
    assert hit_rate(sequences, split, most_popular(sequences, index, 30)) < 0.6


@pytest.mark.parametrize(("attention", "power"), [("label", 2.0), ("own", float("inf"))])
def test_both_attentions_learn(sequences, spec, vocabularies, split, attention, power):
    """The paper's attention, and an arg max of one's own, find the taste too."""
    config = replace(MIND, attention=attention, power=power)
    checkpoint = fit_mind(sequences, spec=spec, vocabularies=vocabularies, split=split, config=config, options=OPTIONS)
    assert hit_rate(sequences, split, mind_scores(sequences, build(checkpoint))) > 0.9


def test_a_large_catalogue_is_learnt_from_samples(sequences, spec, vocabularies, split, monkeypatch):
    """Above the limit a step compares with drawn items alone, and finds the taste nevertheless."""
    monkeypatch.setattr(module, "SMALL_CATALOGUE", 10)
    trainer = mind_trainer(Mind(MIND, spec, vocabularies), sequences, split, OPTIONS)
    assert trainer.catalogue.sampler is not None
    checkpoint = fit_mind(
        sequences, spec=spec, vocabularies=vocabularies, split=split, config=MIND, options=replace(OPTIONS, draws=12)
    )
    assert hit_rate(sequences, split, mind_scores(sequences, build(checkpoint))) > 0.9


def test_one_seed_gives_one_set_of_weights(sequences, spec, vocabularies, split, earlier):
    """Two fits with one seed are equal bit for bit, whatever torch drew before; another seed gives other weights."""

    def weights(seed):
        torch.rand(seed)
        options = replace(OPTIONS, epochs=2, seed=seed)
        mind = fit_mind(sequences, spec=spec, vocabularies=vocabularies, split=split, config=MIND, options=options)
        bst = fit_bst(
            sequences,
            spec=spec,
            vocabularies=vocabularies,
            split=split,
            retrieval=earlier,
            night=NIGHT,
            config=BST,
            options=options,
        )
        return {**mind.weights, **{f"bst.{name}": array for name, array in bst.weights.items()}}

    one, again, other = weights(3), weights(3), weights(4)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert any(not np.array_equal(one[name], other[name]) for name in one if name.startswith("bst."))
    assert any(not np.array_equal(one[name], other[name]) for name in one if not name.startswith("bst."))


def test_torch_is_left_as_it_was(sequences, spec, vocabularies, split):
    """Fitting changes neither torch's random state nor its settings, threads among them."""
    before = torch.random.get_rng_state()
    torch.set_num_threads(2)
    fit_mind(
        sequences,
        spec=spec,
        vocabularies=vocabularies,
        split=split,
        config=MIND,
        options=replace(OPTIONS, epochs=1),
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_what_happened_after_training_changes_no_weight(make_sequences, sequences, spec, vocabularies, split):
    """With other events on the days after training, a fit without early stopping gives the same weights."""
    late = sequences.times_us >= split.train.end_us
    changed = replace(sequences, items=np.where(late, (sequences.items + 1) % 24, sequences.items).astype(np.int32))
    options = replace(OPTIONS, epochs=1)
    one, other = (
        fit_mind(data, spec=spec, vocabularies=vocabularies, split=split, config=MIND, options=options)
        for data in (sequences, changed)
    )
    assert one.about["val_loss"] != other.about["val_loss"]
    for name, array in one.weights.items():
        np.testing.assert_array_equal(array, other.weights[name])


def test_the_checkpoint_tells_the_last_day_of_training(sequences, spec, vocabularies, split, tmp_path):
    """`trained_through` is the last training day, not the last validation day, and survives the disk."""
    fit_mind(
        sequences,
        spec=spec,
        vocabularies=vocabularies,
        split=split,
        config=MIND,
        options=replace(OPTIONS, epochs=1),
        out=tmp_path / "mind",
    )
    assert load_checkpoint(tmp_path / "mind").trained_through == "1970-01-15"


def test_fitting_stops_when_validation_gets_worse_and_keeps_the_best(sequences, spec, vocabularies, split):
    """Early stopping ends the fit and restores the weights of the best epoch."""
    options = replace(OPTIONS, epochs=60, patience=1, learning_rate=0.1)
    checkpoint = fit_mind(sequences, spec=spec, vocabularies=vocabularies, split=split, config=MIND, options=options)
    curve = checkpoint.about["curves"]["val_loss"]
    assert len(curve) < 60
    assert checkpoint.about["val_loss"] == min(curve) < curve[-1]
    assert curve[checkpoint.about["best_epoch"] - 1] == min(curve)
    trainer = mind_trainer(build(checkpoint), sequences, split, options)
    trainer.compile(optimizer="adam")
    valid = mind_batches(sequences, split, spec=spec, options=options, training=False)
    assert trainer.evaluate(valid, return_dict=True, verbose=0)["loss"] == pytest.approx(min(curve), rel=1e-5)


def test_keras_predicts_what_the_network_does(sequences, spec, fitted, split):
    """`predict` gives the interests and counts, and the scores, of the torch modules themselves."""
    mind = build(fitted)
    trainer = mind_trainer(mind, sequences, split, OPTIONS)
    trainer.compile(optimizer=keras.optimizers.Adam())
    valid = mind_batches(sequences, split, spec=spec, options=OPTIONS, training=False)
    interests, count = trainer.predict(valid, verbose=0)
    with torch.no_grad():
        parts = [
            mind.interests(*(torch.from_numpy(valid[i][0][name]) for name in input_names(Role.USER, spec)))
            for i in range(len(valid))
        ]
    np.testing.assert_allclose(interests, np.concatenate([part[0].numpy() for part in parts]), atol=1e-6)
    np.testing.assert_array_equal(count, np.concatenate([part[1].numpy() for part in parts]))


def test_bst_learns_what_retrieval_does_not_know(sequences, spec, vocabularies, split, earlier):
    """On held-out days BST tells the user's own taste among candidates that an unlearned MIND retrieved."""
    checkpoint = fit_bst(
        sequences,
        spec=spec,
        vocabularies=vocabularies,
        split=split,
        retrieval=earlier,
        night=NIGHT,
        config=BST,
        options=replace(OPTIONS, epochs=30, patience=30, optimizer="adagrad", learning_rate=0.1),
    )
    assert checkpoint.trained_through == "1970-01-15"
    assert checkpoint.about["retrieval_trained_through"] == "1970-01-06"
    lists, label = checkpoint.lists, checkpoint.lists["label"]
    assert lists.keys() == {*input_names(Role.RANKER, spec), "label"}
    assert {len(array) for array in lists.values()} == {len(label)}
    assert (label.max(axis=1) == 1).all()  # each list has what came true
    assert ((lists["candidate_item_id"] == 0) <= (label == -1)).all()
    index = EventIndex(sequences, zone="UTC", until_us=split.valid.end_us)
    examples = next_events(sequences, split.valid, targets=1)
    found = retrieve(sequences, examples, index, mind=build(earlier), night=NIGHT)
    scores = bst_scores(sequences, examples, index, found, bst=build(checkpoint), night=NIGHT)
    learnt, retrieved = ranking_quality(scores, found), ranking_quality(found.scores, found)
    assert learnt.gauc > 0.7
    assert learnt.gauc > retrieved.gauc + 0.05


def test_bst_is_not_trained_on_days_that_retrieval_has_seen(sequences, spec, vocabularies, split, fitted, earlier):
    """In-sample candidates are refused by name, and training begins after retrieval's last day."""
    common = {"spec": spec, "vocabularies": vocabularies, "night": NIGHT, "config": BST, "options": OPTIONS}
    with pytest.raises(UsageError, match=r"trained through 1970-01-15.*fit one for this on earlier days"):
        fit_bst(sequences, split=split, retrieval=fitted, **common)
    later = module.after_retrieval(split, earlier)
    assert (later.train.start_us, later.train.end_us) == (6 * DAY, split.train.end_us)
    bst = fit_bst(sequences, split=split, retrieval=earlier, **{**common, "options": replace(OPTIONS, epochs=1)})
    with pytest.raises(UsageError, match="expected a MIND checkpoint to retrieve with, found bst"):
        fit_bst(sequences, split=days(20, 20), retrieval=bst, **common)


def test_in_sample_days_are_learnt_from_where_that_is_asked_for(sequences, spec, vocabularies, split, fitted):
    """With `in_sample`, BST learns from every training day with the night's own MIND, and says so."""
    options = replace(OPTIONS, epochs=1, in_sample=True)
    bst = fit_bst(
        sequences,
        spec=spec,
        vocabularies=vocabularies,
        split=split,
        retrieval=fitted,
        night=NIGHT,
        config=BST,
        options=options,
    )
    assert bst.about["options"]["in_sample"]
    assert bst.about["retrieval_trained_through"] == bst.trained_through == "1970-01-15"


def test_without_validation_days_every_epoch_is_run(sequences, spec, vocabularies):
    """A model that is fitted again on every day has nothing to stop it early: it runs the epochs it was given."""
    every = days(20, 20)
    told = {"spec": spec, "vocabularies": vocabularies, "split": every}
    mind = fit_mind(sequences, config=MIND, options=replace(OPTIONS, epochs=2), **told)
    options = replace(OPTIONS, epochs=2, in_sample=True)
    bst = fit_bst(sequences, retrieval=mind, night=NIGHT, config=BST, options=options, **told)

    for checkpoint in (mind, bst):
        assert checkpoint.about["best_epoch"] == checkpoint.about["epochs"] == 2
        assert checkpoint.trained_through == "1970-01-20"
        assert "val_loss" not in checkpoint.about


def test_the_residual_starts_from_the_likeliest_weights_and_bias(sequences, spec, vocabularies, split, earlier):
    """Calibration finds the weights of cross features, and the bias, at which the cross entropy's gradient is zero."""
    bst = Bst(BST, spec, vocabularies)
    later = module.after_retrieval(split, earlier)
    batches = bst_batches(sequences, later, spec=spec, mind=build(earlier), night=NIGHT, options=OPTIONS)
    trainer = BstTrainer(bst.eval(), input_names(Role.RANKER, spec))

    def slopes():
        bst.zero_grad()
        for inputs, labels, weights in (batches[index] for index in range(len(batches))):
            told = [torch.from_numpy(inputs[name]) for name in input_names(Role.RANKER, spec)]
            loss = trainer.compute_loss(
                y=torch.from_numpy(labels), y_pred=bst.logits(*told), sample_weight=torch.from_numpy(weights)
            )
            (loss * float((weights > 0).sum())).backward()
        return np.append(bst.head.wide.grad.abs().numpy(), abs(float(bst.head.last.bias.grad)))

    before = slopes()
    calibrate(bst, batches)
    after = slopes()
    assert len(spec.cross_features) > 1
    assert (after < 0.01 * before).all(), (before, after)


def test_negatives_have_the_declared_ratio_and_change_with_the_epoch(sequences, spec, split, earlier):
    """A batch holds `ratio` negatives for each positive; the next epoch draws others, validation does not."""
    mind, options = build(earlier), replace(OPTIONS, ratio=2, batch=1000)
    batches = bst_batches(
        sequences, module.after_retrieval(split, earlier), spec=spec, mind=mind, night=NIGHT, options=options
    )
    inputs, labels, weights = batches[0]
    positives, places = labels.sum(), (weights > 0).sum()
    assert 2.5 < places / positives <= 3
    batches.on_epoch_begin()
    batches.on_epoch_begin()
    assert not np.array_equal(np.sort(inputs["candidate_item_id"]), np.sort(batches[0][0]["candidate_item_id"]))


def test_an_id_that_was_never_trained_is_the_unknown_one(sequences, spec, vocabularies, split):
    """Known ids without an event get the unknown row's vector; trained and padding rows stay."""
    without = replace(sequences, items=np.where(sequences.items == 5, 2, sequences.items).astype(np.int32))
    for network in (Mind(MIND, spec, vocabularies), Bst(BST, spec, vocabularies)):
        before = network.item_tables[0].weight.detach().clone()
        forget_untrained(network, without, split)
        after = network.item_tables[0].weight.detach()
        assert torch.equal(after[5 + 2], before[1])
        assert not torch.equal(after[5 + 2], before[5 + 2])
        kept = [row for row in range(len(before)) if row != 5 + 2]
        assert torch.equal(after[kept], before[kept])


def test_ids_become_unknown_at_the_rate_and_padding_never_does():
    """Known rows turn into row 1 at the declared rate; rows 0 and 1 stay what they are."""
    with reproducible(0):
        (hidden,) = hide_ids([torch.tensor([0, 1, 2, 9]).repeat(20_000, 1)], 0.02)
    assert (hidden[:, 0] == 0).all()
    assert (hidden[:, 1] == 1).all()
    for column, row in ((2, 2), (3, 9)):
        assert set(hidden[:, column].tolist()) == {1, row}
        assert float((hidden[:, column] == 1).float().mean()) == pytest.approx(0.02, abs=0.005)


def test_days_without_events_are_an_input_error(sequences, spec, vocabularies):
    """Nothing to learn from is said so, before anything is trained."""
    with pytest.raises(InputError, match="expected events to train on"):
        fit_mind(
            replace(sequences, times_us=sequences.times_us + 100 * DAY),
            spec=spec,
            vocabularies=vocabularies,
            split=days(2, 3),
            config=MIND,
            options=OPTIONS,
        )


def test_a_log_gets_a_line_for_each_epoch(sequences, spec, vocabularies, split, capfd):
    """Without a terminal there is no bar, and no silence; who wants it says so. Standard output is never written to."""
    options = replace(OPTIONS, epochs=2, patience=5)
    common = {"spec": spec, "vocabularies": vocabularies, "split": split, "config": MIND}
    curves = fit_mind(sequences, options=options, **common).about["curves"]
    said = capfd.readouterr()

    for epoch, line in enumerate(said.err.splitlines()):
        figures = ", ".join(f"{name} {curve[epoch]:.4g}" for name, curve in curves.items())
        assert line.startswith(f"nightrec: MIND, epoch {epoch + 1} of 2: {figures}; ")
    assert (said.out, said.err.count("\n")) == ("", 2)
    fit_mind(sequences, options=replace(options, verbose=False), **common)
    assert capfd.readouterr() == ("", "")


def test_bst_hides_ids_and_nothing_else(sequences, spec, vocabularies, split, earlier):
    """In training, ids become unknown; gap buckets and cross features are told as they are."""
    seen = {}

    class Spy(Bst):
        def logits(self, *inputs):
            seen.update(zip(input_names(Role.RANKER, spec), inputs, strict=True))
            return super().logits(*inputs)

    trainer = BstTrainer(Spy(BST, spec, vocabularies), input_names(Role.RANKER, spec), unknown_rate=0.9)
    later = module.after_retrieval(split, earlier)
    batches = bst_batches(sequences, later, spec=spec, mind=build(earlier), night=NIGHT, options=OPTIONS)
    inputs, _, _ = batches[0]
    trainer({name: torch.from_numpy(array) for name, array in inputs.items()}, training=True)
    for name, array in inputs.items():
        told = seen[name].numpy()
        if name in ("gap", "cross"):
            np.testing.assert_array_equal(told, array)
        else:
            assert (told[array > 1] == 1).mean() > 0.7
            np.testing.assert_array_equal(told[array <= 1], array[array <= 1])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        *((name, 0, "1 or more") for name in ("epochs", "batch", "targets", "draws", "ratio", "threads")),
        ("patience", -1, "0 or more"),
        ("seed", -1, "0 or more"),
        ("optimizer", "adma", '"adam" or "adagrad"'),
        *(("learning_rate", value, "more than 0") for value in (0.0, -0.1, float("nan"), float("inf"))),
        ("half_life_days", -1.0, "0 or more"),
        *((name, value, "a share from 0 to 1") for name in ("stale_rate", "unknown_rate") for value in (-0.1, 1.1)),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(name: str, value: float | str, said: str) -> None:
    """The message names the field, what was expected and what was found, before any data is read."""
    with pytest.raises(UsageError, match=f"train.{name}: expected {said}, found "):
        replace(OPTIONS, **{name: value})


def test_options_at_their_bounds_are_taken() -> None:
    """No patience, no half-life and both shares' ends are choices that one may have."""
    bounds = FitOptions(epochs=1, patience=0, half_life_days=0.0, stale_rate=1.0, unknown_rate=0.0)

    assert (bounds.patience, bounds.stale_rate) == (0, 1.0)
