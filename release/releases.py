"""The verbs on stored releases: list, show, verify, and the ways of a pointer - rollback, resume, promote."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from artifacts.documents import read_json
from artifacts.errors import CorruptError, RefusedError, UsageError
from artifacts.layout import RootLayout
from artifacts.release import Manifest, manifest_digest, read_record, verify_record_file, verify_release
from release.pins import Pin, pinned, read_pin, remove_pin, write_pin
from release.pointer import (
    LATEST,
    Hold,
    Pointer,
    Release,
    channels,
    find_release,
    move_pointer,
    point_at,
    pointer_path,
    read_pointer,
    require_words,
    versions,
)


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of ``nightrec releases list``.

    Attributes:
        version: The release.
        date: Its data date.
        parent: The release before it; None at first.
        rows: Recommendations.
        users: Users in its interest tables.
        items: Items in its vector tables.
        size: Bytes of its content.
        channels: Pointers that name it.
        held: Those of them that a rollback holds.
        pinned: Whether it is to be kept.
        problem: Why its manifest cannot be read; ``""`` if it can, and then the fields above are known.
    """

    version: str
    date: str
    parent: str | None = None
    rows: int = 0
    users: int = 0
    items: int = 0
    size: int = 0
    channels: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    pinned: bool = False
    problem: str = ""


def list_releases(root: Path) -> list[Listed]:
    """List the stored releases, oldest date first; one that cannot be read is listed with its problem.

    Raises:
        CorruptError: If a pointer cannot be read.
    """
    pointers = dict(_pointers(root))
    return [_listed(root, version, pointers) for version in versions(root)]


def _pointers(root: Path) -> Iterator[tuple[str, Pointer]]:
    for channel in channels(root):
        if pointer := read_pointer(root, channel):
            yield channel, pointer


def _listed(root: Path, version: str, pointers: dict[str, Pointer]) -> Listed:
    layout = RootLayout(root).release(version)
    named = {channel: pointer for channel, pointer in pointers.items() if pointer.version == version}
    held = tuple(channel for channel, pointer in named.items() if pointer.hold)
    kept = version in pinned(root)
    try:
        manifest = Manifest.read(layout.manifest)
    except CorruptError as error:
        return Listed(version, version[:10], channels=tuple(named), held=held, pinned=kept, problem=str(error))
    return Listed(
        version=version,
        date=manifest.date,
        parent=manifest.parent,
        rows=manifest.rows(layout.scores.name),
        users=manifest.rows(layout.interests.name),
        items=manifest.rows(layout.items.name),
        size=manifest.size,
        channels=tuple(named),
        held=held,
        pinned=kept,
    )


def show(root: Path, version: str | None = None, *, channel: str = LATEST) -> dict[str, Any]:
    """Tell all about a release, the one that *channel* names if no *version* is given: manifest, index and record.

    Raises:
        UsageError: If there is no such release.
        CorruptError: If manifest or record are changed.
    """
    release = find_release(root, version, channel)
    layout, manifest = release.layout, release.manifest
    record = layout.record
    kept = {record.folder / name for name in read_record(record)}
    told = {
        name: read_json(verify_record_file(record, path)) if path in kept else None
        for name, path in (
            ("gates", record.gates),
            ("revision", record.revision),
            ("timings", record.timings),
        )
    }
    keeper = read_pin(root, release.version)
    pointers = {c: pointer.document() for c, pointer in _pointers(root) if pointer.version == release.version}
    return {
        "version": release.version,
        "date": manifest.date,
        "run_key": manifest.run_key,
        "bundles": manifest.bundles,
        "parent": manifest.parent,
        "overrides": list(manifest.overrides),
        "pointers": pointers,
        "rows": manifest.rows(layout.scores.name),
        "users": manifest.rows(layout.interests.name),
        "items": manifest.rows(layout.items.name),
        "bytes": manifest.size,
        "files": {name: {"size": file.size, "rows": file.rows} for name, file in sorted(manifest.files.items())},
        "index": read_json(layout.index.parameters),
        "pin": asdict(keeper) if keeper else None,
        **told,
    }


@dataclass(frozen=True, slots=True)
class Verified:
    """A release whose every byte is what was written.

    Attributes:
        version: The release.
        files: Content files.
        size: Their bytes.
    """

    version: str
    files: int
    size: int


def verify(root: Path, version: str | None = None, *, channel: str = LATEST, quick: bool = False) -> Verified:
    """Read every byte of a release, the one that *channel* names if no *version* is given.

    Args:
        root: The surface's root.
        version: A release.
        channel: Which pointer to follow where none is named.
        quick: Only read manifest and record's list, and compare the sizes of the files they name.

    Raises:
        UsageError: If there is no such release.
        CorruptError: If a byte is changed, or a file is missing or not listed; one line for each such file.
    """
    release = find_release(root, version, channel)
    manifest = verify_release(release.layout.folder, quick=quick)
    digest = manifest_digest(release.layout)
    for name, pointer in _pointers(root):
        if pointer.version == release.version and pointer.manifest_sha256 != digest:
            path = pointer_path(root, name)
            raise CorruptError(
                f"{release.layout.manifest}: {path} expects sha256 {pointer.manifest_sha256}, found {digest}"
            )
    return Verified(release.version, len(manifest.files), manifest.size)


