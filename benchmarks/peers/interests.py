"""The step ``interests`` beside a Ray Data job that does the same with the same graph on the same cores.

``python -m benchmarks.peers.interests`` prints ``vs_ray_data`` as JSON: users a second. Histories are the same on both
sides, as the graph takes them: ours in the run's Arrow files, the peer's in Parquet. Ours checks what it reads,
replays its canary rows, and writes with checksums and flushes; the peer does not.
"""

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq

from artifacts.run import Run, find_run
from artifacts.tables import read_table
from benchmarks.made import make_catalogue, make_users
from benchmarks.night import DATE
from benchmarks.peers.conversation import LOGS, started
from benchmarks.peers.environment import interpreter_of
from benchmarks.ratio import in_turn
from benchmarks.steps import anew
from nightrec.config import Config, read_config
from nightrec.run import prepare_run

FOLDER = LOGS / "interests"
ITEMS, USERS, SHARDS = 50_000, 300_000, 8
ROWS = 1_024  # of a batch of the peer's


def prepared(shop: Path, *, users: int, items: int, shards: int) -> tuple[Config, Run]:
    """Give a made *shop* so many users, and a run whose histories are ready; without a ranker."""
    folder = shop.with_name(f"users-{users}")
    threads = len(os.sched_getaffinity(0))
    path = make_users(folder, shop, users=users, items=items, threads=threads, shards=shards)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("ranker")]
    path.write_text("\n".join(lines) + "\n")
    shutil.rmtree(folder / "store", ignore_errors=True)
    config = read_config(path)
    prepare_run(config, DATE)
    return config, find_run(folder / "store", DATE)


def as_parquet(run: Run, folder: Path) -> list[str]:
    """Write the run's histories as Parquet, a file for each shard; gives the columns that the user graph takes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names: list[str] = []
    for shard in range(run.shards):
        table = read_table(run.layout.histories(shard, run.shards))
        names = ["user_id", *(name for name in table.column_names if name.startswith(("history_", "profile_")))]
        names.remove("history_length")
        pq.write_table(table.select(names), folder / f"{shard}.parquet")
    return names


def main() -> None:
    """Print the figure, if the peer can be had."""
    figures = {}
    if python := interpreter_of("ray-data"):
        shop = FOLDER / "shop"
        make_catalogue(shop, items=ITEMS, ranked=False)
        config, run = prepared(shop, users=USERS, items=ITEMS, shards=SHARDS)
        histories, out = FOLDER / "histories", FOLDER / "out"
        about = [str(histories.absolute()), str(out.absolute()), as_parquet(run, histories), ROWS]
        graph = shop / "bundles" / "user" / "model.onnx"
        with started(python, "benchmarks.peers.with_ray_data", str(graph.absolute())) as ask:
            ratio = in_turn(anew("interests", config, run), lambda: ask("job", *about))
            if (rows := ask("written", str(out.absolute()))) != USERS:
                raise SystemExit(f"Ray Data wrote {rows} of {USERS} users")
        figures["vs_ray_data"] = ratio.document(users=USERS, peers_batch=ROWS)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
