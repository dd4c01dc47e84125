"""What a log is told of training, by a clock that the test holds."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.progress import Board, Lines, write_log


def test_epochs_and_long_ones_say_how_far_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    """A line a minute in an epoch, and one at its end: what is left follows from what was done so far."""
    moments = iter(
        [
            *(100.0, 100.0),  # training and its first epoch begin
            *(159.0, 160.0, 219.0, 300.0),  # its four batches end
            360.0,  # and its validation
            *(360.0, 419.0, 420.0, 480.0, 500.0, 580.0),  # the second epoch
        ]
    )
    lines = Lines("BST", clock=lambda: next(moments))
    lines.set_params({"epochs": 2, "steps": 4})
    lines.on_train_begin()
    for epoch, logs in enumerate(({"loss": 0.75, "val_loss": 0.5}, {"loss": 0.25})):
        lines.on_epoch_begin(epoch)
        for batch in range(4):
            lines.on_train_batch_end(batch)
        lines.on_epoch_end(epoch, logs)

    assert capfd.readouterr().err.splitlines() == [
        "nightrec: BST, epoch 1 of 2: batch 2 of 4, about 60 s left of it",
        "nightrec: BST, epoch 1 of 2: loss 0.75, val_loss 0.5; 4 min, at most 4 min left",
        "nightrec: BST, epoch 2 of 2: batch 2 of 4, about 60 s left of it",
        "nightrec: BST, epoch 2 of 2: batch 3 of 4, about 40 s left of it",
        "nightrec: BST, epoch 2 of 2: loss 0.25; 4 min",
    ]
    assert next(moments, None) is None


def test_what_is_left_of_a_fit_that_goes_on_follows_from_its_own_epochs(capfd: pytest.CaptureFixture[str]) -> None:
    """The third epoch of five took a minute: two are left, whatever the first two took in another process."""
    moments = iter([100.0, 100.0, 160.0])
    lines = Lines("MIND", clock=lambda: next(moments))
    lines.set_params({"epochs": 5, "steps": 1})
    lines.on_train_begin()
    lines.on_epoch_begin(2)
    lines.on_epoch_end(2, {"loss": 0.5})

    assert capfd.readouterr().err == "nightrec: MIND, epoch 3 of 5: loss 0.5; 60 s, at most 2 min left\n"


def test_a_log_has_a_line_for_each_epoch(tmp_path: Path) -> None:
    """In the form of Keras's CSVLogger: epochs from 0, figures by name."""
    write_log(tmp_path / "log.csv", {"val_loss": [0.5, 0.25], "loss": [1.0, 0.125]})

    assert (tmp_path / "log.csv").read_text() == "epoch,loss,val_loss\n0,1.0,0.5\n1,0.125,0.25\n"


def test_tensorboard_is_told_by_the_names_of_kerass_own_callback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training and validation of one figure lie in one chart, since they differ in the folder alone."""
    told: list[tuple[Any, ...]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            self.folder = Path(folder).relative_to(tmp_path).as_posix()

        def add_scalar(self, *said: Any) -> None:
            told.append((self.folder, *said))

        def flush(self) -> None:
            told.append((self.folder, "flushed"))

        def close(self) -> None:
            told.append((self.folder, "closed"))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    board = Board(tmp_path)

    board.on_epoch_end(3, {"loss": 0.5, "val_loss": 0.25})
    board.on_train_end()

    both = ("train", "validation")
    assert told == [
        ("train", "epoch_loss", 0.5, 3),
        ("validation", "epoch_loss", 0.25, 3),
        *((folder, "flushed") for folder in both),
        *((folder, "closed") for folder in both),
    ]
