"""``make quality``: every system on every data set, over three seeds; ``build/quality.json``, and tables for the docs.

The file: data set, part (``retrieval``, ``ranking``, ``variants``, ``chain``, ``index``, ``steady``, ``cold``,
``findings``), system, metric, and there [mean, deviation] over seeds; a floor has no seed, and its deviation is 0.
Settings stand in ``benchmarks/quality/chosen.py``.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import Future, ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.quality import measure, report
from benchmarks.quality.data import DATA_SETS
from models.memory import keep_what_is_freed

OUT = Path("build/quality.json")
PAGE = Path("docs/quality.md")
TRIALS = Path("benchmarks/quality/searched.json")  # by benchmarks.quality.search
SEEDS = (1, 2, 3)
ORDER = ("online_retail", "complete_journey", "ml100k", f"ml100k{measure.LAST_DAY}")
FLOORS = 0  # no seed
SECONDS = {  # of one processor, about: who is long begins first
    **{("complete_journey", seed): 900 for seed in SEEDS},
    **{("online_retail", seed): 950 for seed in SEEDS},
    **{("ml100k", seed): 85 for seed in SEEDS},
    ("complete_journey", FLOORS): 180,
    ("online_retail", FLOORS): 40,
}


def here(names: list[str]) -> list[str]:
    """Fetch the data sets, and leave out those whose files are not here, with a message."""
    found = []
    for name in names:
        if DATA_SETS[name.removesuffix(measure.LAST_DAY)]() is None:
            print(f"{name}: its files are not here; skipped")
        else:
            found.append(name)
    return found


def measured(
    names: list[str], *, seeds: tuple[int, ...], workers: int, short: bool
) -> tuple[dict[str, Any], list[BaseException]]:
    """Measure data sets: floors and seeds side by side, each in a process of one thread, the longest first.

    Gives the figures of all jobs that came to an end, and the errors of the others.
    """
    jobs = [(name, seed) for name in names for seed in (FLOORS, *seeds)]
    jobs.sort(key=lambda job: -SECONDS.get(job, 0))
    done: dict[tuple[str, int], Future[measure.Figures]] = {}
    with ProcessPoolExecutor(workers, get_context("spawn"), keep_what_is_freed) as pool:
        for name, seed in jobs:
            if seed == FLOORS:
                done[name, seed] = pool.submit(measure.floors_of, name, short=short)
            else:
                done[name, seed] = pool.submit(measure.seed_of, measure.Job(name, seed, short))
    errors = [error for job in done.values() if (error := job.exception()) is not None]
    whole = {name: [done[name, seed] for seed in (FLOORS, *seeds)] for name in names}
    found = {
        name: measure.together(job.result() for job in several if job.exception() is None)
        for name, several in whole.items()
    }
    return found, errors


def commit() -> str:
    """Name the commit that is measured, and say if the tree differs from it."""
    asked = subprocess.run(["git", "describe", "--always", "--dirty"], check=False, capture_output=True, text=True)
    return asked.stdout.strip() or "unknown"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=ORDER, action="append", help="a data set; the file keeps the others")
    parser.add_argument(
        "--short", action="store_true", help="MovieLens alone, our systems, one seed, two settings of each floor"
    )
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many")
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    asked = parser.parse_args()
    names = here(["ml100k"] if asked.short else asked.only or list(ORDER))
    seeds = SEEDS[:1] if asked.short else SEEDS[: asked.seeds]
    kept = json.loads(OUT.read_text()) if asked.only and OUT.exists() else {}
    figures, errors = measured(names, seeds=seeds, workers=asked.workers, short=asked.short)
    found = kept | figures
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written to {OUT}")
    if not asked.short:
        command = " ".join(["make quality"] if not sys.argv[1:] else ["python -m benchmarks.quality", *sys.argv[1:]])
        trials = json.loads(TRIALS.read_text()) if TRIALS.exists() else {}
        report.write(PAGE, found, f"{datetime.now(UTC).date()}, commit {commit()}, by `{command}`", trials)
        print(f"tables written to {PAGE}")
    if errors:
        raise BaseExceptionGroup("what these jobs measure is not in the file", errors)


if __name__ == "__main__":
    main()
