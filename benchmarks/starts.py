"""How long the command line takes to answer: ``python -m benchmarks.starts`` prints ``start_seconds`` as JSON."""

import json
import statistics
import subprocess
import time

from benchmarks.night import NIGHTREC
from benchmarks.ratio import ROUNDS

ASKED = (["--help"], ["publish", "--help"])


def seconds(arguments: list[str]) -> float:
    """Time one command from its start to its end."""
    started = time.perf_counter()
    subprocess.run([str(NIGHTREC), *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> None:
    """Print the slower command's median, with its quartiles."""
    spent = {" ".join(["nightrec", *asked]): [seconds(asked) for _ in range(ROUNDS)] for asked in ASKED}
    quartiles = {name: statistics.quantiles(times, n=4, method="inclusive") for name, times in spent.items()}
    slowest = max(quartiles, key=lambda name: quartiles[name][1])
    low, middle, high = (round(value, 4) for value in quartiles[slowest])
    figure = {"value": middle, "quartiles": [low, high], "command": slowest}
    print(json.dumps({"start_seconds": figure}, indent=2))


if __name__ == "__main__":
    main()
