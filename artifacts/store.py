"""Files under a root, a folder or an object store: a name holds the whole thing or nothing."""

import fcntl
import os
import shutil
import socket
import stat
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from artifacts.errors import ConflictError, CorruptError
from artifacts.layout import ReleaseLayout
from artifacts.mirror import mirror_of

STAGING_PREFIX = ".staging-"
MOST_BYTES = 1 << 28  # of a document that is read whole: far above any manifest, far below what hurts
_LOCK_SUFFIX = ".lock"  # after the name of a staged folder: held while its writer lives


def flush(path: Path) -> None:
    """Bring a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def staged_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside *path* for writing; it takes that name, flushed, when the block ends well.

    If the block raises, nothing is left under either name. Missing parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f"{STAGING_PREFIX}{uuid.uuid4().hex}-{path.name}")
    try:
        with staging.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mirror := mirror_of(path):
            mirror.send(staging, path)
        staging.replace(path)
        flush(path.parent)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside *path*; it takes that name, flushed, when the block ends well.

    Of two writers of one name the first to finish wins: a folder is never renamed onto another.

    Raises:
        ConflictError: If *path* exists already, or appears meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _staging_name(path) as staging:
        staging.mkdir()
        try:
            yield staging
            for inner in sorted(staging.rglob("*")):
                flush(inner)
            flush(staging)
            with exclusive(path.parent / ".lock"):
                if mirror := mirror_of(path):
                    mirror.send_version(staging, path)
                    shutil.rmtree(path, ignore_errors=True)  # what was fetched, or a killed writer left here
                if path.exists():
                    raise ConflictError(f"{path} exists already; it is never rewritten")
                staging.rename(path)
            flush(path.parent)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder in *parent* that is gone when the block ends; what a killed one left can be swept."""
    parent.mkdir(parents=True, exist_ok=True)
    with _staging_name(parent / "scratch") as folder:
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _staging_name(path: Path) -> Iterator[Path]:
    """Give a name beside *path* whose lock file is held until the block ends: it says that the writer lives."""
    while True:
        staging = path.with_name(f"{STAGING_PREFIX}{uuid.uuid4().hex}")
        lock = staging.with_name(staging.name + _LOCK_SUFFIX)
        with exclusive(lock):
            if not lock.exists():
                continue  # swept before it was locked
            try:
                yield staging
            finally:
                lock.unlink(missing_ok=True)
            return


def sweep_staged_folders(parent: Path) -> int:
    """Remove what writers of :func:`staged_folder` left in *parent* that were killed; count the folders.

    A writer's lock file is held as long as the writer lives, so that what others are writing stays.
    """
    swept = 0
    for lock in sorted(parent.glob(f"{STAGING_PREFIX}*{_LOCK_SUFFIX}")):
        try:
            descriptor = os.open(lock, os.O_RDWR)
        except FileNotFoundError:
            continue  # its writer has just finished
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            staging = lock.with_name(lock.name.removesuffix(_LOCK_SUFFIX))
            if staging.is_dir():
                shutil.rmtree(staging)
                swept += 1
            lock.unlink(missing_ok=True)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)
    return swept


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file at *path*; the system drops it when the process dies.

    Who has to wait says once, on standard error, for whom: a process that was stopped keeps its locks, and somebody
    has to let it go on or end it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _locked_soon(descriptor):
            holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            sys.stderr.write(
                f"nightrec: waiting for {holder}, which holds {path}; end it if it does no work any more\n"
            )
            sys.stderr.flush()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(OSError):  # on a full disk nobody is named, and the lock is held all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)  # nobody holds it any more, and no file names a machine
    finally:
        os.close(descriptor)


def _locked_soon(descriptor: int) -> bool:
    """Take the lock if it becomes free within a second, for which nobody need be told to wait."""
    for _ in range(20):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def sweep_staged_files(path: Path) -> None:
    """Remove what killed writers of the file at *path*, or of its sidecar, left beside it; its lock must be held."""
    for left_behind in path.parent.glob(f"{STAGING_PREFIX}*-{path.name}*"):
        left_behind.unlink(missing_ok=True)


def is_there(path: Path) -> bool:
    """Whether there is a file at *path*; of a folder ask :func:`names_in`."""
    return size_of(path) is not None


