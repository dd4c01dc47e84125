"""What the loop is told by options: clipping of gradients, an average of weights, and what a positive weighs."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
import torch

from artifacts.errors import UsageError
from models.backend import keras
from models.candidates import POSITIVE, Night
from models.checkpoint import build
from models.course import NO_COURSE
from models.examples import split_by_time
from models.fit import FitOptions, bst_batches, fit_mind, mind_batches, mind_trainer
from models.loop import optimizer_of, run_loop
from models.mind import Mind, MindConfig

OPTIONS = FitOptions(epochs=1, batch=32, targets=2, verbose=False)


@pytest.mark.parametrize(
    ("clip", "clipped"),
    [
        ({"clipnorm": 1.0}, [[0.6, 0.8], [0.0, 1.0]]),  # each weight by itself: of lengths 5 and 12
        ({"global_clipnorm": 1.3}, [[0.3, 0.4], [0.0, 1.2]]),  # both together: of length 13
        ({"clipvalue": 3.5}, [[3.0, 3.5], [0.0, 3.5]]),
        ({}, [[3.0, 4.0], [0.0, 12.0]]),
    ],
)
def test_gradients_are_clipped_as_keras_names_it(clip: dict[str, float], clipped: list[list[float]]) -> None:
    """Worked out by hand for two weights whose gradients are (3, 4) and (0, 12), by plain descent of the same clips."""
    told = optimizer_of(replace(OPTIONS, **clip)).get_config()
    descent = keras.optimizers.SGD(1.0, **{name: told[name] for name in ("clipnorm", "global_clipnorm", "clipvalue")})
    weights = [keras.Variable(np.zeros(2, np.float32)) for _ in range(2)]

    descent.apply([torch.tensor([3.0, 4.0]), torch.tensor([0.0, 12.0])], weights)

    moved = np.stack([keras.ops.convert_to_numpy(weight) for weight in weights])
    np.testing.assert_allclose(-moved, clipped, rtol=1e-6)


def test_two_kinds_of_clipping_are_refused() -> None:
    """Keras takes one, and the message names both."""
    with pytest.raises(UsageError, match=r"^train\.clipnorm: expected one kind of clipping, found clipnorm and clipv"):
        replace(OPTIONS, clipnorm=1.0, clipvalue=0.5)


def test_a_positive_weighs_what_is_asked_for_in_training_alone(sequences, spec, vocabularies) -> None:
    """Three times a negative's weight in training; validation measures as before."""
    days = {"train_until": date(1970, 1, 15), "validate_until": date(1970, 1, 20), "zone": "UTC"}
    config = MindConfig(width=8, interests=2, hidden=(8,), start_rows=16)
    split = split_by_time(**days)
    checkpoint = fit_mind(sequences, spec=spec, vocabularies=vocabularies, split=split, config=config, options=OPTIONS)
    how = {"spec": spec, "mind": build(checkpoint), "night": Night(candidates=12, exclude_seen="none")}
    options = replace(OPTIONS, half_life_days=0.0, positive_weight=3.0, batch=1000)

    for training, expected in ((True, 3.0), (False, 1.0)):
        _, labels, weights = bst_batches(sequences, split, **how, options=options, training=training)[0]
        assert set(weights[(labels == POSITIVE) & (weights > 0)].tolist()) == {expected}
        assert set(weights[(labels != POSITIVE) & (weights > 0)].tolist()) == {1.0}


def test_an_average_of_the_weights_is_validated_and_kept(sequences, spec, vocabularies) -> None:
    """Half of what it was and half of the weights after each step, from the first step's on; not the last weights."""
    split = split_by_time(train_until=date(1970, 1, 15), validate_until=date(1970, 1, 20), zone="UTC")
    mind = Mind(MindConfig(width=8, interests=2, hidden=(8,), start_rows=16, unknown_rate=0.0), spec, vocabularies)
    options = replace(OPTIONS, ema_momentum=0.5, learning_rate=0.05)
    trainer = mind_trainer(mind, sequences, split, options)
    train, valid = (
        mind_batches(sequences, split, spec=spec, options=options, training=training) for training in (True, False)
    )
    steps, step = [], trainer.train_step

    def noted(data: object) -> object:
        logs = step(data)
        steps.append([parameter.detach().clone() for parameter in mind.parameters()])
        return logs

    trainer.train_step = noted
    about = run_loop(trainer, train, valid, options, NO_COURSE)

    assert len(steps) > 3
    average = steps[0]
    for weights in steps[1:]:
        average = [(one + other) / 2 for one, other in zip(average, weights, strict=True)]
    for kept, expected, last in zip(mind.parameters(), average, steps[-1], strict=True):
        torch.testing.assert_close(kept.detach(), expected)
        assert not torch.allclose(kept, last)
    assert trainer.evaluate(valid, verbose=0, return_dict=True)["loss"] == pytest.approx(about["val_loss"], rel=1e-5)
