"""What keeps a release from being pruned: pins, claims of who is about to point at it; and what says it is going."""

import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from artifacts.documents import read_json, require_format, swap_json, write_json
from artifacts.errors import ConflictError, CorruptError, UsageError
from artifacts.fields import PROSE, VERSION, only, text
from artifacts.layout import RootLayout
from artifacts.store import is_there, names_in, remove_file, written_at

FORMAT = 1
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Pin:
    """A release that is to be kept.

    Attributes:
        version: The release.
        who: Who asked for it.
        why: The reason given.
    """

    version: str
    who: str
    why: str

    def document(self) -> dict[str, Any]:
        """What goes into JSON."""
        return {"format": FORMAT, **asdict(self)}


def pinned(root: Path) -> list[str]:
    """Name the releases that are pinned, whether or not they are still stored."""
    names = (name.removesuffix(_SUFFIX) for name in names_in(RootLayout(root).pins) if name.endswith(_SUFFIX))
    return [name for name in names if VERSION.fullmatch(name)]


def read_pin(root: Path, version: str) -> Pin | None:
    """Read the pin of a release; None if it is not pinned.

    Raises:
        CorruptError: If it is not one of ours; the release counts as pinned.
    """
    path = RootLayout(root).pin(version)
    if not is_there(path):
        return None
    document = read_json(path)
    require_format(path, document.get("format"), FORMAT)
    if document.get("version") != version:
        raise CorruptError(f"{path}: expected the pin of {version}, found something else")
    try:
        only(document, "format", "version", "who", "why")
        return Pin(version, text(document, "who", PROSE), text(document, "why", PROSE))
    except ValueError as error:
        raise CorruptError(f"{path}: expected the fields of a pin ({error})") from error


def write_pin(root: Path, pin: Pin) -> None:
    """Keep a stored release.

    Raises:
        UsageError: If it is pinned already.
        ConflictError: If it is being removed.
    """
    if before := read_pin(root, pin.version):
        raise UsageError(f"{pin.version} is pinned already, by {before.who}: {before.why}")
    swap_json(RootLayout(root).pin(pin.version), expected=None, document=pin.document())
    if _is_going(root, pin.version):
        remove_file(RootLayout(root).pin(pin.version))
        raise ConflictError(f"{pin.version}: is being pruned at this moment; it can be kept no longer")


def remove_pin(root: Path, version: str) -> None:
    """Let a release go again; a pin that cannot be read is removed too."""
    remove_file(RootLayout(root).pin(version))


@contextmanager
def claimed(root: Path, version: str) -> Iterator[None]:
    """Keep a release from being pruned while the block lets a pointer name it.

    Both sides write first and look then - the claim here, that it is condemned there - so that one of them, or both,
    see the other in time, on any store.

    Raises:
        ConflictError: If it is being removed, or is no longer there.
    """
    layout = RootLayout(root)
    claim = layout.claims / f"{version}.{uuid.uuid4().hex}"
    write_json(claim, {"format": FORMAT})
    try:
        if _is_going(root, version):
            raise ConflictError(f"{version}: is being pruned, or gone; look at `nightrec releases list`")
        yield
    finally:
        remove_file(claim)


def _is_going(root: Path, version: str) -> bool:
    layout = RootLayout(root)
    return is_there(layout.condemned(version)) or not is_there(layout.release(version).manifest)


def is_claimed(root: Path, version: str, *, since: float) -> bool:
    """Whether somebody is about to point at a release; a claim from before *since* (seconds) is of someone who died."""
    folder = RootLayout(root).claims
    claims = [folder / name for name in names_in(folder) if name.startswith(f"{version}.")]
    return any(written_at(claim) >= since for claim in claims)


def condemn(root: Path, version: str) -> None:
    """Say that a release is about to be removed: who points at it from now on sees that."""
    write_json(RootLayout(root).condemned(version), {"format": FORMAT})


def is_condemned(root: Path, version: str) -> bool:
    """Whether somebody has begun to remove a release."""
    return is_there(RootLayout(root).condemned(version))


def time_of_store(root: Path) -> float:
    """Ask what time it is, in seconds since 1970, by the clock that dates claims and manifests."""
    path = RootLayout(root).claims / f"now.{uuid.uuid4().hex}"
    write_json(path, {"format": FORMAT})
    try:
        return written_at(path)
    finally:
        remove_file(path)


def forget_the_dead(root: Path, stored: Collection[str], *, since: float) -> None:
    """Remove what killed processes left: claims from before *since*, and what condemns a release not *stored* any more.

    A release of that name, stored once more, could not be pointed at.
    """
    layout = RootLayout(root)
    for name in names_in(layout.claims):
        if written_at(layout.claims / name) < since:
            remove_file(layout.claims / name)
    condemned = layout.condemned("").parent
    for name in names_in(condemned):
        if name.removesuffix(_SUFFIX) not in stored:
            remove_file(condemned / name)


def absolve(root: Path, version: str) -> None:
    """Take back what :func:`condemn` said, or forget it when the release is gone."""
    remove_file(RootLayout(root).condemned(version))
