"""What ``nightrec fit`` leaves beside a checkpoint: its log, its learning curve, and the state of an unfinished fit."""

from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.digest import document_digest
from artifacts.documents import read_json
from artifacts.errors import UsageError
from artifacts.store import staged_file
from nightrec.terminal import say

if TYPE_CHECKING:
    from models.course import Course
    from nightrec.tables import Train

_WIDTH, _HEIGHT = 420, 220  # pixels of a drawing
_MADE_BY = ("nightrec", "torch", "keras", "numpy")  # whose versions a fit that goes on must share with its beginning


@dataclass(frozen=True, slots=True)
class Beside:
    """The files beside the checkpoint *folder*; none of them is a part of it.

    Attributes:
        folder: The checkpoint.
    """

    folder: Path

    @property
    def log(self) -> Path:
        """A line for each epoch."""
        return self.folder.with_name(f"{self.folder.name}.csv")

    @property
    def curve(self) -> Path:
        """The same, drawn."""
        return self.folder.with_name(f"{self.folder.name}.png")

    @property
    def state(self) -> Path:
        """What was fitted so far; gone once the checkpoint is there."""
        return self.folder.with_name(f"{self.folder.name}.unfinished.npz")

    @property
    def board(self) -> Path:
        """Event files of TensorBoard."""
        return self.folder.with_name("tensorboard") / self.folder.name


def course_of(out: Path, train: "Train", asked: dict[str, str], start: Path | None) -> "Course":
    """Say where the fit of *out*, from what is *asked*, starts and goes on, and where it is watched."""
    from models.checkpoint import load_checkpoint
    from models.course import Course

    beside = Beside(out)
    made_by = {name: version(name) for name in _MADE_BY}
    return Course(
        start=load_checkpoint(start) if start else None,
        log=beside.log,
        board=beside.board if train.tensorboard else None,
        state=beside.state,
        asked=document_digest([out.name, asked, made_by]),
    )


def require_board(train: "Train") -> None:
    """Refuse TensorBoard's files without its package, before the hours of training.

    Raises:
        UsageError: If it is not there.
    """
    if train.tensorboard and find_spec("tensorboard") is None:
        raise UsageError("[train] tensorboard needs a package: pip install tensorboard")


def finish(out: Path) -> None:
    """Draw the curve of the checkpoint *out*, and drop what an unfinished fit left."""
    beside = Beside(out)
    beside.state.unlink(missing_ok=True)
    if beside.curve.exists():
        return
    try:
        import vl_convert
    except ImportError:
        say(f"nightrec: {beside.curve} is not drawn, which needs a package: pip install vl-convert-python")
        return
    from models.layout import CheckpointLayout

    about = read_json(CheckpointLayout(out).model)["about"]
    with staged_file(beside.curve) as file:
        file.write(vl_convert.vegalite_to_png(learning_curve(about["curves"], about["best_epoch"]), scale=2))


def learning_curve(curves: dict[str, list[float]], best: int) -> dict[str, Any]:
    """Draw, as Vega-Lite, a panel for the loss and one for each metric; a rule stands where the weights are from."""
    from release.charts import colour, number

    rows = [
        {
            "figure": name.removeprefix("val_"),
            "days": "validation" if name.startswith("val_") else "training",
            "epoch": epoch,
            "value": value,
        }
        for name, values in curves.items()
        for epoch, value in enumerate(values, 1)
    ]
    figures = list(dict.fromkeys(row["figure"] for row in rows))
    lines = {
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": number("epoch", "epoch", form="d", zero=False),
            "y": number("value", zero=False),
            "color": colour("days", ("training", "validation"), ("#4c84c4", "#dd7f2f"), title="days of"),
        },
    }
    kept = {
        "mark": {"type": "rule", "strokeDash": [4, 4], "color": "#8a8f98"},
        "data": {"values": [{"epoch": best}]},
        "encoding": {"x": {"field": "epoch", "type": "quantitative"}},
    }
    panels = [
        {
            "title": figure,
            "width": _WIDTH,
            "height": _HEIGHT,
            "data": {"values": [row for row in rows if row["figure"] == figure]},
            "layer": [kept, lines],
        }
        for figure in figures
    ]
    return {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", "background": "white", "hconcat": panels}
