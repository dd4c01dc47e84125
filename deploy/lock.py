"""Write the image's locks, `deploy/locks/*.txt`: what pip takes for each target, with the sha256 of every file."""

import json
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

from deploy.dockerfile import argument, read

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "deploy" / "locks"
PYTHON = "3.11"  # of the image's base
GLIBC = 36  # 2.36, of the image's base
# What each target installs: extras of nightrec, and the processors that all of its wheels are there for.
TARGETS = {
    "cpu": (("cpu",), ("x86_64", "aarch64")),
    "gpu": (("gpu",), ("x86_64",)),
    "train": (("cpu", "train"), ("x86_64",)),
}
# PyPI has torch for Linux with 3 GB of CUDA alone; the build without it has an index of its own (see the Dockerfile).
IN_PLACE_OF = {"torch==2.13.0": "torch==2.13.0+cpu"}
LEFT_OUT = {"setuptools"}  # torch asks for it, to compile extensions; an image has no compiler


def main() -> None:
    """Write all locks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    write_lock("build", project["build-system"]["requires"], ("x86_64",), left_out=set())
    for target, (extras, processors) in TARGETS.items():
        optional = project["project"]["optional-dependencies"]
        wanted = [*project["project"]["dependencies"], *(line for extra in extras for line in optional[extra])]
        write_lock(target, [IN_PLACE_OF.get(line, line) for line in wanted], processors, left_out=LEFT_OUT)


def write_lock(target: str, wanted: list[str], processors: tuple[str, ...], *, left_out: set[str]) -> None:
    """Resolve *wanted* for each of *processors* and write the lock of *target*; the versions must be the same."""
    hashes: dict[str, set[str]] = defaultdict(set)
    for processor in processors:
        for found in resolve(wanted, processor):
            name, version = found["metadata"]["name"].lower().replace("_", "-"), found["metadata"]["version"]
            if name not in left_out:
                hashes[f"{name}=={version}"].add(found["download_info"]["archive_info"]["hashes"]["sha256"])
    names = [pin.split("==")[0] for pin in hashes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SystemExit(f"{target}: processors differ in the version of {', '.join(twice)}; pin it in constraints.txt")
    lines = [f"# Target {target}, for {' and '.join(processors)}; written by `make locks`, not by hand."]
    for pin in sorted(hashes, key=lambda pin: pin.split("==")):
        lines += [f"{pin} \\", " \\\n".join(f"    --hash=sha256:{digest}" for digest in sorted(hashes[pin]))]
    LOCKS.mkdir(exist_ok=True)
    (LOCKS / f"{target}.txt").write_text("\n".join(lines) + "\n")


def resolve(wanted: list[str], processor: str) -> list[dict[str, Any]]:
    """Ask pip what it would install for *wanted* in an image for *processor*."""
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"),
        *("--target", "unused", *for_image(processor), "--constraint", str(ROOT / "constraints.txt")),
    ]
    answer = with_torch_index([*command, *wanted])
    installed: list[dict[str, Any]] = json.loads(answer)["install"]
    return installed


def for_image(processor: str) -> list[str]:
    """Write the options that make pip choose files as in an image for *processor*, wherever it runs itself."""
    platforms = [f"manylinux_2_{minor}_{processor}" for minor in range(GLIBC, 16, -1)]
    platforms += [f"{name}_{processor}" for name in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
    options = (option for platform in platforms for option in ("--platform", platform))
    return ["--only-binary", ":all:", "--python-version", PYTHON, *options]


def with_torch_index(command: list[str]) -> str:
    """Run a pip *command*; where it finds no torch for the CPU, run it again with the index that the image uses."""
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    if first.returncode == 0:
        return first.stdout
    if "torch==" not in first.stderr:
        raise SystemExit(first.stderr)
    index = argument(read(ROOT / "Dockerfile"), "TORCH_INDEX")
    again = subprocess.run([*command, "--extra-index-url", index], capture_output=True, text=True, check=False)
    if again.returncode:
        raise SystemExit(again.stderr)
    return again.stdout


if __name__ == "__main__":
    main()
