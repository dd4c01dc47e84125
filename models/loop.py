"""The loop around a network: Keras compiles and fits it, callbacks watch it, and a killed fit is gone on with."""

import math
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from artifacts.errors import InputError
from models.backend import keras
from models.course import Course, Keeper, load_state
from models.options import FitOptions
from models.progress import Board, Lines, has_bar
from models.trainers import Batches


def run_loop(trainer: Any, train: Batches, valid: Batches, options: FitOptions, course: Course) -> dict[str, Any]:
    """Compile and fit; stop early where there is something to validate on. Returns what the checkpoint tells of it.

    A fit that was killed goes on after its last whole epoch, and ends in the bytes of one that was not.

    Raises:
        InputError: If there is nothing to train on, or the loss became none.
        CorruptError: If the state of an unfinished fit is damaged.
    """
    if not train.examples:
        raise InputError("expected events to train on, found none with a history before them; are the days right?")
    trainer.compile(optimizer=optimizer_of(options))
    stopper = None
    if valid.examples:
        stopper = keras.callbacks.EarlyStopping(
            monitor="val_loss", patience=options.patience, restore_best_weights=True
        )
    network = type(trainer).__name__.removesuffix("Trainer").upper()
    state = load_state(course.state, course.asked) if course.state else None
    keeper = Keeper(course, train, stopper, state)
    bar = options.verbose and has_bar()
    lines = [Lines(network)] if options.verbose and not bar else []
    boards = [Board(course.board)] if course.board else []
    if state and options.verbose:
        sys.stderr.write(f"nightrec: {network}: goes on after epoch {state.epochs} of {options.epochs}\n")
    averages = [Averages(resumed=state is not None)] if options.ema_momentum else []
    stops = [keras.callbacks.TerminateOnNaN(), *averages, *([stopper] if stopper else [])]
    with redirect_stdout(sys.stderr):  # Keras's bar; standard output is for what a command answers
        trainer.fit(
            train,
            validation_data=valid if valid.examples else None,
            initial_epoch=(options.epochs if state.stopped else state.epochs) if state else 0,
            epochs=options.epochs,
            callbacks=[*stops, *boards, *lines, keeper],
            shuffle=False,
            verbose=int(bar),
        )
    return _about(keeper.curves, train.examples, options)


class Averages(keras.callbacks.SwapEMAWeights):  # type: ignore[misc]  # keras ships no types
    """Puts the running average of the weights in their place between epochs: for validation, stopping and the state."""

    def __init__(self, *, resumed: bool) -> None:
        """Begin with the network's own weights, or, if *resumed*, with the averages that a state holds there."""
        super().__init__(swap_on_epoch=True)
        self._ema_weights_in_model = resumed


def optimizer_of(options: FitOptions) -> Any:
    """Make Keras's optimizer, with its clipping of gradients and its average of weights where that is asked for."""
    optimizers = {
        "adam": keras.optimizers.Adam,
        # Keras starts from 0.1, beside which the squares of small gradients vanish: that is plain gradient descent.
        "adagrad": partial(keras.optimizers.Adagrad, initial_accumulator_value=1e-6),
    }
    clips = {name: getattr(options, name) or None for name in ("clipnorm", "global_clipnorm", "clipvalue")}
    average = {"use_ema": True, "ema_momentum": options.ema_momentum} if options.ema_momentum else {}
    return optimizers[options.optimizer](learning_rate=options.learning_rate, **clips, **average)


def _about(curves: dict[str, list[float]], examples: int, options: FitOptions) -> dict[str, Any]:
    if not all(math.isfinite(loss) for loss in curves["loss"]):
        raise InputError(f"training broke down: the loss became {curves['loss'][-1]}; try a lower learning_rate")
    best = int(np.argmin(curves.get("val_loss", [0.0])))
    quality = {name: values[best] for name, values in curves.items() if name.startswith("val_")}
    plain = {key: value for key, value in asdict(options).items() if key != "verbose"}
    return {
        "options": plain,
        "examples": examples,
        "epochs": len(curves["loss"]),
        "best_epoch": best + 1 if "val_loss" in curves else len(curves["loss"]),
        "curves": curves,
        **quality,
    }
