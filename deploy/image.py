"""`make image`: build the targets `cpu` and `train`, run a small night in them, and say what held."""

import errno
import json
import platform
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.dockerfile import read, stages
from deploy.engines import ROOT, Engine, checked, engine
from deploy.lock import LOCKS, for_image, with_torch_index
from tests.night.shop import DATE, Shop, content_of, only_release, run_nightrec, write_data

REPORT = ROOT / "build" / "image.json"
WHEELS = ROOT / "build" / "wheels"
TARGETS = ("train", "cpu")
TRAIN = """
[train]
until = 2026-03-28
validate_days = 3
ranker_days = 14
history_length = 8
mind = { width = 16, interests = 3, hidden = [24], epochs = 1 }
bst = { width = 16, heads = 2, ffn_width = 32, mlp = [32, 16], epochs = 1 }
"""
FITS = (
    ("fit", "mind", "--config", "/job/job.toml"),
    ("fit", "bst", "--config", "/job/job.toml"),
    ("export", "--checkpoint", "/job/models/mind", "--out", "/job/bundles"),
    ("export", "--checkpoint", "/job/models/bst", "--out", "/job/bundles"),
)
NIGHT = ("run", "--config", "/job/job.toml", "--date", DATE)
UNPROVEN = "the target gpu on a GPU: its wheels are installed and imported on a CPU by `make test-slow`, no more"

# What is asked inside: who we are, what can be imported by either Python, what is on the path.
ASK = """
import importlib.util, json, os, shutil, subprocess, sys
find = "import importlib.util, json, sys; print(json.dumps([n for n in sys.argv[1:] if importlib.util.find_spec(n)]))"
def found(python): return json.loads(subprocess.check_output([python, "-c", find, *MODULES]))
outside = [p for p in os.environ["PATH"].split(":") if not p.startswith("/opt/nightrec")]
base = shutil.which("python3", path=":".join(outside))
print(json.dumps({"user": [os.getuid(), os.getgid()], "modules": found(sys.executable), "base_modules": found(base),
                  "programs": [name for name in PROGRAMS if shutil.which(name)]}))
"""
TOOLS = ["pip", "setuptools", "wheel", "ensurepip"]
NETWORKS = ["torch", "keras", "onnx"]
COMPILERS = ["cc", "gcc", "g++", "clang", "ld", "make", "pip", "pip3", "git", "curl"]
WRITE = "import sys; open(sys.argv[1], 'w')"


@dataclass(frozen=True, slots=True)
class Bench:
    """What a proof works with: the engine, and the folder that is /job inside."""

    engine: Engine
    job: Path

    def says(self, target: str, *arguments: str, entry: str | None = None) -> str:
        """Run the image of *target*; its standard output, or an error with what it said."""
        finished = self.engine.run(tag_of(target), arguments, self.job, entry=entry)
        if finished.returncode:
            raise AssertionError(f"exit code {finished.returncode}: {finished.stderr.strip()[-500:]}")
        return finished.stdout


def main() -> int:
    """Build, prove, report; exit code 1 if anything did not hold."""
    REPORT.unlink(missing_ok=True)
    base = stages(read(ROOT / "Dockerfile"))["night"].base
    wheels = fetch_wheels()
    with engine(base) as (chosen, origin), tempfile.TemporaryDirectory(prefix="nightrec-job-") as folder:
        report: dict[str, Any] = {"engine": chosen.name, "base": base, "base_is_from": origin, "unproven": [UNPROVEN]}
        report["targets"] = {target: built(chosen, target, wheels) for target in TARGETS}
        bench = Bench(chosen, Path(folder))
        prepare_job(bench.job)
        report["proved"] = {proof.__name__: held(proof, bench) for proof in PROOFS}
        clear(bench)
    REPORT.write_text(json.dumps(report, indent=1) + "\n")
    show(report)
    return int(any(said is not True for said in report["proved"].values()))


def fetch_wheels() -> Path:
    """Bring every file that the locks of the targets name; pip checks their sha256."""
    processor = {"arm64": "aarch64"}.get(platform.machine(), platform.machine())
    for lock in ("build", *TARGETS):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        what = [f"--dest={WHEELS}", f"--requirement={LOCKS / f'{lock}.txt'}"]
        with_torch_index([*command, *for_image(processor), *what])
    return WHEELS


def built(chosen: Engine, target: str, wheels: Path) -> dict[str, float]:
    """Build *target*; its size, and how long that took."""
    revision = checked(["git", "-C", str(ROOT), "rev-parse", "HEAD"]).strip()
    started = time.monotonic()
    chosen.build(target, tag_of(target), wheels, revision)
    return {"seconds": round(time.monotonic() - started, 1), "mb": round(chosen.size(tag_of(target)) / 1e6)}


def tag_of(target: str) -> str:
    """Name the image of *target*."""
    return f"nightrec:{target}"


