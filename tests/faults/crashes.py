"""Faults of the machine: killed, stopped, without power, disk, descriptors or memory, and with a clock that lies."""

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.stage import STEPS, Night, Stage, clear, fresh, lost, rerun
from tests.night.shop import DATE

Trial = Callable[[Stage, Path, random.Random, int], str]
DISK = 24 << 20  # bytes of the small file system: room for a night and for DuckDB's database
SOON = 10.0  # seconds that a night may take to end when it is told to


class SkippedError(Exception):
    """A fault cannot be made here, for a reason that the machine gives: without it the kind is lost, not skipped."""


def _moment(stage: Stage, night: Night, random_: random.Random, number: int) -> str:
    """Wait for a random moment of the step that is next in turn; gives the step."""
    step = STEPS[number % len(STEPS)]
    night.wait_into(step, random_.uniform(0, stage.seconds[step]))
    return step


def kill(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """``kill -9`` of the whole process group."""
    night = fresh(stage, folder)
    night.start()
    _moment(stage, night, random_, number)
    night.end(signal.SIGKILL, group=True)
    return lost(stage, night.root) or rerun(stage, night)


def kill_worker(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """``kill -9`` of one worker process of two: the night ends by itself, and says so."""
    night = fresh(stage, folder)
    night.start(workers=2)
    step = ("items", "interests", "score")[number % 3]
    if not night.wait_into(step, 0):
        return "the night ended before its workers began"
    stop = time.monotonic() + 20
    while not (workers := _workers(night.process.pid)) and night.process.poll() is None and time.monotonic() < stop:
        time.sleep(0.002)
    time.sleep(random_.uniform(0, 1.0))
    for worker in random_.sample(workers, min(1, len(workers))):
        try:
            os.kill(worker, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it has just done its part
    code = night.wait()
    return (clear(night.said()) if code else "") or lost(stage, night.root) or rerun(stage, night)


def _workers(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children")
    found = []
    for child in children.read_text().split() if children.exists() else ():
        command = Path(f"/proc/{child}/cmdline")
        if command.exists() and b"spawn_main" in command.read_bytes():
            found.append(int(child))
    return found


def stop(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """SIGTERM: the night ends in ten seconds with 143, and says how to go on."""
    night = fresh(stage, folder)
    night.start()
    step = _moment(stage, night, random_, number)
    asked = time.monotonic()
    running = night.process.poll() is None
    code = night.end(signal.SIGTERM, group=False)
    if time.monotonic() - asked > SOON:
        return f"in {step}: it took {time.monotonic() - asked:.0f} s to end"
    early = step == STEPS[0] and code == -signal.SIGTERM  # before Python has come to our first line
    if running and code not in {143, 0} and not early:
        return f"in {step}: expected the code 143, found {code}: {night.said()[-300:]}"
    if code == 143 and "To go on: nightrec run" not in night.said():
        return f"it did not say how to go on: {night.said()[-300:]}"
    return lost(stage, night.root) or rerun(stage, night)


def power(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """Killed, and the newest files of the night are cut, emptied or gone, as after a loss of power."""
    night = fresh(stage, folder)
    night.start()
    _moment(stage, night, random_, number)
    night.end(signal.SIGKILL, group=True)
    places = [night.root / "runs" / DATE, *(night.root / "releases").glob(".staging*")]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    files.sort(key=lambda path: (path.stat().st_mtime_ns, str(path)), reverse=True)
    for path in files[: random_.randint(1, 12)]:
        harm = random_.choice(["cut", "empty", "gone", "kept"])
        if harm == "cut":
            os.truncate(path, random_.randint(0, path.stat().st_size))
        elif harm == "empty":
            path.write_bytes(b"")
        elif harm == "gone":
            path.unlink()
    return lost(stage, night.root) or rerun(stage, night)


@contextmanager
def _small_disk(stage: Stage, folder: Path, step: str) -> Iterator[Night]:
    """Give a night that has come to *step*, and whose store is a small file system of its own."""
    root = folder / "store"
    root.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "nightrec-faults", str(root)], capture_output=True, check=False
    )
    if mounted.returncode:
        raise SkippedError(f"no file system can be mounted here ({mounted.stderr.decode().strip()})")
    try:
        shutil.copytree(stage.before[step], root, dirs_exist_ok=True)
        yield Night(stage.shop, root)
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def full_disk(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """The disk is full in one step, at once or after some bytes."""
    step = STEPS[number % len(STEPS)]
    with _small_disk(stage, folder, step) as night:
        free = shutil.disk_usage(night.root).free
        filler = night.root / ".filler"
        left = 0 if number < len(STEPS) else random_.randint(0, 40_000)
        filler.write_bytes(b"\0" * max(0, free - left))
        night.start(step)
        code, said = night.wait(), night.said()
        filler.unlink()
        wrong = clear(said) if code else ""
        if code and "space" not in said:
            wrong = wrong or f"in {step}: it did not say that the disk is full: {said[-300:]}"
        return wrong or lost(stage, night.root) or rerun(stage, night)


def read_only(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """The store cannot be written to in one step."""
    step = STEPS[number % len(STEPS)]
    with _small_disk(stage, folder, step) as night:
        subprocess.run(["mount", "-o", "remount,ro", str(night.root)], check=True)
        night.start(step)
        code, said = night.wait(), night.said()
        subprocess.run(["mount", "-o", "remount,rw", str(night.root)], check=True)
        if not code:
            return f"{step} said that it is done, and could not write"
        wrong = clear(said) or ("" if "ead-only" in said else f"it did not say why: {said[-300:]}")
        return wrong or lost(stage, night.root) or rerun(stage, night)


def _limited(kind: int, most: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (most, most))


def no_descriptors(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """No more files can be opened than a few."""
    night = fresh(stage, folder)
    night.start(before=_limited(resource.RLIMIT_NOFILE, 6 + 2 * number + random_.randint(0, 1)))
    code = night.wait()
    wrong = clear(night.said()) if code and "nightrec: prepare" in night.said() else ""
    return wrong or lost(stage, night.root) or rerun(stage, night)


def no_memory(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """No more memory can be had than a few hundred megabytes of address space."""
    night = fresh(stage, folder)
    most = (300 + 60 * number + random_.randint(0, 59)) << 20
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    night.start(before=_limited(resource.RLIMIT_AS, most), environment=threads)
    code = night.wait()
    said = night.said()
    wrong = clear(said) if code > 0 and "nightrec: prepare" in said else ""  # a library may end the process itself
    return wrong or lost(stage, night.root) or rerun(stage, night)


CLOCK = """
import datetime, itertools, os, time
_shift, _calls = float(os.environ["NIGHTREC_TEST_CLOCK"]), itertools.count()
_time, _time_ns, _now = time.time, time.time_ns, datetime.datetime
def _back():  # a second further back with every look at the clock
    return _shift - next(_calls)
time.time = lambda: _time() + _back()
time.time_ns = lambda: _time_ns() + int(_back() * 1e9)
class datetime_(_now):
    @classmethod
    def now(cls, tz=None):
        return _now.fromtimestamp(_time() + _back(), tz)
    @classmethod
    def utcnow(cls):
        return _now.fromtimestamp(_time() + _back(), datetime.timezone.utc).replace(tzinfo=None)
datetime.datetime = datetime_
"""


def clock(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """The clock is years off and runs backwards, and the files there are from the future."""
    night = fresh(stage, folder)
    (folder / "clock").mkdir()
    (folder / "clock" / "sitecustomize.py").write_text(CLOCK)
    years = (-3, -30, 80, -0.001)[number % 4]
    later = time.time() + random_.randint(1, 3_000) * 86_400
    for path in night.root.rglob("*"):
        os.utime(path, (later, later))
    path = f"{folder / 'clock'}:{os.environ.get('PYTHONPATH', '')}"
    shift = {"PYTHONPATH": path, "NIGHTREC_TEST_CLOCK": str(years * 365.25 * 86_400)}
    night.start(environment=shift)
    if night.wait():
        return f"the night failed: {night.said()[-300:]}"
    return lost(stage, night.root, whole=True) or rerun(stage, night)


KINDS: dict[str, tuple[Trial, int, int]] = {  # by kind: what is done, how often, and how often in the short form
    "kill -9": (kill, 50, 7),
    "kill -9 of a worker": (kill_worker, 9, 3),
    "SIGTERM": (stop, 20, 7),
    "power loss": (power, 21, 7),
    "full disk": (full_disk, 21, 7),
    "read-only folder": (read_only, 7, 7),
    "no file descriptors": (no_descriptors, 12, 4),
    "memory limit": (no_memory, 12, 4),
    "clock set back": (clock, 4, 2),
}
