"""The figures of docs/mathematics.md, drawn from what the code computes: ``python -m docs.figures`` writes them all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import pyarrow as pa
import torch
from torch.utils.flop_counter import FlopCounterMode

from artifacts.bundle import FeatureSpec, Role, input_names
from features.vocabulary import fit_vocabulary
from models.attention import label_weights
from models.bst import Bst, BstConfig
from models.mind import interest_thresholds, route, squash

FOLDER = Path(__file__).parent / "figures"
WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 132, 16, 44
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #333 } .axis { fill: none; stroke: #999 }
.line { fill: none; stroke-width: 2.5 } .s0 { stroke: #2458a6 } .s1 { stroke: #b3541e } .s2 { stroke: #5b7f2b }
.cell { fill: #2458a6 } .frame { fill: none; stroke: #bbb }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd } .s0 { stroke: #8ab4f8 } .s1 { stroke: #f2a272 } .s2 { stroke: #b5d36f } .cell { fill: #8ab4f8 }
}
"""
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """One axis: what it shows, from where to where, and the ticks that are named."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Where *value* lies, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)


def picture(body: str, says: str, *, height: int = HEIGHT) -> str:
    """Put elements into a drawing whose colours follow the reader's; *says* is read aloud in its place."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    return f"{head}\n<title>{escape(says)}</title>\n<style>{STYLE}</style>\n{body}</svg>\n"


def lines(x: Axis, y: Axis, series: dict[str, Points], says: str) -> str:
    """Draw lines, each named at its end."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return LEFT + x.share(point[0]) * (right - LEFT), bottom - y.share(point[1]) * (bottom - TOP)

    parts = [f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>']
    for tick in x.ticks:
        parts.append(text(place((tick, y.low))[0], bottom + 18, f"{tick:g}", "middle"))
    for tick in y.ticks:
        parts.append(text(LEFT - 8, place((x.low, tick))[1] + 4, f"{tick:g}", "end"))
    parts.append(text((LEFT + right) / 2, HEIGHT - 6, x.label, "middle"))
    parts.append(text(LEFT + 6, TOP + 8, y.label, "start"))
    for number, (name, points) in enumerate(series.items()):
        places = [place(point) for point in points]
        parts.append(f'<path class="line s{number}" d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in places)}"/>')
        parts.append(text(places[-1][0] + 6, places[-1][1] + 4, name, "start"))
    return picture("\n".join(parts) + "\n", says)


def text(x: float, y: float, words: str, anchor: str) -> str:
    """Write *words* at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def interests() -> str:
    """How many interests a history of n has."""
    counts = [sum(least <= n for least in interest_thresholds(4)) for n in range(41)]
    steps = [(at, float(count)) for n, count in enumerate(counts) for at in (n, n + 1)][:-1]
    x, y = Axis("behaviours in the history, n", 0, 40, (0, 4, 8, 16, 32, 40)), Axis("interests", 0, 4.5, (1, 2, 3, 4))
    return lines(x, y, {"K = 4": steps}, "Interests by length of the history")


def squashed() -> str:
    """How long a vector is after squashing."""
    lengths = torch.linspace(0, 5, 101, dtype=torch.float64)
    after = squash(lengths[:, None]).squeeze(1)
    x, y = Axis("length before", 0, 5, (0, 1, 2, 3, 4, 5)), Axis("length after", 0, 1.1, (0, 0.5, 1))
    return lines(x, y, {"squash": list(zip(lengths.tolist(), after.tolist(), strict=True))}, "Length after squashing")


def power() -> str:
    """What weight each of three interests has, by the power."""
    scores, powers = torch.tensor([1.2, 0.8, -1.0], dtype=torch.float64), [0.5 + step / 10 for step in range(16)]
    signed = [label_weights(scores, torch.ones(3, dtype=torch.bool), power).tolist() for power in powers]
    x, y = Axis("p", 0.5, 2, (0.5, 1, 1.5, 2)), Axis("weight", 0, 1, (0, 0.25, 0.5, 0.75, 1))
    series = {
        f"score {score:g}": [(p, weights[at]) for p, weights in zip(powers, signed, strict=True)]
        for at, score in enumerate(scores.tolist())
    }
    return lines(x, y, series, "Weights of three interests by the power, with the sign")


def shared() -> str:
    """How many multiplications a hundred candidates of a user take, pair by pair and with the user's work done once."""
    lengths = (10, 20, 50, 100, 150, 200)
    series: dict[str, Points] = {
        name: [(length, multiplications(length, 100, slow=slow) / 1e6) for length in lengths]
        for name, slow in (("pair by pair", True), ("shared", False))
    }
    x, y = (
        Axis("behaviours in the history, L", 0, 200, (10, 50, 100, 150, 200)),
        Axis("millions", 0, 350, (0, 100, 200, 300)),
    )
    return lines(x, y, series, "Multiplications for a hundred candidates by length of the history")


def multiplications(length: int, candidates: int, *, slow: bool) -> int:
    """Count those of a BST of default sizes for one user, by torch's own counter."""
    spec = FeatureSpec(("item_id",), history_length=length, gap_edges=(3600,), cross_features=("retrieval_score",))
    bst = Bst(BstConfig(), spec, {"item_id": fit_vocabulary("item_id", pa.array(range(10)))}).eval()
    shapes = {"history_item_id": (1, length), "gap": (1, length), "candidate_item_id": (1, candidates)}
    inputs = [torch.ones(shapes[name], dtype=torch.int32) for name in input_names(Role.RANKER, bst.spec)[:-1]]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        bst.logits(*inputs, torch.zeros(1, candidates, 1), slow=slow)
    return int(counter.get_total_flops()) // 2


def routing() -> str:
    """Twelve clicks of three kinds, and how much of each goes to which of three interests, before and after."""
    generator = torch.Generator().manual_seed(3)
    kinds = torch.eye(3, 8, dtype=torch.float64).repeat_interleave(4, dim=0) * 4
    clicks = kinds + 0.15 * torch.randn(12, 8, generator=generator, dtype=torch.float64)
    start = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    every = torch.ones(1, 12, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool)
    parts = []
    for panel, rounds in enumerate((1, 2, 3)):
        _, weights = route(clicks[None], start[None], *every, rounds)
        left = 24 + panel * 180
        parts.append(text(left + 72, 20, f"round {rounds}", "middle"))
        for interest, row in enumerate(weights[0].tolist()):
            for click, weight in enumerate(row):
                at = f'x="{left + 12 * click}" y="{30 + 26 * interest}" width="11" height="24"'
                parts += [f'<rect class="cell" {at} opacity="{weight:.2f}"/>', f'<rect class="frame" {at}/>']
    key = "columns: clicks, four of each kind; rows: interests; dark: much of the weight"
    parts.append(text(24, 126, key, "start"))
    return picture("\n".join(parts) + "\n", "Weights of twelve clicks over three rounds", height=136)


FIGURES: dict[str, Callable[[], str]] = {
    "interests": interests,
    "power": power,
    "routing": routing,
    "shared": shared,
    "squash": squashed,
}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        (FOLDER / f"{name}.svg").write_text(draw(), "utf-8")
