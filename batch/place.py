"""The place of a prepared run: found again when it is whole, staged while it is made, moved there when it is done."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from artifacts.documents import read_sealed
from artifacts.errors import CorruptError, StaleRunError, UsageError
from artifacts.layout import ReplayLayout, RootLayout, RunLayout
from artifacts.run import FORMAT, Run, find_run
from artifacts.store import STAGING_PREFIX, flush, is_there, send_folder, size_of
from artifacts.tables import sidecar_within


def find_prepared(layout: RootLayout, date: str, asked: str) -> Run | None:
    """Find the run that answered a request before, if it is still whole; *asked* is the request's digest."""
    path = layout.request(date, asked)
    if not is_there(path):
        return None
    try:
        answer = read_sealed(path, version=FORMAT)
        if answer.get("asked") != asked:
            return None  # the answer to something else, put here
        run = find_run(layout.folder, date, str(answer.get("run_key")))
    except (StaleRunError, CorruptError, UsageError):
        return None
    return run if _is_whole(run) else None


def prepared_tables(layout: RunLayout, shards: int) -> Iterator[Path]:
    """Name every table that ``prepare`` writes."""
    replay = ReplayLayout(layout.folder)
    yield from (layout.catalogue, layout.popular, layout.sample)
    yield from (replay.histories(0, 1), replay.seen(0, 1), replay.happened, replay.popular)
    for shard in range(shards):
        yield from (layout.histories(shard, shards), layout.seen(shard, shards))


def _is_whole(run: Run) -> bool:
    """Whether every prepared table is there with the size it had; who reads one checks its bytes."""
    for path in prepared_tables(run.layout, run.shards):
        try:
            size = sidecar_within(path, run.run_key).size
        except (StaleRunError, CorruptError):
            return False
        if size_of(path) != size:
            return False
    return True


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """Yield a new folder under *parent*, whose lock is held: what others left behind there is dead and removed."""
    for left_behind in [*parent.glob(f"{STAGING_PREFIX}*"), *parent.glob(f"requests/{STAGING_PREFIX}*")]:
        shutil.rmtree(left_behind) if left_behind.is_dir() else left_behind.unlink()
    folder = parent / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def settle(folder: Path, run: Run) -> Run:
    """Give a finished *folder* its final name; a run of the same content that is there already stays."""
    if is_there(run.layout.run):
        with suppress(StaleRunError, CorruptError):  # no run.json, or a damaged one: it is written again
            found = Run.read(run.folder)
            if _is_whole(found):
                return found
    for inner in (*sorted(folder.rglob("*")), folder):
        flush(inner)
    parts = [path.name for path in sorted(folder.iterdir())]
    if run.folder.exists():
        for part in parts:
            shutil.rmtree(run.folder / part, ignore_errors=True)  # damaged; what was computed from it is still true
            (folder / part).rename(run.folder / part)
    else:
        folder.rename(run.folder)
    flush(run.folder.parent)
    for part in parts:
        send_folder(run.folder / part)
    run.write()
    return run
