"""An object store through obstore: what is sent is checked, what fails is tried again, and errors tell no secrets.

Its clients are made by ``clients``; all else that is asked of obstore is asked here.
"""

import hashlib
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from artifacts.clients import HELP, client_of
from artifacts.errors import ConflictError, CorruptError, RefusedByStoreError, StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

Answer = TypeVar("Answer")
SCHEMES = ("s3", "gs", "az")
_PART = 8 << 20  # bytes of one part of a multipart upload, where ten thousand of them are enough
_MOST_PARTS = 9_000
REMAINS_SECONDS = 3_600  # after which a version without a manifest is what a killed writer left
_AT_ONCE = 4  # parts of one file on their way
_MISSING = FileNotFoundError  # what obstore raises for an object, or a bucket, that is not there


def _patient(ask: Callable[..., Answer]) -> Callable[..., Answer]:
    """Ask again, in the declared time, what may be done twice: the library gives up where an answer breaks off."""

    @wraps(ask)
    def asking(remote: "Remote", *arguments: Any, **options: Any) -> Answer:
        until, pause = time.monotonic() + remote.retry_seconds, 0.1
        while True:
            try:
                return ask(remote, *arguments, **options)
            except RefusedByStoreError:
                raise
            except StoreError:
                if time.monotonic() > until:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    return asking


@dataclass(frozen=True, slots=True)
class Stat:
    """What the store says of an object.

    Attributes:
        size: Its bytes.
        sha256: The digest it was sent with; ``""`` if others put it there.
        writer: The token it was swapped in with; ``""`` if it was not.
        written: When, in seconds since 1970, by the store's clock.
        version: What a conditional write compares.
    """

    size: int
    sha256: str
    writer: str
    written: float
    version: dict[str, str]