def rollback(root: Path, version: str, *, who: str, why: str, channel: str = LATEST) -> Pointer:
    """Let *channel* name the verified release *version* again, and hold it there until :func:`resume`.

    Args:
        root: The surface's root.
        version: A release that is not of a later date than the one readers have.
        who: Who asks; recorded.
        why: The reason; recorded.
        channel: Which pointer moves.

    Raises:
        UsageError: If there is no such release, nothing is published yet, or no name or reason is given.
        RefusedError: If the release is of a later date, which is no way back.
        CorruptError: If the release is not whole.
        ConflictError: If someone else moved the pointer meanwhile.
    """
    require_words("rollback", who=who, reason=why)
    before = _published(root, channel)
    release = find_release(root, version)
    if release.manifest.date > before.date:
        raise RefusedError(
            f"{version} is of {release.manifest.date}, later than {before.version} that {channel} names; "
            "a rollback goes back; to go forward, resume and publish that date's run again"
        )
    verify_release(release.layout.folder)
    after = point_at(release, before, hold=Hold(who, why, before.version))
    move_pointer(root, channel, expected=before, pointer=after)
    return after


def resume(root: Path, *, who: str, why: str = "", channel: str = LATEST) -> Pointer:
    """Lift the hold of a rollback: the next night that is published moves *channel* again.

    The pointer itself stays until then; publishing again a night that was only stored moves it to that, but never to
    one that a rollback took back: :func:`promote` does.

    Raises:
        UsageError: If there is no hold, or nobody asks.
        ConflictError: If someone else moved the pointer meanwhile.
    """
    require_words("resume", who=who, reason=why or None)
    before = _published(root, channel)
    if before.hold is None:
        raise UsageError(f"{channel} is not held: there is nothing to resume; it names {before.version}")
    reason = f"resumed by {who}" + (f": {why}" if why else "")
    after = replace(before, sequence=before.sequence + 1, hold=None, reason=reason)
    move_pointer(root, channel, expected=before, pointer=after)
    return after


def promote(root: Path, version: str, *, who: str, why: str, channel: str = LATEST) -> Pointer:
    """Let *channel* name the verified release *version*, as another channel does, or none yet.

    Forward only: a release of an earlier date than the one that readers have is for :func:`rollback`, which holds the
    pointer there; promoted, the next night would take it away again.

    Raises:
        UsageError: If there is no such release, *channel* names it already, or no name or reason is given.
        RefusedError: If the release is of an earlier date, or *channel* is held.
        CorruptError: If the release is not whole.
        ConflictError: If someone else moved the pointer meanwhile, or the release is being pruned.
    """
    require_words("promote", who=who, reason=why)
    before = read_pointer(root, channel)
    release = find_release(root, version)
    if before is not None:
        _require_forward(release, before, channel)
    verify_release(release.layout.folder)
    after = point_at(release, before, reason=f"promoted by {who}: {why}")
    move_pointer(root, channel, expected=before, pointer=after)
    return after


def _require_forward(release: Release, before: Pointer, channel: str) -> None:
    if before.version == release.version:
        raise UsageError(f"{channel} names {release.version} already")
    if before.hold is not None:
        raise RefusedError(
            f"{channel} is held at {before.version} by {before.hold.who} ({before.hold.why}); "
            "run `nightrec releases resume` first"
        )
    if release.manifest.date < before.date:
        raise RefusedError(
            f"{release.version} is of {release.manifest.date}, earlier than {before.version} that {channel} names; "
            "to go back, and to stay there, run `nightrec releases rollback`"
        )


def pin(root: Path, version: str, *, who: str, why: str) -> Pin:
    """Keep a stored release from being pruned, until :func:`unpin`.

    Raises:
        UsageError: If there is no such release, it is pinned already, or no name or reason is given.
        CorruptError: If its manifest cannot be read.
        ConflictError: If it is being pruned.
    """
    require_words("pin", who=who, reason=why)
    kept = Pin(find_release(root, version).version, who, why)
    write_pin(root, kept)
    return kept


def unpin(root: Path, version: str) -> None:
    """Let a pinned release go again; it need not be stored any more.

    Raises:
        UsageError: If it is not pinned.
    """
    known = pinned(root)
    if version not in known:
        hint = f"pinned are {', '.join(known)}" if known else "no release is"
        raise UsageError(f"{version} is not pinned; {hint}")
    remove_pin(root, version)


def _published(root: Path, channel: str) -> Pointer:
    pointer = read_pointer(root, channel)
    if pointer is None:
        raise UsageError(f"{pointer_path(root, channel)}: nothing is published yet")
    return pointer
