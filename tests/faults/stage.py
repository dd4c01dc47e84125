"""The stage of a fault: yesterday's release lies there, tonight's night is started, and the outcome is judged."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifacts.layout import RootLayout
from release.pointer import follow
from tests.night.shop import DATE, NIGHTREC, Shop, content_of, run_nightrec, write_bundles, write_data

YESTERDAY = "2026-03-30"
STEPS = ("prepare", "items", "index", "interests", "score", "check", "publish")
PATIENCE = 120  # seconds until a night that makes no progress is lost


@dataclass(frozen=True)
class Stage:
    """What every trial starts from and is compared with.

    Attributes:
        shop: Data, models, and the command that serves them.
        base: Root of a store that holds yesterday's release and nothing else.
        yesterday: What that release holds.
        wanted: What tonight's release must hold.
        version: Its name.
        seconds: How long each step takes, the start of the command within the first.
        before: For each step, a store in which tonight has come to it.
    """

    shop: Shop
    base: Path
    yesterday: dict[str, bytes]
    wanted: dict[str, bytes]
    version: str
    seconds: dict[str, float]
    before: dict[str, Path]


def set_stage(folder: Path) -> Stage:
    """Make the shop, yesterday's release, and an undisturbed night to compare with."""
    shop = Shop(folder / "shop")
    write_data(shop.data)
    write_bundles(shop)
    first = shop.config(folder / "first")
    _finished(run_nightrec("run", "--config", first, "--date", YESTERDAY))
    base = folder / "base"
    shutil.copytree(folder / "first" / "store", base)
    release = follow(base).layout.folder
    night = Night(shop, folder / "first" / "store")
    night.start()
    night.process.wait(PATIENCE)
    _finished(subprocess.CompletedProcess([], night.process.returncode, "", night.said()))
    tonight = follow(folder / "first" / "store")
    return Stage(
        shop,
        base,
        content_of(release),
        content_of(tonight.layout.folder),
        tonight.version,
        night.seconds(),
        _step_by_step(shop, base, folder),
    )


def _step_by_step(shop: Shop, base: Path, folder: Path) -> dict[str, Path]:
    """Go through tonight verb by verb, once for all trials, and keep what the store was before each."""
    store = folder / "steps" / "store"
    shutil.copytree(base, store)
    before = {}
    for step in STEPS:
        before[step] = shutil.copytree(store, folder / "before" / step)
        night = Night(shop, store)
        night.start(step)
        _finished(subprocess.CompletedProcess([], night.wait(), "", night.said()))
    return before


def _finished(process: subprocess.CompletedProcess[str]) -> None:
    if process.returncode:
        raise RuntimeError(f"an undisturbed night failed: {process.stderr}")


@dataclass
class Night:
    """A night under way in a process group of its own, and when it said what.

    Attributes:
        shop: Whose night.
        root: The store; its config lies beside it.
        config: The config, if it is another than the shop's own.
    """

    shop: Shop
    root: Path
    config: Path | None = None
    process: subprocess.Popen[str] = field(init=False)
    _lines: list[tuple[float, str]] = field(default_factory=list)
    _began: float = 0.0

    def start(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
        workers: int = 1,
        date: str = DATE,
    ) -> None:
        """Start ``nightrec run``, or the verb that *arguments* begin with; *before* is called in the child."""
        config = self.config or self.shop.config(self.root.parent, workers=workers)
        verb, *more = arguments or ("run",)
        self._began = time.monotonic()
        self.process = subprocess.Popen(
            [NIGHTREC, verb, "--config", config, "--date", date, *more],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
            preexec_fn=before,  # noqa: PLW1509 - the limits of the child are the fault
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append((time.monotonic(), line))

    def said(self) -> str:
        """All that it said so far."""
        return "".join(line for _, line in self._lines)

    def _ended(self, step: str) -> float | None:
        return next((when for when, line in self._lines if line.startswith(f"nightrec: {step}: ")), None)

    def seconds(self) -> dict[str, float]:
        """How long each step took."""
        ends = [self._began, *(self._ended(step) or self._began for step in STEPS)]
        return {step: end - start for step, start, end in zip(STEPS, ends[:-1], ends[1:], strict=True)}

    def wait_into(self, step: str, seconds: float) -> bool:
        """Wait until *step* has run for so many seconds; False if the night ended before."""
        before = STEPS[STEPS.index(step) - 1] if step != STEPS[0] else None
        stop = time.monotonic() + PATIENCE
        while before and self._ended(before) is None and self.process.poll() is None:
            if time.monotonic() > stop:
                raise RuntimeError(f"the night never came to {step}: {self.said()}")
            time.sleep(0.001)
        start = self._ended(before) if before else self._began
        time.sleep(max(0.0, (start or 0) + seconds - time.monotonic()))
        return self.process.poll() is None

    def end(self, number: signal.Signals, *, group: bool) -> int:
        """Send a signal to the process, or to its whole group; give the exit code."""
        if self.process.poll() is None:
            (os.killpg if group else os.kill)(self.process.pid, number)
        return self.wait()

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for the end; give the exit code."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise RuntimeError(f"the night did not end in {seconds} seconds: {self.said()}") from None
        time.sleep(0.01)  # its last line is on its way
        return code


def fresh(stage: Stage, folder: Path) -> Night:
    """A night over a copy of the base."""
    shutil.copytree(stage.base, folder / "store")
    return Night(stage.shop, folder / "store")


def lost(stage: Stage, root: Path, *, whole: bool = False) -> str:
    """Say what was lost at *root*; ``""`` if nothing was: the right release or none, yesterday's untouched.

    Args:
        stage: What is compared with.
        root: The store.
        whole: Whether tonight's release must be there and LATEST name it.
    """
    layout = RootLayout(root)
    old = next(path for path in layout.releases.iterdir() if path.name.startswith(YESTERDAY))
    if content_of(old) != stage.yesterday:
        return "yesterday's release was changed"
    names = {path.name for path in layout.releases.iterdir() if path.is_dir() and path.name[0] != "."}
    if strange := names - {old.name, stage.version}:
        return f"a release of other content: {strange}"
    if stage.version in names and content_of(layout.release(stage.version).folder) != stage.wanted:
        return "tonight's release holds other bytes"
    try:
        found = follow(root).version
    except Exception as error:  # whatever it is, readers have lost their pointer
        return f"LATEST leads nowhere: {error}"
    if found not in {old.name, stage.version} or (whole and found != stage.version):
        return f"LATEST names {found}"
    return ""


def clear(said: str) -> str:
    """Say what is unclear in how a command failed; ``""`` if a person can work with it."""
    if "Traceback" in said or "unexpected" in said:
        return f"nobody foresaw it: {said[-500:]}"
    return "" if "nightrec: " in said else f"it said nothing: {said[-500:]}"


def rerun(stage: Stage, night: Night, *, tries: int = 1) -> str:
    """Run the night again with nothing in its way, and say what was lost."""
    said = ""
    for _ in range(tries):
        again = Night(stage.shop, night.root, night.config)
        again.start()
        if again.wait() == 0:
            return lost(stage, night.root, whole=True)
        said = again.said()
    return f"the rerun failed: {said[-500:]}"


def document(path: Path) -> dict[str, Any]:
    """The JSON document at *path*."""
    read: dict[str, Any] = json.loads(path.read_text())
    return read