@dataclass(frozen=True, slots=True)
class Remote:
    """A prefix of a bucket, or of a container.

    Attributes:
        url: ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``; no credentials are in it.
        retry_seconds: For how long a request that fails is tried again.
    """

    url: str
    retry_seconds: float

    @property
    def _store(self) -> "ObjectStore":
        return client_of(self.url, self.retry_seconds)

    @_patient
    def stat(self, key: str) -> Stat | None:
        """Ask for an object without its bytes; None if there is none."""
        import obstore

        with self._speaking("asking for", key):
            try:
                return _stat(obstore.get(self._store, key, options={"head": True}))
            except _MISSING:
                return None

    @_patient
    def read(self, key: str, *, most: int) -> tuple[bytes, Stat] | None:
        """Read a small object; None if there is none.

        Raises:
            CorruptError: If it has more than *most* bytes.
        """
        import obstore

        with self._speaking("reading", key):
            try:
                found = obstore.get(self._store, key)
            except _MISSING:
                return None
            stat = _stat(found)
            if stat.size > most:
                raise CorruptError(f"{self.url}/{key}: expected a document of at most {most} bytes, found {stat.size}")
            return bytes(found.bytes()), stat

    @_patient
    def download(self, key: str, path: Path) -> tuple[str, int] | None:
        """Stream an object into the file at *path*; give its sha256 and size, or None if there is none.

        A transfer that breaks off is taken up again.

        Raises:
            CorruptError: If its bytes are not those that were sent.
        """
        with path.open("wb") as file:
            return self._stream(key, file.write)

    def _stream(self, key: str, write: Any) -> tuple[str, int] | None:
        import obstore

        digest, size = hashlib.sha256(), 0
        with self._speaking("reading", key):
            try:
                found = obstore.get(self._store, key)
            except _MISSING:
                return None
            said = _stat(found)
            for chunk in found.stream(min_chunk_size=_PART):
                digest.update(chunk)
                size += len(chunk)
                write(chunk)
        if size != said.size or (said.sha256 and said.sha256 != digest.hexdigest()):
            raise CorruptError(
                f"{self.url}/{key}: expected {said.size} bytes with sha256 {said.sha256 or 'of any value'}, "
                f"received {size} with {digest.hexdigest()}; was it changed in the store?"
            )
        return digest.hexdigest(), size

    def upload(self, key: str, path: Path) -> str:
        """Send the file at *path*, in parts where it is large, and check what has arrived; give its sha256.

        The object appears when the last part has arrived. A store whose entity tag is the MD5 of what it holds has
        checked it so; from another, or where the tag differs because the store encrypts, every byte is read back.

        Raises:
            StoreError: If the store cannot be reached in time, refuses, or holds other bytes than were sent.
        """
        part = _part_of(path)
        sha256, tag = _digests(path, part)
        self._put(key, path, sha256, tag, part)
        return sha256

    def upload_once(self, key: str, path: Path) -> str:
        """Send a file of a version, which is never rewritten: the same bytes are left as they are.

        What a killed writer has left there an hour ago makes way; other bytes that are younger are of someone who may
        be at work.

        Raises:
            ConflictError: If somebody else writes other bytes there.
            StoreError: As :meth:`upload`.
        """
        size, part = path.stat().st_size, _part_of(path)
        sha256, tag = _digests(path, part)
        found = self.stat(key)
        if found is None and size <= _PART:
            created = self.create(key, path.read_bytes())
            found = self.stat(key)
            if created:
                if found is None or found.version.get("e_tag", "").strip('"') != tag:
                    self._read_back(key, sha256, size)
                return sha256
        if found is not None and (found.sha256, found.size) == (sha256, size):
            return sha256
        if found is not None and time.time() - found.written < REMAINS_SECONDS:
            raise ConflictError(
                f"{self.url}/{key}: someone else is storing this version with another record, or was killed within the "
                "hour; ask again in an hour, or with the same reasons as before"
            )
        self._put(key, path, sha256, tag, part)
        return sha256

    @_patient
    def _put(self, key: str, path: Path, sha256: str, tag: str, part: int) -> None:
        import obstore

        with self._speaking("writing", key):
            put = obstore.put(
                self._store,
                key,
                path,
                attributes={"sha256": sha256},
                chunk_size=part,
                max_concurrency=_AT_ONCE,
            )
        if (put["e_tag"] or "").strip('"') != tag:
            self._read_back(key, sha256, path.stat().st_size)

    def _read_back(self, key: str, sha256: str, size: int) -> None:
        try:
            found = self._stream(key, lambda chunk: None)
        except CorruptError:
            found = None
        if found != (sha256, size):
            self.delete([key])
            raise StoreError(f"{self.url}/{key}: the store does not hold what was sent; it is removed, try again")

    @_patient
    def write(self, key: str, content: bytes) -> None:
        """Write a small object, whatever was there, and check what has arrived.

        Raises:
            StoreError: As :meth:`upload`.
        """
        import obstore

        sha256 = hashlib.sha256(content).hexdigest()
        with self._speaking("writing", key):
            put = obstore.put(self._store, key, content, attributes={"sha256": sha256}, use_multipart=False)
        if (put["e_tag"] or "").strip('"') != hashlib.md5(content, usedforsecurity=False).hexdigest():
            self._read_back(key, sha256, len(content))

    def create(self, key: str, content: bytes) -> bool:
        """Write a small object where there is none; give False, and change nothing, if there is one."""
        return self.swap(key, content, None)

    def swap(self, key: str, content: bytes, version: dict[str, str] | None) -> bool:
        """Write a small object if it still has *version* (None: if there is none); say whether we did.

        A write whose answer was lost is known by its token: it counts, and it is never done twice.
        """
        import obstore
        from obstore import exceptions

        attributes = {"sha256": hashlib.sha256(content).hexdigest(), "writer": uuid.uuid4().hex}
        mode: Any = version or "create"
        until, pause = time.monotonic() + self.retry_seconds, 0.1
        while True:
            try:
                with self._speaking("writing", key):
                    obstore.put(self._store, key, content, attributes=attributes, mode=mode)
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
                return self._is_of(key, attributes["writer"])
            except RefusedByStoreError:
                raise
            except StoreError:
                if self._is_of(key, attributes["writer"]):
                    return True
                if time.monotonic() > until:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, 5.0)
            else:
                return True

    def _is_of(self, key: str, writer: str) -> bool:
        found = self.stat(key)
        return found is not None and found.writer == writer

    @_patient
    def names(self, prefix: str) -> list[str]:
        """Name what lies directly under *prefix*, objects and folders, sorted."""
        import obstore

        with self._speaking("listing", prefix):
            found = obstore.list_with_delimiter(self._store, prefix or None)
            paths = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return sorted({path.rstrip("/").rpartition("/")[2] for path in paths})

    @_patient
    def keys(self, prefix: str) -> list[str]:
        """List every object under *prefix*, sorted."""
        import obstore

        with self._speaking("listing", prefix):
            return sorted(entry["path"] for chunk in obstore.list(self._store, prefix or None) for entry in chunk)

    @_patient
    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; what is gone already is fine."""
        import obstore

        for start in range(0, len(keys), 250):
            some = list(keys[start : start + 250])
            with self._speaking("removing", some[0]):
                try:
                    obstore.delete(self._store, some)
                except _MISSING:  # one of them
                    for key in some:
                        with suppress(_MISSING):
                            obstore.delete(self._store, key)

    def require_swaps(self) -> None:
        """See that the store does conditional writes, on which every pointer rests, by trying them.

        Raises:
            StoreError: If it does not, or refuses us.
        """
        key = f".probe-{uuid.uuid4().hex}"
        if not self.swap(key, b"1", None):
            raise StoreError(f"{self.url}: cannot write a new object")
        try:
            first = self.stat(key)
            sound = (
                first is not None
                and not self.swap(key, b"2", None)
                and self.swap(key, b"3", first.version)
                and not self.swap(key, b"4", first.version)
            )
        finally:
            self.delete([key])
        if not sound:
            raise StoreError(
                f"{self.url}: this store does not honour conditional writes (If-None-Match, If-Match), so that two "
                "publishers could overwrite each other; take one that does, see docs/stores.md"
            )

    @contextmanager
    def _speaking(self, doing: str, key: str) -> Iterator[None]:
        """Say in one line what went wrong; the library's own words may quote a signed address and are not repeated."""
        from obstore import exceptions

        try:
            yield
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            raise
        except _MISSING:
            place = self.url.split("/")[2]
            raise RefusedByStoreError(
                f"{self.url}: {doing} {key} failed: there is no bucket or container {place}"
            ) from None
        except (exceptions.BaseError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # our own disk's trouble
            raise self._error(f"{self.url}: {doing} {key} failed", str(error)) from None

    def _error(self, what: str, words: str) -> StoreError:
        status = re.search(r"status code: (\d{3})", words)
        code = re.search(r"<Code>(\w{1,64})</Code>", words)
        said = " ".join(found[1] for found in (status, code) if found)
        if "169.254.169.254" in words or "metadata.google" in words:
            return RefusedByStoreError(
                f"{what}: there are no credentials in the environment or the usual files; {HELP}"
            )
        late = code is not None and code[1] == "RequestTimeout"  # S3 says 400 of an upload that paused for too long
        if status and status[1] in {"400", "401", "403"} and not late:
            return RefusedByStoreError(
                f"{what}: the store refuses us ({said}); are the credentials right and alive? {HELP}"
            )
        seconds = f"tried for {self.retry_seconds:g} seconds"
        if status:
            return StoreError(f"{what}: the store answers {said}, {seconds}; try again later")
        return StoreError(f"{what}: the store cannot be reached, {seconds}; is its address right, and the network up?")


def _stat(found: Any) -> Stat:
    meta, attributes = found.meta, found.attributes
    return Stat(
        size=meta["size"],
        sha256=attributes.get("sha256", ""),
        writer=attributes.get("writer", ""),
        written=meta["last_modified"].timestamp(),
        version={name: meta[name] for name in ("e_tag", "version") if meta.get(name)},
    )


def _part_of(path: Path) -> int:
    """Say how many bytes a part has: whole MiB, so that no file has too many."""
    return max(_PART, -(-path.stat().st_size // (_MOST_PARTS << 20)) << 20)


def _digests(path: Path, part: int) -> tuple[str, str]:
    """Give the file's sha256, and the entity tag that S3 gives it: its MD5, or that of its parts' with their number."""
    whole, parts = hashlib.sha256(), []
    with path.open("rb") as file:
        while chunk := file.read(part):
            whole.update(chunk)
            parts.append(hashlib.md5(chunk, usedforsecurity=False).digest())
    if len(parts) < 2:
        tag = (parts or [hashlib.md5(b"", usedforsecurity=False).digest()])[0].hex()
    else:
        tag = f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
    return whole.hexdigest(), tag
