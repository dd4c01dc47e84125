"""What ``nightrec fit`` leaves beside a checkpoint, and that a fit killed with -9 loses an epoch at the most."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nightrec.course import learning_curve
from nightrec.main import execute
from tests.blocks import ROOT
from tests.nightrec.test_fit import TRAIN

PNG = b"\x89PNG\r\n\x1a\n"


KILLED = """
import os, signal, sys
from models.course import Keeper
from nightrec.main import execute

kept = Keeper.on_epoch_end

def keep_and_die(self, epoch, logs=None):
    kept(self, epoch, logs)
    if epoch == 1:
        os.kill(os.getpid(), signal.SIGKILL)

Keeper.on_epoch_end = keep_and_die
execute(sys.argv[1:])
"""


@pytest.fixture
def training(surface: Path) -> Path:
    """A surface with a table [train] whose MIND is fitted in four epochs."""
    surface.write_text(surface.read_text() + TRAIN.replace("epochs = 1, hidden", "epochs = 4, patience = 4, hidden"))
    return surface


def bytes_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_fit_that_was_killed_ends_in_the_bytes_of_one_that_was_not(
    training: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With -9 after the second epoch; the same command goes on, and what an unfinished fit left is gone in the end."""
    models = training.parent / "models"
    state = models / "mind.unfinished.npz"
    command = [sys.executable, "-c", KILLED, "fit", "mind", "--config", str(training)]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=600)
    assert killed.returncode == -signal.SIGKILL
    assert state.exists()
    assert not (models / "mind").exists()

    assert execute(["fit", "mind", "--config", str(training)]) == 0

    assert "nightrec: MIND: goes on after epoch 2 of 4\n" in capsys.readouterr().err
    assert not state.exists()
    after_a_kill = bytes_under(models)
    models.rename(training.parent / "before")
    assert execute(["fit", "mind", "--config", str(training)]) == 0
    assert bytes_under(models) == after_a_kill


def test_a_log_and_a_curve_lie_beside_the_checkpoint(training: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The log has the epochs of the checkpoint itself; a curve that was removed is drawn again, the fit is not done."""
    training.write_text(training.read_text().replace("epochs = 4", "epochs = 3"))
    models = training.parent / "models"

    assert execute(["fit", "mind", "--config", str(training)]) == 0

    curves = json.loads((models / "mind" / "model.json").read_text())["about"]["curves"]
    rows = list(csv.DictReader((models / "mind.csv").read_text().splitlines()))
    assert [row.pop("epoch") for row in rows] == ["0", "1", "2"]
    assert [{name: float(value) for name, value in row.items()} for row in rows] == [
        {name: values[epoch] for name, values in curves.items()} for epoch in range(3)
    ]
    assert (models / "mind.png").read_bytes().startswith(PNG)
    (models / "mind.png").unlink()
    capsys.readouterr()
    assert execute(["fit", "mind", "--config", str(training)]) == 0
    assert "fitted already" in capsys.readouterr().err
    assert (models / "mind.png").read_bytes().startswith(PNG)


def test_without_the_package_a_curve_is_left_out_and_tensorboard_is_refused(
    training: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are told in a line: the one when all is done, the other before anything is read."""
    training.write_text(training.read_text().replace("epochs = 4", "epochs = 1"))
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert execute(["fit", "mind", "--config", str(training)]) == 0
    assert "models/mind.png is not drawn, which needs a package: pip install vl-convert-python" in (
        capsys.readouterr().err
    )
    monkeypatch.setattr("nightrec.course.find_spec", lambda name: None)
    training.write_text(training.read_text().replace("[train]", "[train]\ntensorboard = true"))

    assert execute(["fit", "mind", "--config", str(training)]) == 2

    assert "[train] tensorboard needs a package: pip install tensorboard" in capsys.readouterr().err


def test_a_curve_has_a_panel_for_each_figure_and_marks_the_best_epoch() -> None:
    """Training and validation of one figure lie in one panel; epochs count from 1."""
    curves = {"loss": [2.0, 1.0], "val_loss": [3.0, 4.0], "val_auc": [0.5, 0.6]}

    panels = learning_curve(curves, best=1)["hconcat"]

    assert [panel["title"] for panel in panels] == ["loss", "auc"]
    assert [tuple(row.values()) for row in panels[0]["data"]["values"]] == [
        ("loss", "training", 1, 2.0),
        ("loss", "training", 2, 1.0),
        ("loss", "validation", 1, 3.0),
        ("loss", "validation", 2, 4.0),
    ]
    assert panels[1]["layer"][0]["data"]["values"] == [{"epoch": 1}]


def test_a_warm_start_takes_the_checkpoints_of_an_earlier_folder(
    training: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each network begins with the one of its name; another start is another fit, and a missing one is named."""
    text = training.read_text().replace("epochs = 4, patience = 4", "epochs = 2")
    training.write_text(text)
    for network in ("mind", "bst"):
        assert execute(["fit", network, "--config", str(training)]) == 0
    warm = text.replace(
        "[train]\nuntil = 2026-03-05", '[train]\nfolder = "next"\nwarm_start = "models"\nuntil = 2026-03-06'
    )
    training.write_text(warm)

    for network in ("mind", "bst"):
        assert execute(["fit", network, "--config", str(training)]) == 0

    def first_loss(folder: str) -> float:
        document = json.loads((training.parent / folder / "mind" / "model.json").read_text())
        return float(document["about"]["curves"]["loss"][0])

    assert first_loss("next") < first_loss("models")
    training.write_text(warm.replace('warm_start = "models"\n', ""))
    assert execute(["fit", "mind", "--config", str(training)]) == 2
    assert "next/mind: was fitted from other [train] warm_start; move it away" in capsys.readouterr().err
    training.write_text(warm.replace('warm_start = "models"', 'warm_start = "elsewhere"').replace('"next"', '"third"'))
    assert execute(["fit", "mind", "--config", str(training)]) == 2
    assert "[train] warm_start: expected the folder of an earlier fit, found none at" in capsys.readouterr().err
    (training.parent / "elsewhere").mkdir()
    assert execute(["fit", "mind", "--config", str(training)]) == 2
    assert "elsewhere/mind: expected a checkpoint, found no model.json" in capsys.readouterr().err
    training.write_text(warm.replace("interests = 2", "interests = 3").replace('"next"', '"third"'))
    assert execute(["fit", "mind", "--config", str(training)]) == 2
    assert "warm start: interests is 2 in the checkpoint, but 3 here; make them" in capsys.readouterr().err
