"""A root in an object store, as a local folder that mirrors it: what is read is fetched, what is written is sent.

The folder holds a marker that names the store, so that any path under it leads there. Documents are read from the
store each time. Content is fetched once: it lies in a cache under its sha256, and is linked to where it is read.
"""

import fcntl
import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from artifacts.digest import canonical_json, file_digest
from artifacts.errors import ConflictError, CorruptError, UsageError
from artifacts.layout import ReleaseLayout
from artifacts.remote import SCHEMES, Remote

MARKER = ".store.json"
_MIRRORS = "stores"  # the folder of the cache in which a marker counts
_AT_ONCE = 8  # files on their way
_STAGING = ".part-"  # of a file that has no name yet
_IN_USE_SECONDS = 3_600  # what was used within an hour is not evicted: somebody may be about to open it


@dataclass(frozen=True, slots=True)
class Mirror:
    """A folder and the store that it mirrors.

    Attributes:
        folder: Where the marker lies.
        remote: The store.
        most_bytes: How much the cache, which mirrors share, keeps from one command to the next.
    """

    folder: Path
    remote: Remote
    most_bytes: int

    @property
    def cache(self) -> Path:
        """Where content lies under its sha256."""
        return self.folder.parent.parent / "sha256"

    def key(self, path: Path) -> str:
        """Name the object that *path* mirrors; ``""`` for the folder itself."""
        key = path.relative_to(self.folder).as_posix()
        return "" if key == "." else key

    def fetch(self, path: Path, sha256: str = "", *, anew: bool = False) -> None:
        """Let the object's bytes lie at *path*, verified.

        Args:
            path: Under the folder.
            sha256: What the bytes must have, where it is known: then the cache is asked first.
            anew: Whether to take nothing from the cache.

        Raises:
            CorruptError: If there is no such object, or it holds other bytes.
        """
        if not sha256:
            stat = self.remote.stat(self.key(path))
            if stat is None:
                raise CorruptError(f"{path}: {self.remote.url}/{self.key(path)} is missing")
            sha256 = stat.sha256
        with self._entry(sha256 or uuid.uuid4().hex) as entry:
            kept = not anew and entry.is_file() and file_digest(entry) == sha256
            source = entry if kept else self._download(path, entry, sha256)
            os.utime(source)
            _link(source, path)

    def _download(self, path: Path, entry: Path, sha256: str) -> Path:
        staging = entry.with_name(f"{_STAGING}{uuid.uuid4().hex}")
        try:
            found = self.remote.download(self.key(path), staging)
            if found is None:
                raise CorruptError(f"{path}: {self.remote.url}/{self.key(path)} is missing")
            if sha256 and found[0] != sha256:
                raise CorruptError(
                    f"{path}: expected sha256 {sha256}, found {found[0]} in {self.remote.url}; "
                    "was it changed or swapped?"
                )
            entry = self._place(found[0])
            entry.parent.mkdir(exist_ok=True)
            return staging.replace(entry)
        finally:
            staging.unlink(missing_ok=True)

    def send(self, source: Path, path: Path) -> None:
        """Let the store have the content at *source* under the name of *path*, and the cache too."""
        self._keep(source, self.remote.upload(self.key(path), source))

    def send_all(self, source: Path, target: Path, paths: Iterable[Path], *, once: bool = False) -> None:
        """Send files under *source* to where they lie under *target*, several at a time; see :meth:`send`."""
        upload = self.remote.upload_once if once else self.remote.upload

        def send(path: Path) -> None:
            self._keep(path, upload(self.key(target / path.relative_to(source)), path))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(send, paths):
                pass

    def send_version(self, source: Path, target: Path) -> None:
        """Send a version that is never rewritten: content, then its record, and its manifest last of all.

        Raises:
            ConflictError: If it is there already, or someone else is storing it with another record.
        """
        layout = ReleaseLayout(source)
        manifest = self.key(target / layout.manifest.name)
        exists = f"{self.remote.url}/{manifest} exists already; a version is never rewritten"

        def require_absent() -> None:
            if self.remote.stat(manifest) is not None:
                raise ConflictError(exists)

        require_absent()
        paths = [path for path in sorted(source.rglob("*")) if path.is_file() and path != layout.manifest]
        record = [path for path in paths if layout.record.folder in path.parents]
        self.send_all(source, target, (path for path in paths if path not in record), once=True)
        require_absent()  # content may take hours, after which a record would make way
        self.send_all(source, target, [path for path in record if path == layout.record.contents], once=True)
        self.send_all(source, target, record, once=True)  # its list came first: who has another one writes none of it
        ours = {self.key(target / path.relative_to(source)) for path in [*paths, layout.manifest]}
        strangers = [key for key in self.remote.keys(self.key(target)) if key not in ours]
        require_absent()  # else they may be of what was published meanwhile
        self.remote.delete(strangers)
        if not self.remote.create(manifest, layout.manifest.read_bytes()):
            raise ConflictError(exists)

    def _keep(self, path: Path, sha256: str) -> None:
        if path.suffix == ".json":
            return
        with self._entry(sha256) as entry:
            _link(entry, path) if entry.is_file() else _link(path, entry)

    def require_swaps(self) -> None:
        """See, once in a process, that the store does conditional writes.

        Raises:
            StoreError: If it cannot be reached, refuses us, or ignores conditions.
        """
        _require_swaps_once(self.remote)

    def _place(self, sha256: str) -> Path:
        return self.cache / sha256[:2] / sha256

    @contextmanager
    def _entry(self, sha256: str) -> Iterator[Path]:
        """Give the place of some content in the cache; one process at a time fetches it."""
        _evict_once(self.cache, self.most_bytes)
        entry = self._place(sha256)
        with _locked(entry):
            yield entry


