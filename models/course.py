"""How a fit begins, is watched and goes on: what it starts from, its log, and the state that a killed one left."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from artifacts.errors import CorruptError, UsageError
from artifacts.store import staged_file
from models.backend import keras
from models.checkpoint import Checkpoint
from models.progress import write_log
from models.trainers import Batches

Arrays = dict[str, npt.NDArray[Any]]
Curves = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Course:
    """What lies around a fit; all but ``start`` changes no weight.

    Attributes:
        start: A checkpoint whose weights are started from; None starts anew.
        log: CSV file with a line for each epoch.
        board: Folder for TensorBoard.
        state: File that holds an unfinished fit after each epoch: whoever fits the same with it goes on from there.
        asked: What is fitted from what, in a word: a state of another is not gone on with.
    """

    start: Checkpoint | None = None
    log: Path | None = None
    board: Path | None = None
    state: Path | None = None
    asked: str = ""


NO_COURSE = Course()


@dataclass(frozen=True, slots=True)
class State:
    """An unfinished fit after an epoch.

    Attributes:
        epochs: How many are done.
        stopped: Whether early stopping said that no more are to come.
        number: Of the epoch that the batches are at.
        curves: Loss and metrics of each epoch, by name.
        stopper: Early stopping's numbers, by name.
        weights: The network's, in the order of the Keras model.
        optimizer: The optimizer's variables, in its order.
        best: The weights of the best epoch, where there is validation.
        random: States of torch's generators: the processor's, then each GPU's.
    """

    epochs: int
    stopped: bool
    number: int
    curves: Curves
    stopper: dict[str, float | int | None]
    weights: list[npt.NDArray[Any]] = field(default_factory=list)
    optimizer: list[npt.NDArray[Any]] = field(default_factory=list)
    best: list[npt.NDArray[Any]] = field(default_factory=list)
    random: list[npt.NDArray[Any]] = field(default_factory=list)


_PLAIN = ("epochs", "stopped", "number", "curves", "stopper")
_LISTS = ("weights", "optimizer", "best", "random")
_STOPPER = ("wait", "best", "best_epoch", "stopped_epoch")


def save_state(path: Path, state: State, asked: str) -> None:
    """Write *state* in place of the one before, whole or not at all; nothing in it is pickled."""
    arrays = {f"{name}/{place}": array for name in _LISTS for place, array in enumerate(getattr(state, name))}
    document = {"asked": asked, **{name: getattr(state, name) for name in _PLAIN}}
    with staged_file(path) as file:
        np.savez(file, allow_pickle=False, document=np.array(json.dumps(document)), **arrays)


def load_state(path: Path, asked: str) -> State | None:
    """Read what :func:`save_state` wrote; None where there is nothing, or it is of another fit.

    Raises:
        CorruptError: If the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            document = json.loads(str(file["document"]))
            if document.pop("asked") != asked:
                return None
            counts = {name: sum(one.startswith(f"{name}/") for one in file.files) for name in _LISTS}
            lists: dict[str, Any] = {
                name: [file[f"{name}/{place}"] for place in range(count)] for name, count in counts.items()
            }
            return State(**document, **lists)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CorruptError(
            f"{path}: expected the state of an unfinished fit, found something else ({error}); remove it to begin anew"
        ) from error


class Keeper(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Notes every epoch's figures, and keeps the state of the fit; stands behind all that a state is made of."""

    def __init__(self, course: Course, batches: Batches, stopper: Any, state: State | None) -> None:
        """Go on from *state*, if there is one.

        Args:
            course: Where log and state are written.
            batches: What is trained on.
            stopper: Keras's callback that stops early; None where nothing is validated.
            state: Of :func:`load_state`.
        """
        super().__init__()
        self._course, self._batches, self._stopper, self._state = course, batches, stopper, state
        self.curves: Curves = {name: list(values) for name, values in state.curves.items()} if state else {}

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Put everything back to where it was.

        Raises:
            UsageError: If the state is of a network with other weights.
        """
        state, self._state = self._state, None
        if state is None:
            return
        if [array.shape for array in state.weights] != [tuple(weight.shape) for weight in self.model.weights]:
            raise UsageError(
                f"{self._course.state}: expected an unfinished fit of this network, found one of another version's; "
                "remove it to begin anew"
            )
        self.model.set_weights(state.weights)
        for variable, value in zip(self.model.optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)
        if self._stopper is not None:
            for name, number in state.stopper.items():
                setattr(self._stopper, name, number)
            self._stopper.best_weights = state.best or None
        self._batches.go_on_after(state.number)
        torch.set_rng_state(torch.from_numpy(state.random[0]))
        if len(state.random) > 1:
            torch.cuda.set_rng_state_all([torch.from_numpy(one) for one in state.random[1:]])

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Note and keep; *epoch* is from 0."""
        for name, value in (logs or {}).items():
            self.curves.setdefault(name, []).append(float(value))
        if self._course.log is not None:
            write_log(self._course.log, self.curves)
        if self._course.state is not None:
            save_state(self._course.state, self._taken(epoch + 1), self._course.asked)

    def _taken(self, epochs: int) -> State:
        stopper = {} if self._stopper is None else {name: _plain(getattr(self._stopper, name)) for name in _STOPPER}
        generators = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]
        return State(
            epochs,
            bool(self.model.stop_training),
            self._batches.number,
            self.curves,
            stopper,
            weights=self.model.get_weights(),
            optimizer=[keras.ops.convert_to_numpy(variable) for variable in self.model.optimizer.variables],
            best=list(getattr(self._stopper, "best_weights", None) or []),
            random=[generator.numpy() for generator in generators],
        )


def _plain(value: Any) -> float | int | None:
    return value if value is None or isinstance(value, int) else float(value)
