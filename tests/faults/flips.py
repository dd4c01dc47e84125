"""Changed bytes: one flipped, some cut off, or another file in a file's place. Each is found before use, and named."""

import json
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from artifacts.layout import SIDECAR_SUFFIX, RootLayout
from tests.faults.crashes import Trial
from tests.faults.external import give_external_data
from tests.faults.stage import STEPS, YESTERDAY, Night, Stage, clear, lost, rerun
from tests.night.shop import DATE, Shop, content_of, write_bundles

_ONE_AT_A_TIME = threading.Lock()
HARMS = ("flip", "cut", "swap", "another model's", "swap with its sidecar")
VERBS = """
import sys
from nightrec.main import execute
config, date, *verbs = sys.argv[1:]
for verb in verbs:
    if code := execute([verb, "--config", config, "--date", date]):
        sys.exit(code)
"""


@dataclass(frozen=True)
class Place:
    """A kind of file of a run.

    Attributes:
        step: The step that makes it.
        file: Where in the run's folder, or ``date/`` and where in the date's.
    """

    step: str
    file: str


RUN_FILES = {
    "run.json": Place("prepare", "run.json"),
    "current run": Place("prepare", "date/current.json"),
    "answers of prepare": Place("prepare", "date/requests/*.json"),
    "catalogue": Place("prepare", "prepare/catalogue.arrow"),
    "popular items": Place("prepare", "prepare/popular.arrow"),
    "sample": Place("prepare", "prepare/sample.arrow"),
    "histories": Place("prepare", "prepare/histories/00001-of-00003.arrow"),
    "seen": Place("prepare", "prepare/seen/00001-of-00003.arrow"),
    "item vectors": Place("items", "items/00001-of-00002.arrow"),
    "index": Place("index", "index/ivf.faiss"),
    "id map": Place("index", "index/items.arrow"),
    "index parameters": Place("index", "index/index.json"),
    "interests": Place("interests", "interests/00001-of-00003.arrow"),
    "scores": Place("score", "scores/00001-of-00003.arrow"),
    "sidecar of the catalogue": Place("prepare", f"prepare/catalogue.arrow{SIDECAR_SUFFIX}"),
    "sidecar of item vectors": Place("items", f"items/00001-of-00002.arrow{SIDECAR_SUFFIX}"),
    "sidecar of the index": Place("index", f"index/ivf.faiss{SIDECAR_SUFFIX}"),
    "sidecar of interests": Place("interests", f"interests/00001-of-00003.arrow{SIDECAR_SUFFIX}"),
    "sidecar of scores": Place("score", f"scores/00001-of-00003.arrow{SIDECAR_SUFFIX}"),
    "verdict": Place("check", "record/gates.json"),
    "record of the run": Place("check", "record/record.json"),
    "timings": Place("check", "timings.json"),
}
BUNDLE_FILES = {
    "bundle: graph": "model.onnx",
    "bundle: external data": "model.onnx.data",
    "bundle: vocabulary": "vocabularies/category.arrow",
    "bundle: canary rows": "canary.arrow",
    "bundle: contract": "bundle.json",
}
EARLIER_FILES = {
    "earlier run: run.json": "run.json",
    "earlier run: histories": "prepare/histories/00001-of-00003.arrow",
    "earlier run: interests": "interests/00001-of-00003.arrow",
    "earlier run: sidecar of interests": f"interests/00001-of-00003.arrow{SIDECAR_SUFFIX}",
    "earlier run: item vectors": "items/00001-of-00002.arrow",
    "earlier run: index": "index/ivf.faiss",
}
RELEASE_FILES = {
    "release: scores": "scores/00001-of-00003.arrow",
    "release: interests": "interests/00001-of-00003.arrow",
    "release: item vectors": "items/00001-of-00002.arrow",
    "release: index": "index/ivf.faiss",
    "release: id map": "index/items.arrow",
    "release: index parameters": "index/index.json",
    "release: manifest": "manifest.json",
    "release: record": "record/record.json",
    "release: verdict": "record/gates.json",
    "release: report": "record/report.html",
}


