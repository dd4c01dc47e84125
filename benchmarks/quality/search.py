"""``python -m benchmarks.quality.search``: one lever at a time from a data set's base, judged on the validation part.

Our three learned systems are tried with the same levers for the same epochs, torch-rechub's MIND with as many of its
own. Prints a line for each epoch and keeps the best of each trial in ``benchmarks/quality/searched.json``, of which
``make quality`` makes tables; who finds better writes it into ``benchmarks/quality/chosen.py``. With ``--sizes`` MIND's
sizes are tried instead, for the defaults of ``nightrec fit``, and kept in ``benchmarks/quality/sizes.json``.

Trials go on side by side, each in a process of one thread: the first setting of every system, then the second, so that
a search that is cut off has tried as many of each. The file is kept after every trial, and is the same in any order.
"""

import argparse
import json
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.environment import interpreter_of
from benchmarks.quality import learned, measure, rechub
from benchmarks.quality.chosen import BASES, LARGE, RECHUB_BASES, RECHUB_NAME, SYSTEMS, setting_of
from benchmarks.quality.learned import Network, Setting
from benchmarks.quality.levers import BEGUN, LEVERS, NEGATIVES, RECHUB_LEVERS, SIZES
from benchmarks.quality.lines import Lines
from benchmarks.quality.protocol import Part
from benchmarks.quality.rechub import RechubSetting

OUT, OUT_OF_SIZES = Path("benchmarks/quality/searched.json"), Path("benchmarks/quality/sizes.json")
KEPT = ("new.hr@50", "all.hr@50")


def tried(part: Part, system: str, setting: Setting, lines: Lines) -> list[dict[str, float]]:
    """Fit one setting, and measure it on the validation part after every epoch."""
    epochs: list[dict[str, float]] = []

    def watch(epoch: int, network: Network) -> None:
        epochs.append(measure.judged(part, learned.scorer_of(part, network, setting)))
        lines.tell(f"epoch {epoch}", epochs[-1])

    learned.fit(part, system, setting, seed=1, watch=watch)
    return epochs


def tried_rechub(part: Part, system: str, setting: RechubSetting, lines: Lines) -> list[dict[str, float]]:
    """Do the same for torch-rechub's MIND."""
    scorers = rechub.scorers(part, setting, seed=1)
    if scorers is None:
        raise SystemExit(f"{RECHUB_NAME}: its environment is not there")
    epochs = [measure.judged(part, scorer) for scorer in scorers]
    for number, found in enumerate(epochs):
        lines.tell(f"epoch {number + 1}", found)
    return epochs


def trials(data: str, system: str, epochs: int, *, sizes: bool = False) -> dict[str, Any]:
    """Name the settings that are tried for a system: the base, and each lever that changes it; or *sizes* of MIND."""
    if sizes:
        base, levers = setting_of(BASES[data], system, epochs), SIZES | (NEGATIVES if data in LARGE else {})
    elif system == RECHUB_NAME:
        base: Any = replace(RECHUB_BASES[data], epochs=epochs)
        levers: dict[str, Callable[[Any], Any]] = dict(RECHUB_LEVERS)
    else:
        base, levers = setting_of(BASES[data], system, epochs), dict(LEVERS)
    settings = {lever: changed(base) for lever, changed in levers.items()}
    return {lever: setting for lever, setting in settings.items() if lever == BEGUN or setting != base}


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting of one system on one data set, and which lever made it of the base."""

    data: str
    system: str
    lever: str
    setting: Any  # a Setting, of torch-rechub's MIND a RechubSetting


def planned(
    names: Iterable[str], systems: Iterable[str], *, epochs: int, first: int, sizes: bool = False
) -> list[Trial]:
    """List the *first* settings of every system on every data set: all first ones, then all second ones."""
    each = [
        [Trial(data, system, lever, made) for lever, made in trials(data, system, epochs, sizes=sizes).items()][:first]
        for data in names
        for system in systems
    ]
    ranked = [(rank, trial) for found in each for rank, trial in enumerate(found)]
    return [trial for _, trial in sorted(ranked, key=lambda one: one[0])]


@cache
def part_of(data: str) -> Part:
    """Read a data set's validation part, once in a process."""
    return measure.validation_part(data, measure.present(data))


