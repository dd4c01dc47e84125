"""``python -m benchmarks.quality``: floors on every data set, chosen on the validation part, judged on the test part.

Prints a table and writes ``build/quality.json``: data set, ``retrieval``, system, metric, and there [mean, deviation]
over seeds; a floor has no seed, and its deviation is 0.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.quality import floors, protocol
from benchmarks.quality.data import DATA_SETS, DataSet
from benchmarks.quality.protocol import Part, Scorer

OUT = Path("build/quality.json")
CHOSEN_BY = ("new.hr@50", "all.hr@50")  # their sum
SHOWN = ("all.hr@50", "new.hr@50", "all.ndcg@10", "new.ndcg@10")
Setting = dict[str, Any]


def systems() -> dict[str, tuple[list[Setting], Callable[[Part, Setting], Scorer]]]:
    """Every floor: the settings that are tried on the validation part, and how one becomes a scorer."""
    days = (7, 30)
    return {
        "popular": ([{"days": n} for n in days], lambda part, setting: floors.popular(part, **setting)),
        "own_items": (
            [{"half_life_days": h, "popular_days": n} for h in (30.0, 90.0, 365.0) for n in days],
            lambda part, setting: floors.own_items(part, **setting),
        ),
        "item_knn": (list(floors.knn_settings()), floors.tuned_knn),
    }


def choose(part: Part, settings: Iterable[Setting], scorer: Callable[[Part, Setting], Scorer]) -> Setting:
    """Give the setting that is best on the validation part; of equals the first."""

    def worth(setting: Setting) -> float:
        measured = protocol.judge(part, protocol.lists_of(part, scorer(part, setting)))
        return sum(measured[name] for name in CHOSEN_BY)

    return max(settings, key=worth)


def retrieval(data: DataSet, *, short: bool) -> dict[str, Any]:
    """Choose and judge every system on a data set."""
    valid, test = protocol.validation(data), protocol.test(data)
    print(f"{data.name}: {len(valid.questions)} questions to choose by, {len(test.questions)} to judge by", flush=True)
    rows: dict[str, Any] = {}
    for name, (settings, scorer) in systems().items():
        started = time.monotonic()
        setting = choose(valid, settings[:2] if short else settings, scorer)
        measured = protocol.judge(test, protocol.lists_of(test, scorer(test, setting)))
        rows[name] = {"setting": setting, **{metric: [value, 0.0] for metric, value in measured.items()}}
        shown = "  ".join(f"{metric} {measured[metric]:.3f}" for metric in SHOWN)
        print(f"  {name:12}{shown}  {setting}  {time.monotonic() - started:.0f} s", flush=True)
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=DATA_SETS, help="one data set")
    parser.add_argument("--short", action="store_true", help="two settings of each system")
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    for name, load in DATA_SETS.items():
        if asked.only and asked.only != name:
            continue
        data = load()
        if data is None:
            print(f"{name}: its files are not here; skipped")
            continue
        found[name] = {"retrieval": retrieval(data, short=asked.short)}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written to {OUT}")


if __name__ == "__main__":
    main()
