"""Time a night on made data beside its limits: the bare session, the bare search, the format's own writing.

Prints and writes ``build/bench-night.json``. A step's seconds are those that it reports itself (reading, loading the
model, computing, writing); those of the whole command, with the start of Python, stand beside. A limit is the same
arithmetic on ready arrays in a process of its own, before and after the night, with the same threads.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = Path("build/bench-night")
OUTPUT = Path("build/bench-night.json")
NIGHTREC = Path(sys.executable).with_name("nightrec")
DATE = "2026-03-31"
STEPS = ("prepare", "items", "index", "interests", "score")
LIMITS = ("items", "interests", "search", "rank", "write")
GOALS = {
    "interests_vs_bare_session": (">=", 0.8),
    "items_vs_bare_session": (">=", 0.8),
    "score_vs_bare": (">=", 0.75),
    "memory_bytes_per_user": ("<=", 128),
    "rerun_seconds_share": ("<=", 0.02),
}


@dataclass(frozen=True)
class Timed:
    """One step.

    Attributes:
        seconds: What it reports of itself.
        command_seconds: From the start of its process to its end.
        peak: Of its resident memory, in bytes.
    """

    seconds: float
    command_seconds: float
    peak: int


def timed(config: Path, step: str) -> Timed:
    """Run a step to its end; it must succeed."""
    command = [str(NIGHTREC), step, "--config", str(config), "--date", DATE, "--json"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    answer = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {answer.decode()}")
    return Timed(json.loads(answer)["steps"][0]["seconds"], wall, usage.ru_maxrss * 1024)


def night(config: Path) -> dict[str, Timed]:
    """Run every step of a night into an empty root."""
    shutil.rmtree(config.parent / "store", ignore_errors=True)
    return {step: timed(config, step) for step in STEPS}


def bare(config: Path, shop: Path) -> dict[str, dict[str, float]]:
    """Rows a second of every limit, by both ways of ``benchmarks.bare``."""
    command = [sys.executable, "-m", "benchmarks.bare", str(config), str(shop / "bundles")]
    return {what: json.loads(subprocess.check_output([*command, what])) for what in LIMITS}


def main() -> None:
    """Run the nights of both sizes and the bare sessions, then write and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=200_000)
    asked = parser.parse_args()
    # What is imported here would count as memory of the steps, which start as copies of this process.
    make = [sys.executable, "-m", "benchmarks.made", str(FOLDER)]
    subprocess.run([*make, "--users", str(asked.users), "--items", str(asked.items)], check=True)
    small, large, shop = FOLDER / "small/job.toml", FOLDER / "large/job.toml", FOLDER / f"shop-{asked.items}"

    small_night = night(small)
    before = bare(small, shop)
    large_night = night(large)
    after = bare(large, shop)
    rerun = sum(timed(large, step).command_seconds for step in STEPS)

    figures = compare(large_night, small_night, before, after, users=asked.users, items=asked.items)
    figures["rerun_seconds_share"] = rerun / sum(step.command_seconds for step in large_night.values())
    figures |= {"users": asked.users, "items": asked.items, "machine": machine()}
    OUTPUT.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    for key, (sign, goal) in GOALS.items():
        met = figures[key] >= goal if sign == ">=" else figures[key] <= goal
        print(f"{'ok   ' if met else 'short'} {key:28} {figures[key]:10.3f}  goal {sign} {goal}")


def compare(
    large: dict[str, Timed],
    small: dict[str, Timed],
    before: dict[str, dict[str, float]],
    after: dict[str, dict[str, float]],
    *,
    users: int,
    items: int,
) -> dict[str, Any]:
    """Set each step beside its limit; a limit is the mean of before and after."""
    limit = {what: {way: (before[what][way] + after[what][way]) / 2 for way in before[what]} for what in before}
    plain = {what: rates["plain"] for what, rates in limit.items()}
    best = {what: max(rates.values()) for what, rates in limit.items()}
    seconds = {step: large[step].seconds for step in STEPS}

    def score_over(rates: dict[str, float]) -> float:
        return (users / rates["search"] + users / rates["rank"]) / seconds["score"]

    return {
        "interests_vs_bare_session": users / plain["interests"] / seconds["interests"],
        "items_vs_bare_session": items / plain["items"] / seconds["items"],
        "score_vs_bare": score_over(plain),
        "memory_bytes_per_user": max(
            (large[step].peak - small[step].peak) / (users - users // 10) for step in ("interests", "score")
        ),
        "interests_vs_best_session": users / best["interests"] / seconds["interests"],
        "items_vs_session_and_writing": (items / best["items"] + items / plain["write"]) / seconds["items"],
        "score_vs_best": score_over(best),
        "rows_per_second": {step: (items if step in {"items", "index"} else users) / seconds[step] for step in STEPS},
        "bare_rows_per_second": limit,
        "bare_before_and_after": [before, after],
        "steps": {step: asdict(timing) for step, timing in large.items()},
        "steps_of_a_tenth_of_the_users": {step: asdict(timing) for step, timing in small.items()},
    }


def machine() -> str:
    """Name the processor, its number of cores and the memory."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model.partition(':')[2].strip()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"


if __name__ == "__main__":
    main()
