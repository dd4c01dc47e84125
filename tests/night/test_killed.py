"""A night that is killed leaves finished shards or nothing, and its resumption repeats none of them."""

import os
import signal
import subprocess
import time
from pathlib import Path

from artifacts.layout import SIDECAR_SUFFIX
from tests.night.shop import DATE, NIGHTREC, Shop, content_of, only_release, run_nightrec

MOMENTS = (  # in the middle of every step: the night is killed as soon as such a file is there
    "runs/*/.staging-*/run/prepare/catalogue.arrow",
    "runs/*/*/run.json",
    "runs/*/*/items/00000-of-00002.arrow.done.json",
    "runs/*/*/items/.staging-*",
    "runs/*/*/index/.lock",
    "runs/*/*/interests/00000-of-00003.arrow.done.json",
    "runs/*/*/interests/00001-of-00003.arrow.done.json",
    "runs/*/*/scores/.staging-*",
    "runs/*/*/scores/00001-of-00003.arrow.done.json",
    "releases/.staging-*/scores",
)
DEADLINE = 300  # seconds until a night that makes no progress is a failure


def test_killed_at_ten_moments_and_resumed(shop: Shop, plain: Path, tmp_path: Path) -> None:
    """A night killed with -9 in every step ends in the same bytes, and no finished shard was written twice."""
    config = shop.config(tmp_path)
    wanted = content_of(only_release(plain / "store"))
    finished: dict[Path, tuple[int, int]] = {}
    kills = 0

    for moment in MOMENTS:
        kills += _run_and_kill(config, tmp_path / "store", at=moment)
        for path, identity in _finished(tmp_path / "store").items():
            assert finished.setdefault(path, identity) == identity, f"{path} was written twice"
    assert kills >= len(MOMENTS) - 1  # the last moment is short: the night may end before it is seen

    last = run_nightrec("run", "--config", config, "--date", DATE)

    assert last.returncode == 0, last.stderr
    assert content_of(only_release(tmp_path / "store")) == wanted
    now = _finished(tmp_path / "store")
    assert {path: now[path] for path in finished} == finished


def test_a_second_night_skips_all(shop: Shop, plain: Path) -> None:
    """A rerun with all done writes no content file anew, and says that it skipped."""
    before = _finished(plain / "store")

    again = run_nightrec("run", "--config", shop.config(plain), "--date", DATE)

    assert again.returncode == 0, again.stderr
    assert "skipped" in again.stderr or "done already" in again.stderr
    assert _finished(plain / "store") == before


def _run_and_kill(config: Path, store: Path, *, at: str) -> bool:
    """Start a night and kill its whole process group once a file *at* such a place is there; say whether it ran."""
    process = subprocess.Popen(
        [NIGHTREC, "run", "--config", config, "--date", DATE],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    stop = time.monotonic() + DEADLINE
    while process.poll() is None and not any(store.glob(at)):
        assert time.monotonic() < stop, f"the night never came to {at}"
        time.sleep(0.001)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def _finished(store: Path) -> dict[Path, tuple[int, int]]:
    """The finished shards of the runs under *store*, with what changes when one is written anew."""
    found = {}
    for sidecar in store.glob(f"runs/*/[!.]*/**/*-of-*{SIDECAR_SUFFIX}"):
        path = sidecar.with_name(sidecar.name.removesuffix(SIDECAR_SUFFIX))
        if path.exists():
            status = path.stat()
            found[path] = (status.st_ino, status.st_mtime_ns)
    return found