def size_of(path: Path) -> int | None:
    """Count the bytes of the file at *path*; None if there is none."""
    if mirror := mirror_of(path):
        said = mirror.remote.stat(mirror.key(path))
        return said.size if said else None
    found = _stat(path)
    return found.st_size if found else None


def written_at(path: Path) -> float:
    """Say when the file at *path* was written, in seconds since 1970; 0 if there is none."""
    if mirror := mirror_of(path):
        said = mirror.remote.stat(mirror.key(path))
        return said.written if said else 0.0
    found = _stat(path)
    return found.st_mtime if found else 0.0


def _stat(path: Path) -> os.stat_result | None:
    """Ask once, so that a file that goes meanwhile, pruned, is one that is not there."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def names_in(folder: Path) -> list[str]:
    """Name the files and folders directly in *folder*, sorted; none if there is no such folder."""
    if mirror := mirror_of(folder):
        return mirror.remote.names(mirror.key(folder))
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - iterdir() may find the folder gone in the middle of it
    except (FileNotFoundError, NotADirectoryError):
        return []


def files_under(folder: Path) -> list[Path]:
    """List every file under *folder*, at any depth, in the order of their paths."""
    if mirror := mirror_of(folder):
        return [mirror.folder / key for key in mirror.remote.keys(mirror.key(folder))]
    return files_on_disk(folder)


def files_on_disk(folder: Path) -> list[Path]:
    """List every file and symbolic link under *folder* on this disk; what goes meanwhile, pruned, is left out."""

    def unless_gone(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    found: list[Path] = []
    for top, folders, files in os.walk(folder, onerror=unless_gone):
        found += [Path(top, name) for name in files]
        found += [link for name in folders if (link := Path(top, name)).is_symlink()]
    return sorted(found)


def fetched(path: Path, sha256: str = "", *, anew: bool = False) -> Path:
    """Give *path* when the file there can be read from this machine's disk.

    Args:
        path: A file of content.
        sha256: What it was recorded with, if that is known: what comes from an object store is compared with it, and
            need not come twice.
        anew: Whether every byte is to come from the object store again.

    Raises:
        CorruptError: If there is no such file, or the object store holds other bytes.
    """
    if mirror := mirror_of(path):
        mirror.fetch(path, sha256, anew=anew)
    if not path.is_file():
        raise CorruptError(f"{path}: the file is missing")
    return path


def read_bytes(path: Path) -> bytes:
    """Read a small file whole, as it is now.

    Raises:
        CorruptError: If it is missing, cannot be read, or is no small file.
    """
    if mirror := mirror_of(path):
        found = mirror.remote.read(mirror.key(path), most=MOST_BYTES)
        if found is None:
            raise CorruptError(f"{path}: expected a file, but {mirror.remote.url} has none of that name")
        return found[0]
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise CorruptError(f"{path}: expected a document of at most {MOST_BYTES} bytes, found {size}")
        return path.read_bytes()
    except OSError as error:
        raise CorruptError(f"{path}: expected a file, but it cannot be read ({error.strerror})") from error


def remove_file(path: Path) -> None:
    """Remove the file at *path*, if there is one."""
    if mirror := mirror_of(path):
        mirror.remote.delete([mirror.key(path)])
    path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove *folder* and all that is in it: its manifest first, so that nobody takes what is left for a release."""
    remove_file(ReleaseLayout(folder).manifest)
    if mirror := mirror_of(folder):
        mirror.remote.delete(mirror.remote.keys(mirror.key(folder)))
    if folder.is_dir():
        shutil.rmtree(folder)


def send_folder(folder: Path) -> None:
    """Let the object store have every file under *folder*; there is nothing to do for one that is only a folder."""
    if mirror := mirror_of(folder):
        mirror.send_all(folder, folder, (path for path in sorted(folder.rglob("*")) if path.is_file()))


def require_swaps(root: Path) -> None:
    """See, once in a process, that pointers under *root* can be moved safely.

    Raises:
        StoreError: If the object store cannot be reached, refuses us, or ignores conditions.
    """
    if mirror := mirror_of(root):
        mirror.require_swaps()