def prepare_job(job: Path) -> None:
    """Write the small shop of the tests, as it lies inside, for a user who is not this one."""
    write_data(job / "data")
    path = Shop(Path("/job")).config(job)
    path.write_text(path.read_text() + TRAIN)
    checked(["chmod", "-R", "a+rwX", str(job)])


def clear(bench: Bench) -> None:
    """Remove what the image's user made, as that user: on a Docker host we may not be allowed to."""
    script = (
        "import shutil; [shutil.rmtree(f'/job/{name}', ignore_errors=True) for name in ('models', 'bundles', 'store')]"
    )
    bench.engine.run(tag_of("cpu"), ["-c", script], bench.job, entry="python3")


def asked(bench: Bench, target: str) -> dict[str, list[object]]:
    """Ask the image of *target* for its user, modules and programs."""
    names = f"MODULES = {[*TOOLS, *NETWORKS]}\nPROGRAMS = {COMPILERS}\n"
    return dict(json.loads(bench.says(target, "-c", names + ASK, entry="python3")))


def is_not_root(bench: Bench) -> None:
    """Both run as 10001:10001."""
    for target in TARGETS:
        assert asked(bench, target)["user"] == [10001, 10001]


def has_no_build_tools(bench: Bench) -> None:
    """Neither Python finds pip or setuptools, and no compiler is on the path."""
    for target in TARGETS:
        found = asked(bench, target)
        assert not {*found["modules"], *found["base_modules"]} & {*TOOLS}, found
        assert not found["programs"], found


def has_no_networks(bench: Bench) -> None:
    """The night's image has no torch; the other has."""
    assert not {*asked(bench, "cpu")["modules"]} & {*NETWORKS}
    assert {*NETWORKS} <= {*asked(bench, "train")["modules"]}


def root_is_read_only(bench: Bench) -> None:
    """Even root cannot write beside /tmp and /job; there, its own user can."""
    for path in ("/x", "/opt/nightrec/x", "/usr/local/x"):
        finished = bench.engine.run(tag_of("cpu"), ["-c", WRITE, path], bench.job, entry="python3", user="0:0")
        assert f"[Errno {errno.EROFS}]" in finished.stderr, f"{path}: {finished.stderr}"
    for path in ("/tmp/x", "/job/x"):
        bench.says("cpu", "-c", WRITE, path, entry="python3")
    (bench.job / "x").unlink()


def is_healthy(bench: Bench) -> None:
    """The healthcheck's own command finds nothing wrong."""
    for target in TARGETS:
        assert json.loads(bench.says(target, "doctor", "--json"))["healthy"]


def has_labels(bench: Bench) -> None:
    """Version and revision are those of this tree."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for target in TARGETS:
        labels = bench.engine.labels(tag_of(target))
        assert labels["org.opencontainers.image.version"] == version, labels
        assert len(labels["org.opencontainers.image.revision"]) == 40, labels


def fits_and_exports(bench: Bench) -> None:
    """MIND and BST are fitted and exported, parity and all."""
    for arguments in FITS:
        bench.says("train", *arguments)


def runs_a_night(bench: Bench) -> None:
    """A night is run, released and verified."""
    bench.says("cpu", *NIGHT)
    bench.says("cpu", "releases", "verify", "--config", "/job/job.toml")


def makes_the_same_bytes(bench: Bench) -> None:
    """The same night outside of the image, in this environment, is the same release."""
    with tempfile.TemporaryDirectory() as folder:
        config = Shop(bench.job).config(Path(folder))
        finished = run_nightrec("run", "--config", config, "--date", DATE)
        assert finished.returncode == 0, finished.stderr[-500:]
        outside, inside = (content_of(only_release(place / "store")) for place in (Path(folder), bench.job))
        other = sorted(name for name in outside.keys() | inside.keys() if outside.get(name) != inside.get(name))
        assert not other, f"other bytes in {', '.join(other)}"


PROOFS = (
    is_not_root,
    has_no_build_tools,
    has_no_networks,
    root_is_read_only,
    has_labels,
    is_healthy,
    fits_and_exports,
    runs_a_night,
    makes_the_same_bytes,
)


def held(proof: Callable[[Bench], None], bench: Bench) -> bool | str:
    """Run *proof*: true, or why not."""
    try:
        proof(bench)
    except (AssertionError, RuntimeError, OSError, ValueError) as error:
        return str(error) or "it did not hold"
    return True


def show(report: dict[str, Any]) -> None:
    """Print what was built and what held, for a person."""
    print(f"{report['engine']}, on {report['base']} from {report['base_is_from']}")
    for target, numbers in report["targets"].items():
        print(f"{target:24} {numbers['mb']:,} MB, built in {numbers['seconds']:.0f} s")
    for proof in PROOFS:
        said = report["proved"][proof.__name__]
        print(f"{proof.__name__:24} {(proof.__doc__ or '') if said is True else f'FAILED: {said}'}")
    print("".join(f"unproven: {what}\n" for what in report["unproven"]), end="")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:  # a build that failed, or a tool; it has said why
        sys.exit(str(error))
