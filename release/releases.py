"""The verbs on stored releases: list, show, verify, roll back and resume."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from artifacts.digest import file_digest
from artifacts.errors import CorruptError, RefusedError, UsageError
from artifacts.layout import RootLayout
from artifacts.release import Manifest, read_record, verify_record_file, verify_release
from artifacts.store import read_json
from release.pointer import (
    LATEST,
    Hold,
    Pointer,
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
    try:
        manifest = Manifest.read(layout.manifest)
    except CorruptError as error:
        return Listed(version, version[:10], channels=tuple(named), held=held, problem=str(error))
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
        for name, path in (("gates", record.gates), ("overrides", record.overrides), ("timings", record.timings))
    }
    pointers = {c: pointer.document() for c, pointer in _pointers(root) if pointer.version == release.version}
    return {
        "version": release.version,
        "date": manifest.date,
        "run_key": manifest.run_key,
        "bundles": manifest.bundles,
        "parent": manifest.parent,
        "pointers": pointers,
        "rows": manifest.rows(layout.scores.name),
        "users": manifest.rows(layout.interests.name),
        "items": manifest.rows(layout.items.name),
        "bytes": manifest.size,
        "files": {name: {"size": file.size, "rows": file.rows} for name, file in sorted(manifest.files.items())},
        "index": read_json(layout.index.parameters),
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


def verify(root: Path, version: str | None = None, *, channel: str = LATEST) -> Verified:
    """Read every byte of a release, the one that *channel* names if no *version* is given.

    Raises:
        UsageError: If there is no such release.
        CorruptError: If a byte is changed, or a file is missing or not listed; one line for each such file.
    """
    release = find_release(root, version, channel)
    manifest = verify_release(release.layout.folder)
    digest = file_digest(release.layout.manifest)
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
        RefusedError: If the release is of a later date: that is no way back.
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

    The pointer itself stays until then; publishing again a night that was only stored moves it to that.

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


def _published(root: Path, channel: str) -> Pointer:
    pointer = read_pointer(root, channel)
    if pointer is None:
        raise UsageError(f"{pointer_path(root, channel)}: nothing is published yet")
    return pointer
