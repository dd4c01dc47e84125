"""Whole nights: how much of the time is arithmetic, and what ten times as many users cost in time and memory.

``python -m benchmarks.whole`` prints ``night_efficiency``, ``growth_time_10x`` and ``memory_bytes_per_user`` as JSON.
The bare times of a night are those of one plain query that makes histories, of the models and the search on ready
arrays, of training and adding to the index, and of copying what is published with its SHA-256, each measured alone.
Time is that of one ``nightrec run``, memory that of each step as a command of its own.

Users lie in one shard, and even the few fill a whole record batch of it, 65,536 rows: up to there memory grows with the
shard, as it must, and what grows beyond it grows for ever.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.night import DATE, NIGHTREC

FOLDER = Path("build/bench-whole")
ITEMS = 50_000
FEW, MANY = 70_000, 700_000
RANKED = 20_000
MEMORY = "128MB"  # what DuckDB may hold: the few fill it, too
REASON = "made models"  # a shop whose models were never trained is refused by `check`, and published all the same
STEPS = ("prepare", "items", "index", "interests", "score", "check", "publish")
QUERY = """
SELECT user_id, list(item_id ORDER BY time DESC)[:20] AS items, list(time ORDER BY time DESC)[:20] AS times
FROM '{}' GROUP BY user_id ORDER BY user_id
"""


def made(users: int, *, ranked: bool) -> Path:
    """Make a shop of so many users; gives the path of its config."""
    folder = FOLDER / f"{users}-{'ranked' if ranked else 'retrieved'}"
    code = (
        "import os; from pathlib import Path; from benchmarks.made import make_catalogue, make_users;"
        f"shop = Path({str(FOLDER / 'shop')!r}); make_catalogue(shop, items={ITEMS});"
        f"make_users(Path({str(folder)!r}), shop, users={users}, items={ITEMS}, threads=len(os.sched_getaffinity(0)),"
        "shards=1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # what is imported here would count as the steps' memory
    config = folder / "job.toml"
    lines = [line for line in config.read_text().splitlines() if ranked or not line.startswith("ranker")]
    lines.insert(lines.index("[night]") + 1, f'memory = "{MEMORY}"')
    config.write_text("\n".join(lines) + "\n")
    return config


def night(config: Path) -> dict[str, float]:
    """Run a night by one command into an empty root; gives the seconds of each step, and of the ``start`` of all."""
    shutil.rmtree(config.parent / "store", ignore_errors=True)
    said = ["--profile", "--json", "--override", REASON]
    command = [str(NIGHTREC), "run", "--config", str(config), "--date", DATE, *said]
    started = time.perf_counter()
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    spent = time.perf_counter() - started
    steps = {step: one["seconds"] for step, one in json.loads(answer)["profile"].items()}
    return {"start": spent - sum(steps.values()), **steps}


def memory(config: Path) -> dict[str, int]:
    """Run every step of a night in a process of its own, into an empty root; gives the most bytes that each held."""
    shutil.rmtree(config.parent / "store", ignore_errors=True)
    return {step: _most_held(config, step) for step in STEPS}


def _most_held(config: Path, step: str) -> int:
    more = ["--override", REASON] if step == "publish" else []
    command = [str(NIGHTREC), step, "--config", str(config), "--date", DATE, *more]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in ({0, 3} if step == "check" else {0}):
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_maxrss * 1024


def bare_seconds(config: Path, users: int, *, ranked: bool) -> dict[str, float]:
    """Time each part of a finished night's arithmetic alone, by the better of the two ways to use the threads."""
    command = [sys.executable, "-m", "benchmarks.bare", str(config), str(FOLDER / "shop" / "bundles")]
    sizes = {"items": ITEMS, "interests": users, "search": users} | ({"rank": users} if ranked else {})
    rates = {what: max(json.loads(subprocess.check_output([*command, what])).values()) for what in sizes}
    seconds = {what: sizes[what] / rate for what, rate in rates.items()}
    return seconds | {
        "query": _timed(lambda: _histories(config)),
        "index": _timed(lambda: _index(config)),
        "copy": _timed(lambda: _copy(config)),
    }


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _histories(config: Path) -> None:
    import duckdb

    duckdb.sql(QUERY.format(config.parent / "interactions.parquet")).to_arrow_table()


def _index(config: Path) -> None:
    """Train and fill an index as the night's, in FAISS's own words."""
    import faiss
    import numpy as np

    from artifacts.run import find_run
    from artifacts.tables import read_table

    run = find_run(config.parent / "store", DATE)
    finished = faiss.read_index(str(run.layout.index.ivf))
    columns = [read_table(run.layout.items(shard, run.item_shards))["vector"] for shard in range(run.item_shards)]
    vectors = np.concatenate([column.combine_chunks().flatten().to_numpy() for column in columns])
    vectors = vectors.reshape(-1, finished.d)
    rows = np.random.default_rng(1).choice(len(vectors), min(len(vectors), 64 * finished.nlist), replace=False)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(finished.d), finished.d, finished.nlist, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[rows])
    index.add(vectors)


def _copy(config: Path) -> None:
    """Copy the published release, with the SHA-256 of each file."""
    (release,) = (path for path in (config.parent / "store" / "releases").iterdir() if path.is_dir())
    copy = config.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    for path in sorted(path for path in release.rglob("*") if path.is_file()):
        (copy / path.relative_to(release)).parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as source:
            hashlib.file_digest(source, "sha256")
        with (copy / path.relative_to(release)).open("wb") as target:
            target.write(path.read_bytes())
            target.flush()
            os.fsync(target.fileno())


def main() -> None:
    """Print the figures."""
    nights: dict[tuple[int, bool], dict[str, float]] = {}
    held: dict[int, dict[str, int]] = {}
    efficiency: dict[str, Any] = {}
    for users, ranked in ((FEW, False), (MANY, False), (RANKED, True)):
        config = made(users, ranked=ranked)
        if not ranked:
            held[users] = memory(config)
        nights[users, ranked] = steps = night(config)
        if (users, ranked) != (FEW, False):
            bare = bare_seconds(config, users, ranked=ranked)
            seconds = {step: round(spent, 2) for step, spent in steps.items()}
            rounded = {what: round(spent, 2) for what, spent in bare.items()}
            value = sum(bare.values()) / sum(steps.values())
            efficiency["ranked" if ranked else "retrieved"] = {"value": value, "bare": rounded, "steps": seconds}
    few, many = nights[FEW, False], nights[MANY, False]
    growth = {step: 10 * few[step] / many[step] for step in many}
    grown = {step: (held[MANY][step] - held[FEW][step]) / (MANY - FEW) for step in STEPS}
    worst = max(grown, key=grown.__getitem__)
    total = 10 * sum(few.values()) / sum(many.values())
    figures = {
        "night_efficiency": {"value": min(one["value"] for one in efficiency.values()), **efficiency},
        "growth_time_10x": {"value": total, "steps": growth, "users": [FEW, MANY]},
        "memory_bytes_per_user": {"value": grown[worst], "step": worst, "steps": grown, "users": [FEW, MANY]},
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