@lru_cache(maxsize=8)
def _require_swaps_once(remote: Remote) -> None:
    remote.require_swaps()


def _link(source: Path, target: Path) -> None:
    """Let *target* be the same file as *source*; it always names one whole file or the other."""
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f"{_STAGING}{uuid.uuid4().hex}")
    staging.hardlink_to(source)
    staging.replace(target)


def open_mirror(url: str, *, cache: Path, retry_seconds: float, most_bytes: int) -> Path:
    """Make the folder that mirrors *url*, or find it; nothing is asked of the store.

    Args:
        url: ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``.
        cache: Holds the mirrors and the content they share.
        retry_seconds: For how long a request that fails is tried again.
        most_bytes: How much content the cache keeps from one command to the next.
    """
    url = url.rstrip("/")
    readable = re.sub(r"[^A-Za-z0-9]+", "-", url)[:60]
    folder = cache.absolute() / _MIRRORS / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    said = canonical_json({"url": url, "retry_seconds": retry_seconds, "most_bytes": most_bytes})
    marker = folder / MARKER
    if not marker.is_file() or marker.read_bytes() != said:
        staging = folder / f"{_STAGING}{uuid.uuid4().hex}"
        staging.write_bytes(said)
        staging.replace(marker)
        _mirror_at.cache_clear()
    return folder


def require_url(url: str) -> str:
    """Refuse the address of a store that we cannot use, or that has a secret in it, without repeating it.

    Raises:
        UsageError: Saying what is expected.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise UsageError(
            f"expected a folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, found {scheme}://"
        )
    if not re.fullmatch(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._=-]+)*/?", rest) or "/." in rest:
        raise UsageError(
            f"[surface] root: expected {scheme}://bucket/prefix of letters, digits and . _ - =, found something else; "
            "credentials belong into the environment, see docs/stores.md"
        )
    return url


def mirror_of(path: Path) -> Mirror | None:
    """Give the mirror that *path* lies in; None in a plain folder, and for what is ours alone: staging and locks."""
    mirror = _mirror_at(path)
    if mirror is None or any(part.startswith(".") for part in path.relative_to(mirror.folder).parts):
        return None
    return mirror


@lru_cache(maxsize=1 << 14)
def _mirror_at(folder: Path) -> Mirror | None:
    if folder.parent.name == _MIRRORS:  # a marker elsewhere, such as where all may write, says nothing
        with suppress(FileNotFoundError, NotADirectoryError):
            said = json.loads((folder / MARKER).read_bytes())
            return Mirror(folder, Remote(said["url"], said["retry_seconds"]), said["most_bytes"])
    return _mirror_at(folder.parent) if folder.parent != folder else None


@lru_cache(maxsize=8)
def _evict_once(cache: Path, most_bytes: int) -> None:
    """Remove what was used longest ago, with its links, until the cache is small enough; once in a process."""
    _sweep_halves(cache)
    entries = [entry for entry in cache.glob("??/*") if not entry.name.startswith(".")]
    stats = {entry: stat for entry in entries if (stat := _stat(entry)) is not None}
    over = sum(stat.st_size for stat in stats.values()) - most_bytes
    gone = set()
    for entry in sorted(stats, key=lambda entry: stats[entry].st_mtime):
        if over <= 0:
            break
        if (was := _removed(entry)) is not None:
            over -= was.st_size
            if was.st_nlink > 1:  # else its number is another file's from now on
                gone.add(was.st_ino)
    for path in (cache.parent / _MIRRORS).rglob("*") if gone else ():
        if (stat := _stat(path)) is not None and stat.st_ino in gone:
            path.unlink(missing_ok=True)


def _sweep_halves(cache: Path) -> None:
    """Remove what processes left that were killed while they fetched."""
    for left_behind in cache.glob(f"??/{_STAGING}*"):
        if (stat := _stat(left_behind)) is not None and stat.st_mtime < time.time() - _IN_USE_SECONDS:
            left_behind.unlink(missing_ok=True)


def _removed(entry: Path) -> os.stat_result | None:
    """Remove some content and tell what it was; None, and it stays, if somebody has used it within the hour."""
    with _locked(entry):
        stat = _stat(entry)
        if stat is None or stat.st_mtime > time.time() - _IN_USE_SECONDS:
            return None
        entry.unlink()
        return stat


@contextmanager
def _locked(entry: Path) -> Iterator[None]:
    """Hold the lock of a place in the cache; one process at a time fetches, links or removes what lies there."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(entry.parent / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _stat(path: Path) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return path.lstat()
    return None