def flip(path: Path, random_: random.Random) -> None:
    """Change one bit of one byte."""
    content = bytearray(path.read_bytes())
    content[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
    path.write_bytes(content)


def cut(path: Path, random_: random.Random) -> None:
    """Cut off the end."""
    content = path.read_bytes()
    path.write_bytes(content[: random_.randrange(len(content))])


def _snapshots(stage: Stage) -> Path:
    """Stores as they are after each step of tonight; and ``other``: a whole night of another model."""
    folder = stage.base.parent / "snapshots"
    with _ONE_AT_A_TIME:
        if not (folder / "other").exists():
            _take_snapshots(stage, folder)
    return folder


def _take_snapshots(stage: Stage, folder: Path) -> None:
    root = folder / "work" / "store"
    shutil.copytree(stage.base, root)
    config = stage.shop.config(folder / "work")
    for step in STEPS[:-1]:
        _run(config, step)
        shutil.copytree(root, folder / step)
    other = Shop(folder / "other-shop")
    shutil.copytree(stage.shop.data, other.data)
    write_bundles(other, seed=11)
    config = other.config(folder / "other-work")
    shutil.copytree(stage.base, folder / "other-work" / "store")
    _run(config, *STEPS[:-1])
    shutil.copytree(folder / "other-work" / "store", folder / "other")


def _run(config: Path, *verbs: str) -> None:
    done = _verbs(config, *verbs)
    if done.returncode:
        raise RuntimeError(done.stderr)


def _verbs(config: Path, *verbs: str, date: str = DATE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", VERBS, str(config), date, *verbs]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _run_folder(root: Path, date: str) -> Path:
    current = json.loads(RootLayout(root).current_run(date).read_text())
    return RootLayout(root).run(date, current["run_key"]).folder


def _file(root: Path, date: str, place: Place) -> Path:
    folder = _run_folder(root, date)
    if place.file.startswith("date/"):
        return next(folder.parent.glob(place.file.removeprefix("date/")))
    return folder / place.file


def in_run(stage: Stage, folder: Path, random_: random.Random, number: int, *, place: Place) -> str:
    """Harm a file of a run; the steps after it must name it, or do it anew to the same bytes."""
    snapshots = _snapshots(stage)
    root = folder / "store"
    shutil.copytree(snapshots / place.step, root)
    path = _file(root, DATE, place)
    harm = HARMS[number % len(HARMS)] if number else random_.choice(HARMS)
    _harm(harm, path, place, snapshots, root, random_)
    night = Night(stage.shop, root)
    config = stage.shop.config(folder)
    done = _verbs(config, *STEPS[STEPS.index(place.step) + 1 :])
    wrong = _named(done, path.name.removesuffix(SIDECAR_SUFFIX), lost(stage, root))
    if wrong:
        return f"{harm}: {wrong}"
    if done.returncode:
        for damaged in (path, path.with_name(path.name + SIDECAR_SUFFIX)):
            damaged.unlink(missing_ok=True)
    again = rerun(stage, night)
    return f"{harm}, put right: {again}" if again else ""


def _harm(harm: str, path: Path, place: Place, snapshots: Path, root: Path, random_: random.Random) -> None:
    if harm in {"flip", "cut"}:
        (flip if harm == "flip" else cut)(path, random_)
        return
    yesterdays, of_another = _file(root, YESTERDAY, place), _file(snapshots / "other", DATE, place)
    other = _unlike(path, *((of_another,) if harm == "another model's" else (yesterdays, of_another)))
    shutil.copyfile(other, path)
    if harm == "swap with its sidecar" and (sidecar := other.with_name(other.name + SIDECAR_SUFFIX)).exists():
        shutil.copyfile(sidecar, path.with_name(path.name + SIDECAR_SUFFIX))


def _unlike(path: Path, *others: Path) -> Path:
    """The first of some files that holds other bytes: two nights may have equal ones, and equal bytes are no harm."""
    whole = path.read_bytes()
    return next((other for other in others if other.exists() and other.read_bytes() != whole), Path(__file__))


def _named(done: subprocess.CompletedProcess[str], name: str, lost_: str) -> str:
    """Say what is wrong with how a command ended that was given a harmed file."""
    if lost_:
        return lost_
    if not done.returncode:
        return ""  # it was done anew: the bytes were compared
    if wrong := clear(done.stderr):
        return wrong
    if name not in done.stderr and name.partition(".")[0] not in done.stderr:
        return f"{name} is not named: {done.stderr[-300:]}"
    return "" if done.returncode in {1, 4} else f"expected the code 4, found {done.returncode}: {done.stderr[-300:]}"


def in_bundle(stage: Stage, folder: Path, random_: random.Random, number: int, *, file: str) -> str:
    """Harm a file of a bundle; no step loads it, and each names it."""
    snapshots = _snapshots(stage)
    shop = Shop(folder / "shop")
    shutil.copytree(stage.shop.data, shop.data)
    bundles = stage.shop.folder / "bundles"
    shutil.copytree(bundles, folder / "shop" / "bundles")
    config = shop.config(folder)
    shutil.copytree(snapshots / "prepare", folder / "store")
    role = ("item", "user", "ranker")[number % 3]
    path = folder / "shop" / "bundles" / role / file
    harm = HARMS[number % 4] if number else random_.choice(HARMS[:4])
    if file == "model.onnx.data":
        give_external_data(path.parent)
    if harm in {"flip", "cut"}:
        (flip if harm == "flip" else cut)(path, random_)
    elif file == "model.onnx.data":
        path.write_bytes(bytes(path.stat().st_size))
    elif harm == "swap":
        others = {"item": "user", "user": "ranker", "ranker": "item"}
        shutil.copyfile(bundles / others[role] / file, path)
    else:
        shutil.copyfile(snapshots / "other-shop" / "bundles" / role / file, path)
    whole = bundles / role / file
    if whole.exists() and path.read_bytes() == whole.read_bytes():
        return ""  # the two have this file in common
    for verb in ("prepare", {"item": "items", "user": "interests", "ranker": "score"}[role]):
        done = _verbs(config, verb)
        if done.returncode != 4 or file not in done.stderr or clear(done.stderr):
            return f"{harm}, {role}: {verb} ended with {done.returncode}: {done.stderr[-300:]}"
    return lost(stage, folder / "store")


def in_earlier_run(stage: Stage, folder: Path, random_: random.Random, number: int, *, file: str) -> str:
    """Harm a file of yesterday's run, whose vectors tonight would keep: tonight ends well, in its bytes."""
    snapshots = _snapshots(stage)
    root = folder / "store"
    shutil.copytree(snapshots / "prepare", root)
    harm = HARMS[number % len(HARMS)] if number else random_.choice(HARMS)
    _harm(harm, _run_folder(root, YESTERDAY) / file, Place("prepare", file), snapshots, root, random_)
    again = rerun(stage, Night(stage.shop, root))
    return f"{harm}: {again}" if again else ""


def in_release(stage: Stage, folder: Path, random_: random.Random, number: int, *, file: str) -> str:
    """Harm a file of yesterday's release: `verify` names it, and tonight does not take it for a yardstick unseen."""
    snapshots = _snapshots(stage)
    root = folder / "store"
    shutil.copytree(snapshots / "score", root)
    config = stage.shop.config(folder)
    version = next(path for path in (root / "releases").iterdir() if path.name.startswith(YESTERDAY))
    path = version / file
    harm = HARMS[number % 3] if number else random_.choice(HARMS[:3])
    if harm == "swap":
        runs = _run_folder(root, DATE), _run_folder(snapshots / "other", DATE)
        shutil.copyfile(_unlike(path, *(run / file for run in runs)), path)
    else:
        (flip if harm == "flip" else cut)(path, random_)
    said = _verify(config, version.name)
    if said.returncode != 4 or path.name not in said.stderr.replace("\n", "") or clear(said.stderr):
        return f"{harm}: verify ended with {said.returncode}: {said.stderr[-300:]}"
    done = _verbs(config, "check", "publish")
    if done.returncode and (clear(done.stderr) or path.name not in done.stderr):
        return f"{harm}: the night does not name it: {done.stderr[-300:]}"
    return "" if done.returncode or _right(stage, root) else f"{harm}: tonight's release has other bytes"


def _right(stage: Stage, root: Path) -> bool:
    return content_of(root / "releases" / stage.version) == stage.wanted


def _verify(config: Path, version: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from nightrec.main import execute; sys.exit(execute(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "releases", "verify", version, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def latest(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """Harm LATEST: no reader follows it, no night moves it, and both name it."""
    snapshots = _snapshots(stage)
    root = folder / "store"
    shutil.copytree(snapshots / "check", root)
    config = stage.shop.config(folder)
    path = root / "LATEST"
    whole = path.read_bytes()
    (cut if number % 2 else flip)(path, random_)
    code = "import sys; from nightrec.main import execute; sys.exit(execute(sys.argv[1:]))"
    for verb in (["recommend", "7"], ["releases", "show"], ["publish", "--date", DATE]):
        command = [sys.executable, "-c", code, *verb, "--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 4 or clear(done.stderr) or "LATEST" not in done.stderr:
            return f"{verb[0]} ended with {done.returncode}: {done.stderr[-300:]}"
    path.write_bytes(whole)
    return lost(stage, root) or rerun(stage, Night(stage.shop, root))


def _rows() -> dict[str, tuple[Trial, int, int]]:
    rows: dict[str, tuple[Trial, int, int]] = {}
    trials: list[tuple[str, Callable[..., str]]] = [
        *((name, partial(in_bundle, file=file)) for name, file in BUNDLE_FILES.items()),
        *((name, partial(in_run, place=place)) for name, place in RUN_FILES.items()),
        *((name, partial(in_earlier_run, file=file)) for name, file in EARLIER_FILES.items()),
        *((name, partial(in_release, file=file)) for name, file in RELEASE_FILES.items()),
    ]
    for name, trial in trials:
        rows[name] = (trial, len(HARMS) + 1, 1)
    rows["LATEST"] = (latest, 12, 2)
    return rows


KINDS = _rows()
