"""``make bench``: every benchmark of a ratio in a process of its own; a table, and ``build/bench.json``.

A key's goal stands in ``GOALS``. What is measured without a goal is shown, too, and so is a goal without a measure.
"""

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.night import machine

OUTPUT = Path("build/bench.json")
PEERS = ("peers.index", "peers.interests", "peers.mind")
MODULES = ("starts", "retrieve", "ranker", "fit", "incremental", "steps", "whole", *PEERS)
GOALS = {
    "interests_vs_bare_session": (">=", 0.9),
    "items_vs_bare_session": (">=", 0.9),
    "score_vs_bare_session": (">=", 0.9),
    "ranker_shared_vs_pairwise_all": (">=", 2.5),
    "ranker_shared_vs_pairwise_all_fp32": (">=", 1.4),
    "ranker_shared_vs_pairwise_target": (">=", 6),
    "ranker_shared_vs_pairwise_target_fp32": (">=", 3),
    "ranker_share_of_gemm_limit": (">=", 0.6),
    "retrieve_vs_faiss": (">=", 0.92),
    "index_qps_vs_autofaiss": (">=", 1.5),
    "fit_vs_plain_torch": (">=", 0.8),
    "night_efficiency": (">=", 0.8),
    "growth_time_10x": (">=", 0.95),
    "memory_bytes_per_user": ("<=", 64),
    "incremental_night": (">=", 5),
    "vs_ray_data": (">=", 1.3),
    "vs_torch_rechub": (">=", 3),
    "start_seconds": ("<", 0.5),
}


def met(key: str, value: float) -> bool:
    """Whether a figure reaches its goal."""
    sign, goal = GOALS[key]
    return {">=": value >= goal, "<=": value <= goal, "<": value < goal}[sign]


def table(figures: dict[str, Any]) -> Table:
    """Set every key with a goal beside it, and then what has none."""
    shown = Table("key", "goal", "ours", "quartiles", "")
    for column in shown.columns[1:]:
        column.justify = "right"
    for key in [*GOALS, *(key for key in figures if key not in GOALS)]:
        goal = " ".join(map(str, GOALS[key])) if key in GOALS else ""
        if (figure := figures.get(key)) is None:
            shown.add_row(key, goal, "", "", "not measured")
            continue
        verdict = ("ok" if met(key, figure["value"]) else "[red]short[/]") if key in GOALS else ""
        quartiles = " to ".join(f"{one:.3g}" for one in figure.get("quartiles", ()))
        shown.add_row(key, goal, f"{figure['value']:.3g}", quartiles, verdict)
    return shown


def main() -> None:
    """Measure what is asked for, one benchmark after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", choices=[*MODULES, []], help="by default all")
    asked = parser.parse_args()
    about = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine()}
    figures: dict[str, Any] = {}
    failed = []
    OUTPUT.parent.mkdir(exist_ok=True)
    for name in asked.modules or MODULES:
        print(f"benchmarks.{name} ...", file=sys.stderr, flush=True)
        measured = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], stdout=subprocess.PIPE, check=False)
        if measured.returncode:
            failed.append(name)
        else:
            figures |= json.loads(measured.stdout)
        OUTPUT.write_text(json.dumps({**about, "figures": figures}, indent=2) + "\n")  # what is measured is kept
    Console().print(table(figures))
    print(f"{about['machine']}; written to {OUTPUT}")
    if failed:
        sys.exit(f"failed, and so not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
