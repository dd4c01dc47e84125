"""Time a night on made data beside its limits: the bare session, the bare search, the disk's worth of memory.

Prints and writes ``build/bench-night.json``. Each step is timed as the whole command, from process start to exit; each
limit is the same arithmetic on ready arrays in a process of its own, before and after the step, with the same threads.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.made import DATE, make_catalogue, make_users

FOLDER = Path("build/bench-night")
NIGHTREC = Path(sys.executable).with_name("nightrec")
STEPS = ("prepare", "items", "index", "interests", "score")
GOALS = {
    "interests_vs_bare_session": (">=", 0.8),
    "items_vs_bare_session": (">=", 0.8),
    "score_vs_bare": (">=", 0.75),
    "memory_bytes_per_user": ("<=", 128),
    "rerun_seconds_share": ("<=", 0.02),
}


@dataclass(frozen=True)
class Timed:
    """One command: wall seconds and the peak of its resident memory in bytes."""

    seconds: float
    peak: int


def timed(*command: str | Path) -> Timed:
    """Run *command* to its end; it must succeed."""
    started = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    return Timed(time.perf_counter() - started, usage.ru_maxrss * 1024)


def bare(config: Path, what: str) -> float:
    """Rows a second of the bare arithmetic of one step, see ``benchmarks.bare``."""
    output = subprocess.check_output([sys.executable, "-m", "benchmarks.bare", str(config), what])
    return float(json.loads(output)["rows_per_second"])


def night(config: Path) -> dict[str, Timed]:
    """Run every step of a night into an empty root."""
    shutil.rmtree(config.parent / "store", ignore_errors=True)
    return {step: timed(NIGHTREC, step, "--config", config, "--date", DATE) for step in STEPS}


def main() -> None:
    """Run the nights of both sizes and the bare sessions, then write and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=200_000)
    options = parser.parse_args()
    users, items, threads = options.users, options.items, len(os.sched_getaffinity(0))

    shop = FOLDER / f"shop-{items}"
    make_catalogue(shop, items=items)
    large = make_users(FOLDER / "large", shop, users=users, items=items, threads=threads)
    small = make_users(FOLDER / "small", shop, users=users // 10, items=items, threads=threads)

    small_night = night(small)
    before = {what: bare(small, what) for what in ("items", "interests", "search", "rank")}
    large_night = night(large)
    after = {what: bare(large, what) for what in ("items", "interests", "search", "rank")}
    rerun = sum(timed(NIGHTREC, step, "--config", large, "--date", DATE).seconds for step in STEPS)

    limit = {what: (before[what] + after[what]) / 2 for what in before}
    seconds = {step: large_night[step].seconds for step in STEPS}
    added = users - users // 10
    figures: dict[str, Any] = {
        "interests_vs_bare_session": users / limit["interests"] / seconds["interests"],
        "items_vs_bare_session": items / limit["items"] / seconds["items"],
        "score_vs_bare": (users / limit["search"] + users / limit["rank"]) / seconds["score"],
        "memory_bytes_per_user": max(
            (large_night[step].peak - small_night[step].peak) / added for step in ("interests", "score")
        ),
        "rerun_seconds_share": rerun / sum(seconds.values()),
        "rows_per_second": {step: (items if step in {"items", "index"} else users) / seconds[step] for step in STEPS},
        "bare_rows_per_second": limit,
        "bare_spread": {what: abs(before[what] - after[what]) / limit[what] for what in limit},
        "steps": {step: asdict(timing) for step, timing in large_night.items()},
        "steps_small": {step: asdict(timing) for step, timing in small_night.items()},
        "rerun_seconds": rerun,
        "users": users,
        "items": items,
        "threads": threads,
        "machine": machine(),
    }
    path = Path("build/bench-night.json")
    path.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    for key, (sign, goal) in GOALS.items():
        met = figures[key] >= goal if sign == ">=" else figures[key] <= goal
        print(f"{'ok   ' if met else 'short'} {key:28} {figures[key]:10.3f}  goal {sign} {goal}")


def machine() -> str:
    """Name the processor, its number of cores and the memory."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model.partition(':')[2].strip()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
