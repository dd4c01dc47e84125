"""What ``nightrec fit`` leaves beside a checkpoint, and that a fit killed with -9 loses an epoch at the most."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nightrec.course import learning_curve
from nightrec.main import execute
from tests.nightrec.test_fit import TRAIN

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def training(surface: Path) -> Path:
    """A surface with a table [train] whose MIND takes seconds, and stops at no epoch by itself."""
    surface.write_text(
        surface.read_text() + TRAIN.replace("epochs = 1, hidden", "epochs = 150, patience = 150, hidden")
    )
    return surface


def bytes_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_fit_that_was_killed_ends_in_the_bytes_of_one_that_was_not(training: Path, command: Any) -> None:
    """With -9 between two epochs; the second `fit` of the same goes on, and the state is gone in the end."""
    models = training.parent / "models"
    state = models / "mind.unfinished.npz"
    arguments = [sys.executable, "-m", "nightrec.main", "fit", "mind", "--config", str(training)]
    process = subprocess.Popen(arguments, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 300
    while not state.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert not (models / "mind").exists()

    again = command("fit", "mind", "--config", training)

    assert again.returncode == 0, again.stderr
    assert "nightrec: MIND: goes on after epoch " in again.stderr
    assert not state.exists()
    after_a_kill = bytes_under(models)
    models.rename(training.parent / "before")
    assert command("fit", "mind", "--config", training).returncode == 0
    assert bytes_under(models) == after_a_kill


def test_a_log_and_a_curve_lie_beside_the_checkpoint(training: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The log has the epochs of the checkpoint itself; a curve that was removed is drawn again, the fit is not done."""
    training.write_text(training.read_text().replace("epochs = 150", "epochs = 3"))
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
    training.write_text(training.read_text().replace("epochs = 150", "epochs = 1"))
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


def test_a_warm_start_takes_the_checkpoints_of_an_earlier_folder(training: Path, command: Any) -> None:
    """Each network begins with the one of its name; another start is another fit, and a missing one is named."""
    text = training.read_text().replace("epochs = 150, patience = 150", "epochs = 2")
    training.write_text(text)
    for network in ("mind", "bst"):
        assert command("fit", network, "--config", training).returncode == 0
    warm = text.replace(
        "[train]\nuntil = 2026-03-05", '[train]\nfolder = "next"\nwarm_start = "models"\nuntil = 2026-03-06'
    )
    training.write_text(warm)

    for network in ("mind", "bst"):
        fitted = command("fit", network, "--config", training)
        assert fitted.returncode == 0, fitted.stderr

    def first_loss(folder: str) -> float:
        document = json.loads((training.parent / folder / "mind" / "model.json").read_text())
        return float(document["about"]["curves"]["loss"][0])

    assert first_loss("next") < first_loss("models")
    training.write_text(warm.replace('warm_start = "models"', 'warm_start = "elsewhere"').replace('"next"', '"third"'))
    missing = command("fit", "mind", "--config", training)
    assert missing.returncode == 2
    assert "elsewhere/mind: expected a checkpoint, found no model.json" in missing.stderr
    training.write_text(warm.replace("interests = 2", "interests = 3").replace('"next"', '"third"'))
    other = command("fit", "mind", "--config", training)
    assert other.returncode == 2
    assert "warm start: interests is 2 in the checkpoint, but 3 here; make them equal, or fit anew" in other.stderr
