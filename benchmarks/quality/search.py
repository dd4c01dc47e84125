"""``python -m benchmarks.quality.search``: one lever at a time from what is chosen, judged on the validation part.

Every learned system is tried with the same levers for the same epochs. Prints a line for each epoch and keeps them all
in ``build/quality-search.json``; who finds better writes it into ``benchmarks/quality/chosen.py``.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality import learned, measure, protocol
from benchmarks.quality.chosen import RETRIEVAL
from benchmarks.quality.learned import Network, Setting

OUT = Path("build/quality-search.json")


def fitted(setting: Setting, **changed: Any) -> Setting:
    """Change how a setting is fitted."""
    return replace(setting, options=replace(setting.options, **changed))


def built(setting: Setting, **changed: Any) -> Setting:
    """Change what a setting's network is made of."""
    return replace(setting, config=replace(setting.config, **changed))


LEVERS: dict[str, Callable[[Setting], Setting]] = {
    "chosen": lambda setting: setting,
    "no popularity": lambda setting: replace(setting, popular_weight=0.0),
    "popularity when asked alone": lambda setting: replace(setting, popular_from="asked"),
    "popularity of 7 days": lambda setting: replace(setting, popular_days=7),
    "popularity of 30 days": lambda setting: replace(setting, popular_days=30),
    "questions by day": lambda setting: replace(setting, asks="day"),
    "questions by event": lambda setting: replace(setting, asks="events"),
    "ids alone": lambda setting: replace(setting, features=False),
    "inner product": lambda setting: built(setting, normalise=False),
    "temperature 1/20": lambda setting: built(setting, temperature=0.05),
    "temperature 1/5": lambda setting: built(setting, temperature=0.2),
    "width 32": lambda setting: built(setting, width=32),
    "learning rate 0.001": lambda setting: fitted(setting, learning_rate=0.001),
    "learning rate 0.003": lambda setting: fitted(setting, learning_rate=0.003),
    "4 targets": lambda setting: fitted(setting, targets=4),
    "no half-life": lambda setting: fitted(setting, half_life_days=0.0),
    "whole histories": lambda setting: fitted(setting, stale_rate=0.0),
}


def tried(part: protocol.Part, system: str, setting: Setting) -> list[dict[str, float]]:
    """Fit one setting, and measure it on the validation part after every epoch."""
    epochs: list[dict[str, float]] = []

    def watch(epoch: int, network: Network) -> None:
        epochs.append(measure.judged(part, learned.scorer_of(part, network, setting)))
        measure.tell("", f"{epoch}", epochs[-1])

    learned.fit(part, system, setting, seed=1, watch=watch)
    return epochs


def main() -> None:
    """Try the levers that change something, print, write after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=RETRIEVAL, action="append", help="a data set")
    parser.add_argument("--system", choices=learned.NETWORKS, action="append")
    parser.add_argument("--lever", choices=LEVERS, action="append")
    parser.add_argument("--epochs", type=int, default=8)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {}
    for data in asked.only or RETRIEVAL:
        part = protocol.validation(measure.present(data))
        for system in asked.system or learned.NETWORKS:
            base = fitted(RETRIEVAL[data][system], epochs=asked.epochs)
            for lever in asked.lever or LEVERS:
                setting = LEVERS[lever](base)
                if lever != "chosen" and setting == base:
                    continue
                print(f"{data}, {system}: {lever}", flush=True)
                epochs = tried(part, system, setting)
                best = max(range(len(epochs)), key=lambda at: measure.worth(epochs[at]))
                row = {"best_epoch": best + 1, "best": epochs[best], "epochs": epochs}
                found.setdefault(data, {}).setdefault(system, {})[lever] = row
                OUT.parent.mkdir(exist_ok=True)
                OUT.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
