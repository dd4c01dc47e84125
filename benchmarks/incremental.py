"""The incremental night: ``interests`` of a night that keeps last night's vectors beside one that computes them all.

``python -m benchmarks.incremental`` makes a shop, runs last night, gives a tenth of its users another newest event, and
prints how many times as fast the step is that keeps the others' vectors. Both write the same bytes, which is checked.
"""

import argparse
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from artifacts.bundle import Role
from artifacts.run import Run
from artifacts.tables import read_sidecar
from batch.interests import compute_interests
from batch.shards import untold
from benchmarks.made import EVENTS, make_catalogue, make_users
from benchmarks.night import DATE
from benchmarks.ratio import in_turn
from nightrec.config import Config, read_config
from nightrec.steps import prepare, tower

FOLDER = Path("build/bench-incremental")
SHARDS = 8  # so that the last batch of a shard, which is seldom full, counts for little


def incremental_night(
    folder: Path = FOLDER, *, users: int = 100_000, items: int = 20_000, changed: float = 0.1, rounds: int = 9
) -> dict[str, Any]:
    """Measure how many times as fast ``interests`` is where a share of *changed* users have another history.

    Args:
        folder: Where the shop is made, or lies already.
        users: All users.
        items: All items.
        changed: Share of the users whose newest event is another.
        rounds: How often both are timed, in turn.

    Returns:
        The document of a :class:`benchmarks.ratio.Ratio`, with the sizes.
    """
    shop = folder / f"shop-{items}"
    make_catalogue(shop, items=items)
    threads = len(os.sched_getaffinity(0))
    shutil.rmtree(folder / "nights", ignore_errors=True)
    path = make_users(folder / "nights", shop, users=users, items=items, threads=threads)
    path.write_text(path.read_text().replace("shards = 32", f"shards = {SHARDS}"))
    config = read_config(path)
    before = _prepared(config)
    _interests(config, before, ())
    _change(folder / "nights" / "interactions.parquet", items=items, share=changed)
    tonight = _prepared(config)
    kept, full = (partial(_interests, config, tonight, earlier) for earlier in ((before,), ()))
    if kept() != full():
        raise SystemExit(f"{tonight.folder}: kept vectors gave other bytes than computed ones")
    ratio = in_turn(kept, full, rounds=rounds)
    return ratio.document(users=users, changed=changed, shards=tonight.shards)


def _prepared(config: Config) -> Run:
    return prepare(config, DATE, "", untold)[0]


def _interests(config: Config, run: Run, earlier: tuple[Run, ...]) -> list[str]:
    """Compute all interests of *run* anew; gives the digest of each shard."""
    shutil.rmtree(run.folder / "interests", ignore_errors=True)
    compute_interests(run, tower(config, Role.USER), range(run.shards), earlier=earlier, threads=config.night.threads)
    return [read_sidecar(run.layout.interests(shard, run.shards)).sha256 for shard in range(run.shards)]


def _change(interactions: Path, *, items: int, share: float) -> None:
    """Give a share of the users another item in their newest event, of the ``EVENTS`` that each has."""
    events = pq.read_table(interactions)
    rng = np.random.default_rng(8)
    times = events["time"].cast(pa.int64()).to_numpy().reshape(-1, EVENTS)
    users = rng.choice(len(times), round(len(times) * share), replace=False)
    item_ids = events["item_id"].to_numpy().copy()
    newest = users * EVENTS + times[users].argmax(axis=1)
    item_ids[newest] = (item_ids[newest] + rng.integers(1, items, len(newest))) % items
    changed = events.set_column(events.column_names.index("item_id"), "item_id", pa.array(item_ids))
    pq.write_table(changed, interactions)


def main() -> None:
    """Measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--changed", type=float, default=0.1)
    asked = parser.parse_args()
    figure = incremental_night(users=asked.users, changed=asked.changed)
    print(json.dumps({"incremental_night": figure}, indent=2))


if __name__ == "__main__":
    main()
