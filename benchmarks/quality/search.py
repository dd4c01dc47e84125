"""``python -m benchmarks.quality.search``: one lever at a time from a data set's base, judged on the validation part.

Our three learned systems are tried with the same levers for the same epochs, torch-rechub's MIND with as many of its
own. Prints a line for each epoch and keeps the best of each trial in ``benchmarks/quality/searched.json``, of which
``make quality`` makes tables; who finds better writes it into ``benchmarks/quality/chosen.py``.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality import learned, measure, protocol, rechub
from benchmarks.quality.chosen import BASES, RECHUB, setting_of
from benchmarks.quality.learned import NETWORKS, Network, Setting
from benchmarks.quality.lines import Lines
from benchmarks.quality.protocol import Part
from benchmarks.quality.rechub import RechubSetting

OUT = Path("benchmarks/quality/searched.json")
BEGUN = "where the search began"
RECHUB_NAME = "torch_rechub"
SYSTEMS = (*NETWORKS, RECHUB_NAME)
KEPT = ("new.hr@50", "all.hr@50")


def fitted(setting: Setting, **changed: Any) -> Setting:
    """Change how a setting is fitted."""
    return replace(setting, options=replace(setting.options, **changed))


def built(setting: Setting, **changed: Any) -> Setting:
    """Change what a setting's network is made of."""
    return replace(setting, config=replace(setting.config, **changed))


LEVERS: dict[str, Callable[[Setting], Setting]] = {
    BEGUN: lambda setting: setting,
    "no popularity": lambda setting: replace(setting, popular_weight=0.0),
    "popularity when asked alone": lambda setting: replace(setting, popular_from="asked"),
    "popularity of 7 days": lambda setting: replace(setting, popular_days=7),
    "popularity of 30 days": lambda setting: replace(setting, popular_days=30),
    "questions by day": lambda setting: replace(setting, asks="day"),
    "questions by event": lambda setting: replace(setting, asks="events"),
    "ids alone": lambda setting: replace(setting, features=False),
    "inner product": lambda setting: built(setting, normalise=False),
    "temperature 1/5": lambda setting: built(setting, temperature=0.2),
    "width 32": lambda setting: built(setting, width=32),
    "learning rate 0.001": lambda setting: fitted(setting, learning_rate=0.001),
    "learning rate 0.01": lambda setting: fitted(setting, learning_rate=0.01),
    "4 targets": lambda setting: fitted(setting, targets=4),
    "no half-life": lambda setting: fitted(setting, half_life_days=0.0),
}
RECHUB_LEVERS: dict[str, Callable[[RechubSetting], RechubSetting]] = {
    BEGUN: lambda setting: setting,
    "12 targets": lambda setting: replace(setting, targets=12),
    **{
        f"learning rate {rate}, {negatives} negatives": partial(replace, learning_rate=rate, negatives=negatives)
        for rate in (0.0003, 0.001, 0.003, 0.01)
        for negatives in (5, 20, 80)
    },
}


def tried(part: Part, system: str, setting: Setting, lines: Lines) -> list[dict[str, float]]:
    """Fit one setting, and measure it on the validation part after every epoch."""
    epochs: list[dict[str, float]] = []

    def watch(epoch: int, network: Network) -> None:
        epochs.append(measure.judged(part, learned.scorer_of(part, network, setting)))
        lines.tell(f"epoch {epoch}", epochs[-1])

    learned.fit(part, system, setting, seed=1, watch=watch)
    return epochs


def tried_rechub(part: Part, system: str, setting: RechubSetting, lines: Lines) -> list[dict[str, float]]:
    """Do the same for torch-rechub's MIND; nothing where it cannot be had."""
    epochs = [measure.judged(part, scorer) for scorer in rechub.scorers(part, setting, seed=1) or []]
    for number, found in enumerate(epochs):
        lines.tell(f"epoch {number + 1}", found)
    return epochs


def trials(data: str, system: str, epochs: int) -> dict[str, Any]:
    """Name the settings that are tried for a system: the base, and each lever that changes it."""
    if system == RECHUB_NAME:
        base: Any = replace(RECHUB[data], epochs=epochs)
        levers: dict[str, Callable[[Any], Any]] = dict(RECHUB_LEVERS)
    else:
        base, levers = setting_of(BASES[data], system, epochs), dict(LEVERS)
    settings = {lever: changed(base) for lever, changed in levers.items()}
    return {lever: setting for lever, setting in settings.items() if lever == BEGUN or setting != base}


def main() -> None:
    """Try the levers that change something, print, write after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=BASES, action="append", help="a data set")
    parser.add_argument("--system", choices=SYSTEMS, action="append")
    parser.add_argument("--lever", choices=[*LEVERS, *RECHUB_LEVERS], action="append")
    parser.add_argument("--epochs", type=int, default=8)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {}
    for data in asked.only or BASES:
        part = protocol.validation(measure.present(data))
        for system in asked.system or SYSTEMS:
            for lever, setting in trials(data, system, asked.epochs).items():
                if asked.lever and lever not in asked.lever:
                    continue
                fit = tried_rechub if system == RECHUB_NAME else tried
                if not (epochs := fit(part, system, setting, Lines(f"{data}, {system}, {lever}"))):
                    break
                found.setdefault(data, {}).setdefault(system, {})[lever] = best_of(epochs)
                OUT.write_text(json.dumps(found, indent=2) + "\n")


def best_of(epochs: list[dict[str, float]]) -> dict[str, float]:
    """Give the best epoch, from 1, how many there were, and its figures."""
    best = max(range(len(epochs)), key=lambda at: measure.worth(epochs[at]))
    return {"epoch": best + 1, "epochs": len(epochs)} | {name: round(epochs[best][name], 4) for name in KEPT}


if __name__ == "__main__":
    main()
