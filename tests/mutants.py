"""``make mutants``: change the code on purpose and count the changes that the tests notice, module by module."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from hypothesis import Phase, settings

ROOT = Path(__file__).parents[1]
MADE = ROOT / "mutants"  # where mutmut keeps what it made and found
OUT = ROOT / "build" / "mutants.json"
LEAST = 0.85

# What must hold: of each, at least so large a share of the mutants is killed.
PARTS = {
    "merge": ["batch/merge.py", "batch/retrieve.py"],
    "gates": ["release/gate.py", "release/gates.py", "release/verdicts.py"],
    "manifest": ["artifacts/release.py", "artifacts/run.py", "release/content.py"],
    "histories": ["features/histories.py", "features/ordered.py"],
}
# Exit codes: a test failed, pytest itself did, the process crashed; or a test ran for ever. All are noticed.
KILLED = {1, 3, -11, *(-24, 24, 36, 152, 255)}


def pytest_configure() -> None:
    """As the plugin of each mutant's tests: a law that fails is not made smaller, which takes longest."""
    settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None)
    settings.load_profile("mutants")


def results_of(module: str) -> dict[str, int | None]:
    """Each mutant of a module to the exit code of its tests; None where it was not tried yet."""
    meta = MADE / f"{module}.meta"
    codes: dict[str, int | None] = json.loads(meta.read_text("utf-8"))["exit_code_by_key"] if meta.is_file() else {}
    return codes


def counts_of(codes: dict[str, int | None]) -> dict[str, float]:
    """What became of some mutants; the score is the share that is noticed of those that were tried."""
    tried = [code for code in codes.values() if code is not None]
    killed = sum(code in KILLED for code in tried)
    return {
        "mutants": len(codes),
        "tried": len(tried),
        "killed": killed,
        "survived": len(tried) - killed,
        "score": killed / max(1, len(tried)),
    }


def report() -> dict[str, dict[str, dict[str, float]]]:
    """Count by part and by module."""
    modules = {module: results_of(module) for modules in PARTS.values() for module in modules}
    parts = {
        part: {name: code for module in names for name, code in modules[module].items()}
        for part, names in PARTS.items()
    }
    return {
        "parts": {part: counts_of(codes) for part, codes in parts.items()},
        "modules": {module: counts_of(codes) for module, codes in modules.items()},
    }


def survivors() -> list[str]:
    """Name the mutants that no test noticed."""
    codes = {
        name: code for modules in PARTS.values() for module in modules for name, code in results_of(module).items()
    }
    return [name for name, code in codes.items() if code is not None and code not in KILLED]


def main() -> int:
    """Try the mutants, print the table, write it down; 1 if too many survive, or some were not tried."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="only those that survived before")
    parser.add_argument("--at-once", type=int, default=1)
    asked = parser.parse_args()
    chosen = survivors() if asked.again else []
    command = [Path(sys.executable).with_name("mutmut"), "run", "--max-children", str(asked.at_once), *chosen]
    subprocess.run(command, cwd=ROOT, check=True)
    found = report()
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({**found, "survivors": survivors()}, indent=2) + "\n", "utf-8")
    print(f"{'':24}{'mutants':>9}{'tried':>9}{'killed':>9}{'survived':>9}{'score':>9}")
    for name, row in [*found["modules"].items(), *found["parts"].items()]:
        numbers = "".join(f"{row[key]:>9}" for key in ("mutants", "tried", "killed", "survived"))
        print(f"{name:24}{numbers}{row['score']:>9.1%}")
    return int(any(row["score"] < LEAST or row["tried"] < row["mutants"] for row in found["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())
