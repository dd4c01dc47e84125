"""Races: two nights at once, and a night that is published while others prune or roll back."""

import random
import shutil
import subprocess
import threading
import time
from pathlib import Path

from artifacts.layout import RootLayout
from artifacts.release import verify_release
from release.pointer import follow, read_pointer
from tests.faults.crashes import Trial
from tests.faults.stage import YESTERDAY, Night, Stage, clear, fresh, lost, rerun
from tests.night.shop import DATE, content_of, run_nightrec

BEFORE = "2026-03-29"
_ONE_AT_A_TIME = threading.Lock()


def same_date(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """Two nights of one date: both end well, or one says that the other was first; one release."""
    nights = [fresh(stage, folder), Night(stage.shop, folder / "store")]
    nights[0].start()
    time.sleep(random_.uniform(0, sum(stage.seconds.values())) if number else 0)
    nights[1].start()
    codes = [night.wait() for night in nights]
    for code, night in zip(codes, nights, strict=True):
        if code not in {0, 4} or (code and clear(night.said())):
            return f"one ended with {code}: {night.said()[-400:]}"
    if 0 not in codes:
        return "neither came through"
    return lost(stage, folder / "store", whole=True) or rerun(stage, nights[0])


def two_dates(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """Nights of two dates: both are stored, and LATEST names the later one."""
    later, earlier = fresh(stage, folder), Night(stage.shop, folder / "store")
    first, second = (later, earlier) if number % 2 else (earlier, later)
    first.start(date=DATE if first is later else BEFORE)
    time.sleep(random_.uniform(0, 1.5))
    second.start(date=DATE if second is later else BEFORE)
    for night in (later, earlier):
        if code := night.wait():
            return f"one ended with {code}: {night.said()[-400:]}"
    layout = RootLayout(folder / "store")
    (stored,) = (path for path in layout.releases.iterdir() if path.name.startswith(BEFORE))
    verify_release(stored)
    shutil.rmtree(stored)
    return lost(stage, layout.folder, whole=True) or rerun(stage, later)


def prune(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """Prune after prune while a night is published: what LATEST names is never taken."""
    night = fresh(stage, folder)
    config = stage.shop.config(folder)
    night.start()
    while night.process.poll() is None:
        pruned = run_nightrec("releases", "prune", "--keep", 1, "--grace", 0, "--yes", "--config", config)
        if pruned.returncode not in {0, 3, 4} or clear(pruned.stderr + "nightrec: "):
            return f"prune ended with {pruned.returncode}: {pruned.stderr[-400:]}"
        try:
            follow(night.root)
        except Exception as error:
            return f"LATEST leads nowhere: {error}"
    if code := night.wait():
        return f"the night ended with {code}: {night.said()[-400:]}"
    found = follow(night.root)
    if found.version != stage.version or content_of(found.layout.folder) != stage.wanted:
        return f"LATEST names {found.version}, or its bytes are others"
    verify_release(found.layout.folder)
    return ""


def rollback(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """A rollback while a night is published: one of them moves LATEST last, and a hold is kept.

    Tonight's release is given to readers after the resumption; where the rollback took it back, by promotion alone.
    """
    root = folder / "store"
    shutil.copytree(_two_releases(stage), root)
    config = stage.shop.config(folder)
    earlier = next(path.name for path in RootLayout(root).releases.iterdir() if path.name.startswith(BEFORE))
    night = Night(stage.shop, root)
    night.start()
    night.wait_into("publish" if number % 2 else "check", 0)
    time.sleep(random_.uniform(0, 0.2))
    rolled = run_nightrec("releases", "rollback", earlier, "--config", config, "--reason", "a test", "--who", "us")
    code = night.wait()
    for one, said in ((code, night.said()), (rolled.returncode, rolled.stderr)):
        if one not in {0, 4} or (one and clear(said)):
            return f"one ended with {one}: {said[-400:]}"
    pointer = read_pointer(root)
    follow(root)
    if not rolled.returncode and (pointer is None or pointer.version != earlier or pointer.hold is None):
        return f"rolled back, but LATEST says {pointer}"
    resumed = run_nightrec("releases", "resume", "--config", config, "--reason", "a test", "--who", "us")
    again = run_nightrec("run", "--config", config, "--date", DATE)
    if again.returncode:
        return f"after the resumption ({resumed.returncode}) the night failed: {again.stderr[-400:]}"
    if pointer is not None and stage.version in pointer.withdrawn:
        if follow(root).version != earlier:
            return "publishing tonight again gave it back to readers, though it was rolled back"
        _done(
            run_nightrec("releases", "promote", stage.version, "--config", config, "--reason", "a test", "--who", "us")
        )
    found = follow(root)
    verify_release(found.layout.folder)
    same = found.version == stage.version and _content(content_of(found.layout.folder)) == _content(stage.wanted)
    return "" if same else f"LATEST names {found.version}, or its bytes are others"


def _content(files: dict[str, bytes]) -> dict[str, bytes]:
    """All but the manifest, which names as parent what readers had: after a rollback that is the older release."""
    return {name: content for name, content in files.items() if name != "manifest.json"}


def _two_releases(stage: Stage) -> Path:
    root = stage.base.parent / "two-releases" / "store"
    with _ONE_AT_A_TIME:
        if not root.exists():
            config = stage.shop.config(root.parent)
            for date in (BEFORE, YESTERDAY):
                _done(run_nightrec("run", "--config", config, "--date", date))
    return root


def _done(finished: subprocess.CompletedProcess[str]) -> None:
    if finished.returncode:
        raise RuntimeError(finished.stderr)


KINDS: dict[str, tuple[Trial, int, int]] = {
    "two runs of one date": (same_date, 12, 3),
    "two runs of two dates": (two_dates, 8, 2),
    "prune during publish": (prune, 6, 2),
    "rollback during publish": (rollback, 10, 3),
}
