"""What MIND's paper found, asked of our MIND: how many interests, adaptive or not, label-aware attention, sigma."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.quality import learned
from benchmarks.quality.learned import Setting
from benchmarks.quality.lines import Lines
from benchmarks.quality.protocol import Part, Scorer

Judge = Callable[[Part, Scorer], dict[str, float]]

PAPER = "label-aware attention of the paper, "
CHANGES: dict[str, dict[str, Any]] = {
    **{f"K = {k}": {"interests": k} for k in (1, 2, 3, 4, 6, 8)},
    "K = 4, always all": {"adaptive": False},
    **{f"sigma = {sigma}": {"sigma": sigma} for sigma in (0.1, 1.0, 5.0)},
    **{f"{PAPER}p = {p}": {"attention": "label", "power": p} for p in (0.1, 1.0, 2.0, math.inf)},
}


def settings(chosen: Setting) -> dict[str, Setting]:
    """Change one thing at a time in the setting that is chosen for MIND."""
    found = {}
    for name, changed in CHANGES.items():
        outside = {key: value for key, value in changed.items() if key == "adaptive"}
        inside = {key: value for key, value in changed.items() if key != "adaptive"}
        found[name] = replace(chosen, config=replace(chosen.config, **inside), **outside)
    return found


def measured(part: Part, chosen: Setting, judge: Judge, lines: Lines, *, seed: int) -> dict[str, dict[str, float]]:
    """Fit every setting and let *judge* measure its scorer on *part*."""
    rows = {}
    for name, setting in settings(chosen).items():
        network = learned.fit(part, "mind", setting, seed=seed)
        rows[name] = judge(part, learned.scorer_of(part, network, setting))
        lines.tell(name, rows[name])
    return rows
