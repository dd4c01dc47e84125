"""Steps of the night beside the bare ``InferenceSession.run``: the same model, rows, batches and threads, in turn.

``python -m benchmarks.steps`` prints ``interests_vs_bare_session``, ``items_vs_bare_session`` and
``score_vs_bare_session`` as JSON. Ours is the whole step: reading and checking its input, opening the model, replaying
its canary rows, computing, compressing, digesting and flushing its files. The limit is the arithmetic on ready arrays:
calls of all threads one after the other, as most would write it; beside it, but for ``score``, whose rounds are long,
calls of one thread each, side by side. The limit of ``score`` is search and ranker; the graph of ``items`` is two
look-ups and an average, and so a limit that writes, too, stands beside it.
"""

import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from artifacts.run import Run, find_run
from benchmarks.bare import JOBS
from benchmarks.made import make_catalogue, make_users
from benchmarks.night import DATE
from benchmarks.ratio import in_turn
from nightrec.config import Config, read_config
from nightrec.run import do_step, prepare_run, shards_of

FOLDER = Path("build/bench-steps")
ITEMS = 200_000
USERS = {"interests": 200_000, "score": 3_000}
SHARDS = 4


def night(users: int) -> tuple[Config, Run]:
    """Make a shop with so many users, and a run of it that is ready for ``interests``."""
    shop, folder = FOLDER / "shop", FOLDER / f"users-{users}"
    make_catalogue(shop, items=ITEMS)
    path = make_users(folder, shop, users=users, items=ITEMS, threads=len(os.sched_getaffinity(0)), shards=SHARDS)
    shutil.rmtree(folder / "store", ignore_errors=True)
    config = read_config(path)
    prepare_run(config, DATE)
    run = find_run(folder / "store", DATE)
    for step in ("items", "index"):
        do_step(step, config, run, shards_of(step, run))
    return config, run


def anew(step: str, config: Config, run: Run) -> Callable[[], None]:
    """Give what does a step from its start: its files are gone."""
    layout = run.layout
    folder = {"interests": layout.interests, "items": layout.items, "score": layout.scores}[step](0, 1).parent

    def work() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        if not do_step(step, config, run, shards_of(step, run)).rows:
            raise SystemExit(f"{step}: expected work to time, found it done already")

    return work


def bare(run: Run, limits: Sequence[str], rows: int, *, calls: int = 1) -> Callable[[], None]:
    """Give what does the arithmetic of *limits* alone for so many rows, *calls* at once, on all cores together."""
    threads = len(os.sched_getaffinity(0)) // calls
    jobs = [JOBS[limit](run, FOLDER / "shop" / "bundles", threads) for limit in limits]
    pool = ThreadPoolExecutor(calls)

    def work() -> None:
        for job in jobs:
            batches = math.ceil(rows / job.rows)
            list(pool.map(job.work, (job.ready[number % len(job.ready)] for number in range(batches))))

    return work


def main() -> None:
    """Print the figures."""
    cores = len(os.sched_getaffinity(0))
    figures: dict[str, Any] = {}

    def compare(step: str, config: Config, run: Run, limits: Sequence[str], rows: int) -> None:
        ours, also = anew(step, config, run), "_and_writing" if "write" in limits else ""
        keys = {f"{step}_vs_bare_session{also}": 1}
        if step != "score":
            keys[f"{step}_vs_sessions_side_by_side{also}"] = cores
        for key, calls in keys.items():
            figures[key] = in_turn(ours, bare(run, limits, rows, calls=calls)).document(rows=rows)

    config, run = night(USERS["interests"])
    compare("interests", config, run, ["interests"], USERS["interests"])
    compare("items", config, run, ["items"], ITEMS)
    compare("items", config, run, ["items", "write"], ITEMS)
    config, run = night(USERS["score"])
    do_step("interests", config, run, shards_of("interests", run))
    compare("score", config, run, ["search", "rank"], USERS["score"])
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
