"""What people see of a fit: a bar on a terminal, elsewhere lines with the time left; a CSV log, and TensorBoard."""

import csv
import io
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from artifacts.store import staged_file
from models.backend import keras

EVERY = 60.0  # seconds after which an epoch that is not done yet says how far it is


def has_bar() -> bool:
    """Say whether Keras shows its bar: on a terminal, and not where NO_COLOR is set, since its colours would stay."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


class Lines(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Tells of each epoch in a line on standard error, and of a long one once a minute how far it is."""

    def __init__(self, network: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Tell of *network* by the seconds of *clock*, which only what is told depends on."""
        super().__init__()
        self._network, self._clock = network, clock
        self._began = self._epoch_began = self._told = 0.0
        self._epoch = self._done = 0

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Start the clock of the whole, which may go on after epochs of an earlier process."""
        self._began, self._done = self._clock(), 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Start the clock of *epoch*, from 0."""
        self._epoch = epoch + 1
        self._epoch_began = self._told = self._clock()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Tell how far the epoch is, if nothing was told for a while; *batch* is from 0."""
        now, done, batches = self._clock(), batch + 1, self.params["steps"]
        if now - self._told >= EVERY and done < batches:
            self._told = now
            left = (now - self._epoch_began) / done * (batches - done)
            self._tell(f"batch {done:,} of {batches:,}, about {_time(left)} left of it")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Tell what the epoch came to, and how long those left may take: validation can end them early."""
        now = self._clock()
        figures = ", ".join(f"{name} {value:.4g}" for name, value in (logs or {}).items())
        self._done += 1
        more = self.params["epochs"] - self._epoch
        left = f", at most {_time((now - self._began) / self._done * more)} left" if more else ""
        self._tell(f"{figures}; {_time(now - self._epoch_began)}{left}")

    def _tell(self, text: str) -> None:
        sys.stderr.write(f"nightrec: {self._network}, epoch {self._epoch} of {self.params['epochs']}: {text}\n")
        sys.stderr.flush()


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def write_log(path: Path, curves: Mapping[str, Sequence[float]]) -> None:
    """Write a line for each epoch, in the form of Keras's CSVLogger: ``epoch`` from 0, then the figures by name."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = sorted(curves)
    writer.writerow(["epoch", *names])
    writer.writerows([epoch, *row] for epoch, row in enumerate(zip(*(curves[name] for name in names), strict=True)))
    with staged_file(path) as file:
        file.write(text.getvalue().encode())


class Board(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Tells TensorBoard of each epoch, by the names of Keras's own callback, which would need TensorFlow."""

    def __init__(self, folder: Path) -> None:
        """Write event files under *folder*, ``train`` and ``validation``; needs the package tensorboard."""
        super().__init__()
        from torch.utils.tensorboard import SummaryWriter

        self._writers = {name: SummaryWriter(str(folder / name)) for name in ("train", "validation")}

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Write the epoch's figures; *epoch* is from 0."""
        for name, value in (logs or {}).items():
            side = "validation" if name.startswith("val_") else "train"
            self._writers[side].add_scalar(f"epoch_{name.removeprefix('val_')}", float(value), epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
