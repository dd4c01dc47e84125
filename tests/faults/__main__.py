"""``make faults``: break the night on purpose; prints what was tried, survived and lost, and writes it down."""

import argparse
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults import crashes, flips, races, stores
from tests.faults.crashes import SkippedError
from tests.faults.nights import bad_kinds, good_kinds
from tests.faults.stage import Stage, set_stage
from tests.faults.table import CASES, complaint_of
from tests.faults.trials import short_form, summary, trials
from tests.faults.worlds import WORLDS

OUT = Path(__file__).parents[2] / "build" / "faults.json"


@dataclass
class Tally:
    """What became of the trials of one kind."""

    tried: int = 0
    survived: int = 0
    lost: int = 0
    skipped: str = ""
    why: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        self.tried += 1
        self.survived += not problem
        self.lost += bool(problem)
        if problem:
            self.why.append(problem)


def try_kinds(
    stage: Stage, kinds: dict[str, Any], *, seed: int, short: bool, only: str, at_once: int
) -> dict[str, Tally]:
    """Try every kind as often as its row says, some at once; each trial has a random sequence of its own."""
    tallies = {name: Tally() for name in kinds if only in name}

    def one(name: str, trial: crashes.Trial, number: int) -> tuple[str, str | SkippedError]:
        with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
            try:
                return name, trial(stage, Path(folder), random.Random(f"{seed} {name} {number}"), number)
            except SkippedError as skipped:
                return name, skipped
            except Exception as error:
                return name, f"trial {number}: {error!r}"

    asked = [
        (name, trial, number)
        for name, (trial, many, few) in kinds.items()
        if name in tallies
        for number in range(few if short else many)
    ]
    left = Counter(name for name, _, _ in asked)
    with ThreadPoolExecutor(at_once) as pool:
        for name, problem in pool.map(lambda args: one(*args), asked):
            if isinstance(problem, SkippedError):
                tallies[name].skipped = str(problem)
            else:
                tallies[name].add(problem)
                if problem:
                    print(f"LOST {name}: {problem}", file=sys.stderr, flush=True)
            left[name] -= 1
            if not left[name]:
                print(f"{name}: {tallies[name].tried} tried, {tallies[name].lost} lost", file=sys.stderr, flush=True)
    return tallies


def try_inputs(stage: Stage, *, at_once: int) -> dict[str, Any]:
    """Try every bad input of the table, some at once, each in a process that does nothing else meanwhile."""
    with ProcessPoolExecutor(at_once, mp_context=multiprocessing.get_context("spawn")) as pool:
        problems = list(pool.map(partial(complaint_of, stage.shop), range(len(CASES)), chunksize=8))
    unclear = {case.name: problem for case, problem in zip(CASES, problems, strict=True) if problem}
    for name, problem in unclear.items():
        print(f"UNCLEAR {name}: {problem[:500]}", file=sys.stderr, flush=True)
    return {"tried": len(CASES), "clear": len(CASES) - len(unclear), "unclear": unclear}


def try_nights(seed: int, *, short: bool) -> dict[str, Any]:
    """Have good and bad nights of a made shop in the short form, else of Online Retail where it is, or of MovieLens."""
    folder = OUT.parent / "faults"
    if short:
        return short_form(folder, seed)
    world = WORLDS["retail"](folder / "retail") or WORLDS["movielens"](folder / "movielens")
    if world is None:
        raise SystemExit("neither the data of Online Retail nor MovieLens-100K is here, or can be fetched")
    kinds = good_kinds()
    good = [kinds[place % len(kinds)] for place in range(64)]
    place = folder / f"{world.name}-nights"
    shutil.rmtree(place, ignore_errors=True)
    return summary(trials(world, place, seed=seed, bad=bad_kinds(), good=good, nights=40))


def main() -> int:
    """Try all, tell all; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--short", action="store_true", help="what CI has time for")
    parser.add_argument("--only", default="", help="kinds whose names hold this")
    parser.add_argument("--at-once", type=int, default=2)
    asked = parser.parse_args()
    print(
        f"seed {asked.seed}: `make faults SEED={asked.seed}{' SHORT=1' * asked.short}` does the same again", flush=True
    )
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        stage = set_stage(Path(folder))
        options = {"seed": asked.seed, "short": asked.short, "only": asked.only, "at_once": asked.at_once}
        found: dict[str, Any] = {name: try_kinds(stage, kinds, **options) for name, kinds in sections().items()}
        if not asked.only:
            found["bad_inputs"] = try_inputs(stage, at_once=asked.at_once)
            found |= try_nights(asked.seed, short=asked.short)
    lost = tell(found)
    OUT.parent.mkdir(exist_ok=True)
    about = {"seed": asked.seed, "short": asked.short, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    about["seconds"] = round(time.monotonic() - start)
    OUT.write_text(json.dumps({**about, **found}, indent=2, default=_plain) + "\n")
    print(f"{about['seconds']} s; written to {OUT}")
    return 1 if lost else 0


def sections() -> dict[str, dict[str, Any]]:
    """The kinds of each section of the report."""
    return {"faults": crashes.KINDS, "store": stores.KINDS, "bytes": flips.KINDS, "races": races.KINDS}


def tell(found: dict[str, Any]) -> int:
    """Print the table; give how much was lost. What was not tried is lost, unless the machine gives a reason."""
    print(f"\n{'':12}{'kind':44}{'tried':>7}{'survived':>10}{'lost':>6}")
    bad = 0
    for section, kinds in found.items():
        if section in {"bad_inputs", "bad_nights", "good_nights"}:
            second = "clear" if section == "bad_inputs" else "refused"
            print(f"{section:56}{kinds['tried']:>7}{kinds[second]:>10} {second}")
            bad += wrong(section, kinds["tried"], kinds[second])
            continue
        for name, tally in kinds.items():
            skipped = tally.skipped and f"  SKIPPED: {tally.skipped}"
            print(f"{section:12}{name:44}{tally.tried:>7}{tally.survived:>10}{tally.lost:>6}{skipped}")
            bad += tally.lost + (not tally.tried and not tally.skipped)
    return bad


def wrong(section: str, tried: int, found: int) -> int:
    """Count inputs that were not clear, or nights that were judged wrongly; of good ones one in a hundred may be."""
    return max(0, found - max(1, tried // 100)) if section == "good_nights" else tried - found


def _plain(value: object) -> Any:
    return (
        {key: part for key, part in asdict(value).items() if part or part == 0}
        if isinstance(value, Tally)
        else str(value)
    )


if __name__ == "__main__":
    sys.exit(main())
