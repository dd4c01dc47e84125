"""What a log is told of training, by a clock that the test holds."""

import pytest

from models.progress import Lines


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