def outcome(trial: Trial) -> dict[str, float]:
    """Try one setting; gives its best epoch."""
    torch.set_num_threads(1)
    fit = tried_rechub if trial.system == RECHUB_NAME else tried
    lines = Lines(f"{trial.data}, {trial.system}, {trial.lever}")
    return best_of(fit(part_of(trial.data), trial.system, trial.setting, lines))


def keep(out: Path, trial: Trial, row: dict[str, float]) -> None:
    """Add a trial to the file, which is whole at every moment, and in the order of the levers."""
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    found.setdefault(trial.data, {}).setdefault(trial.system, {})[trial.lever] = row
    levers = dict.fromkeys([*LEVERS, *RECHUB_LEVERS, *SIZES, *NEGATIVES])
    orders: tuple[list[str], ...] = (list(BASES), list(SYSTEMS), list(levers))
    whole = out.with_name(f"{out.name}.part")
    whole.write_text(json.dumps(in_order(found, orders), indent=2) + "\n")
    whole.replace(out)


def in_order(found: dict[str, Any], orders: tuple[list[str], ...]) -> dict[str, Any]:
    """Sort a tree's keys, level by level, by the order of each; keys that it lacks come last."""
    if not orders:
        return found
    names, *below = orders
    keys = sorted(found, key=lambda key: names.index(key) if key in names else len(names))
    return {key: in_order(found[key], tuple(below)) for key in keys}


def search(chosen: list[Trial], jobs: int, out: Path) -> list[BaseException]:
    """Try settings, *jobs* at a time, and keep each as it comes; gives the errors of those that failed."""
    errors: list[BaseException] = []
    ends_at_once = (signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches every process of the terminal
    with ProcessPoolExecutor(jobs, get_context("spawn"), signal.signal, ends_at_once) as pool:
        running = {pool.submit(outcome, trial): trial for trial in chosen}
        try:
            for done in as_completed(running):
                if (error := done.exception()) is None:
                    keep(out, running[done], done.result())
                else:
                    errors.append(error)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # what cannot be kept is not tried
    return errors


def main() -> None:
    """Try the levers that change something, print, write after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=BASES, action="append", help="a data set")
    parser.add_argument("--system", choices=SYSTEMS, action="append")
    parser.add_argument("--lever", choices=[*LEVERS, *RECHUB_LEVERS, *SIZES, *NEGATIVES], action="append")
    parser.add_argument("--sizes", action="store_true", help="MIND alone, by its sizes")
    parser.add_argument("--first", type=int, default=len(LEVERS), help="how many settings of each system; all")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=1, help="trials side by side, each a process of one thread")
    parser.add_argument("--out", type=Path, help="the file, which keeps what it has")
    asked = parser.parse_args()
    out = asked.out or (OUT_OF_SIZES if asked.sizes else OUT)
    systems = ["mind"] if asked.sizes else list(asked.system or SYSTEMS)
    if RECHUB_NAME in systems and interpreter_of("torch-rechub") is None:
        systems.remove(RECHUB_NAME)
    chosen = planned(asked.only or BASES, systems, epochs=asked.epochs, first=asked.first, sizes=asked.sizes)
    chosen = [trial for trial in chosen if not asked.lever or trial.lever in asked.lever]
    try:
        errors = search(chosen, asked.jobs, out)
    except KeyboardInterrupt:
        raise SystemExit(f"stopped; {out} has the trials that came to their end") from None
    if errors:
        raise BaseExceptionGroup(f"these trials are not in {out}", errors)


def best_of(epochs: list[dict[str, float]]) -> dict[str, float]:
    """Give the best epoch, from 1, how many there were, and its figures."""
    best = max(range(len(epochs)), key=lambda at: measure.worth(epochs[at]))
    return {"epoch": best + 1, "epochs": len(epochs)} | {name: round(epochs[best][name], 4) for name in KEPT}


if __name__ == "__main__":
    main()
