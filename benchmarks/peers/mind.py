"""Items, index and interests of a night beside torch-rechub's own offline inference and index, in time and memory.

``python -m benchmarks.peers.mind`` prints ``vs_torch_rechub`` as JSON: users a second, from histories on disk to
vectors on disk. Both networks are as large: one item feature, one profile feature, L = 20, K = 4, d = 64, no hidden
layers. Beside it stand the other steps (``index`` of ours also measures recall for nprobe; ``build`` is its k-means
and adding alone), all together, and the most memory that either side held, at a tenth of the users and at all of them.
"""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from artifacts.documents import read_json
from artifacts.run import Run
from batch.ivf import lists_for
from benchmarks.made import EVENTS, MIND, SPEC, make_catalogue
from benchmarks.night import DATE, NIGHTREC
from benchmarks.peers.conversation import LOGS, Ask, started
from benchmarks.peers.environment import interpreter_of
from benchmarks.peers.interests import as_parquet, prepared
from benchmarks.ratio import Ratio, in_turn, ratio_of
from features.vocabulary import FIRST
from nightrec.config import Config
from nightrec.run import do_step, shards_of

FOLDER = LOGS / "mind"
MODULE = "benchmarks.peers.with_torch_rechub"
ITEMS, FEW, MANY, SHARDS = 50_000, 20_000, 200_000, 8
STEPS = ("items", "index", "interests")
ROWS, WORKERS = 256, 0  # the peer's: larger batches leave the cache, and loading is a tenth of its time


def night(config: Config, run: Run) -> dict[str, float]:
    """Do the steps from their start; gives the seconds of each, of building in ``index``, and of all."""
    spent = {}
    for step in STEPS:
        shutil.rmtree(run.folder / step, ignore_errors=True)
        done = do_step(step, config, run, shards_of(step, run))
        spent[step] = done.seconds
        if step == "index":
            spent["build"] = done.stages["build"]
    return spent | {"all": sum(spent[step] for step in STEPS)}


def peers_night(ask: Ask, histories: Path) -> dict[str, float]:
    """Let the peer do the same; it has no more to its index than building."""
    spent: dict[str, float] = ask("job", str(histories.absolute()), lists_for(ITEMS), ROWS, WORKERS)
    return spent | {"build": spent["index"], "all": sum(spent[step] for step in STEPS)}


def by_part(ours: list[dict[str, float]], peers: list[dict[str, float]]) -> dict[str, Ratio]:
    """Compare round by round what each part took."""
    pairs = list(zip(ours, peers, strict=True))
    return {part: ratio_of([(one[part], other[part]) for one, other in pairs]) for part in ours[0]}


def our_peak(config: Path, run: Run) -> int:
    """Run the steps as commands; gives the most bytes that one held."""
    for step in STEPS:
        shutil.rmtree(run.folder / step, ignore_errors=True)
        command = [NIGHTREC, step, "--config", config, "--date", DATE]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    timings = read_json(run.layout.timings)
    return int(max(timings[step][-1]["memory"] for step in STEPS))


def main() -> None:
    """Print the figure, if the peer can be had."""
    figures: dict[str, Any] = {}
    if python := interpreter_of("torch-rechub"):
        shop, peaks = FOLDER / "shop", {}
        spec = replace(SPEC, item_features=SPEC.item_features[:1])
        make_catalogue(shop, items=ITEMS, spec=spec, mind=replace(MIND, hidden=()), ranked=False)
        about = [ITEMS + FIRST, EVENTS, MIND.interests, MIND.width]
        for users in (FEW, MANY):
            config, run = prepared(shop, users=users, items=ITEMS, shards=SHARDS)
            histories = FOLDER / f"histories-{users}"
            as_parquet(run, histories)
            with started(python, MODULE, str((FOLDER / "model").absolute()), *map(str, about)) as ask:
                peers_night(ask, histories)
                mine = our_peak(FOLDER / f"users-{users}" / "job.toml", run)
                peaks[users] = {"ours": mine, "torch_rechub": ask("peak")}
                if users == MANY:
                    parts = compare(config, run, ask, histories)
        figures["vs_torch_rechub"] = parts["interests"].document(
            users=MANY,
            items=ITEMS,
            parts={part: ratio.document() for part, ratio in parts.items() if part != "interests"},
            peak_bytes=peaks,
            bytes_per_user={
                side: round((peaks[MANY][side] - peaks[FEW][side]) / (MANY - FEW), 1) for side in peaks[FEW]
            },
        )
    print(json.dumps(figures, indent=2))


def compare(config: Config, run: Run, ask: Ask, histories: Path) -> dict[str, Ratio]:
    """Time both in turn."""
    ours: list[dict[str, float]] = []
    peers: list[dict[str, float]] = []
    in_turn(lambda: ours.append(night(config, run)), lambda: peers.append(peers_night(ask, histories)))
    return by_part(ours[1:], peers[1:])  # the first of each counts for nothing


if __name__ == "__main__":
    main()
