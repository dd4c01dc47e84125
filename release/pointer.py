"""The pointers that readers follow: LATEST and the channels, moved by compare-and-set, and what they lead to."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from artifacts.documents import find_sealed, sealed, swap_json
from artifacts.errors import CorruptError, UsageError
from artifacts.fields import DAY, PROSE, SHA256, VERSION, listing, mapping, only, text, whole
from artifacts.layout import ReleaseLayout, RootLayout
from artifacts.release import Manifest, manifest_digest
from artifacts.store import is_there, names_in
from release.pins import claimed

FORMAT = 1
LATEST = "LATEST"
_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a pointer does not move.

    Attributes:
        who: Who asked for the rollback.
        why: The reason given.
        withdrawn: The version that the pointer named before.
    """

    who: str
    why: str
    withdrawn: str


@dataclass(frozen=True, slots=True)
class Pointer:
    """What a pointer says.

    Attributes:
        version: The release it names.
        manifest_sha256: Digest of that release's manifest file.
        sequence: Grows by one with each move.
        date: Data date of the release.
        hold: Set by a rollback, until it is resumed.
        reason: Why it moved other than forward; ``""`` for an ordinary night.
        withdrawn: Releases of later dates that rollbacks took back: no publish moves to them, only a promotion.
    """

    version: str
    manifest_sha256: str
    sequence: int
    date: str
    hold: Hold | None = None
    reason: str = ""
    withdrawn: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """What goes into JSON; what is absent - hold, reason, withdrawn - is left out."""
        document = {**asdict(self), "withdrawn": [*self.withdrawn]}
        return {key: value for key, value in document.items() if key not in {"hold", "reason", "withdrawn"} or value}


@dataclass(frozen=True, slots=True)
class Release:
    """A release that a pointer or a version has led to.

    Attributes:
        layout: Where its files lie.
        manifest: What they must be; the files themselves are not verified yet.
    """

    layout: ReleaseLayout
    manifest: Manifest

    @property
    def version(self) -> str:
        """Its name."""
        return self.layout.folder.name


def require_words(verb: str, **said: str | None) -> None:
    """Refuse who asks, or a reason, that says nothing; None is not asked for.

    Raises:
        UsageError: Naming what is missing, or cannot be written down.
    """
    for name, words in said.items():
        if words is not None and (not words.strip() or not PROSE.fullmatch(words)):
            raise UsageError(f"{verb}, --{name}: expected words, found {words!r}; they are recorded for those after us")


def pointer_path(root: Path, channel: str = LATEST) -> Path:
    """Name the file of LATEST or of another channel.

    Raises:
        UsageError: If the channel's name is not of letters, digits, ``_`` and ``-``.
    """
    if channel == LATEST:
        return RootLayout(root).latest
    if not _CHANNEL.fullmatch(channel):
        raise UsageError(f"channel {channel!r}: expected a name of letters, digits, _ and -, such as shadow")
    return RootLayout(root).channel(channel)


def channels(root: Path) -> Iterator[str]:
    """Name the pointers that there are, LATEST first."""
    if is_there(RootLayout(root).latest):
        yield LATEST
    yield from filter(_CHANNEL.fullmatch, names_in(RootLayout(root).channel(LATEST).parent))


def read_pointer(root: Path, channel: str = LATEST) -> Pointer | None:
    """Read a pointer; None if nothing was published to it yet.

    Raises:
        CorruptError: If it is not one of ours, or changed in any byte.
    """
    path = pointer_path(root, channel)
    document = find_sealed(path, version=FORMAT, remedy="restore it, or remove it and publish the newest night again")
    if document is None:
        return None
    try:
        return _pointer(document)
    except ValueError as error:
        raise CorruptError(f"{path}: expected the fields of a pointer ({error})") from error


def _pointer(document: dict[str, Any]) -> Pointer:
    only(document, "version", "manifest_sha256", "sequence", "date", "hold", "reason", "withdrawn")
    hold = None
    if "hold" in document:
        said = mapping(document, "hold")
        only(said, "who", "why", "withdrawn")
        hold = Hold(text(said, "who", PROSE), text(said, "why", PROSE), text(said, "withdrawn", VERSION))
    taken_back = listing(document, "withdrawn") if "withdrawn" in document else []
    return Pointer(
        version=text(document, "version", VERSION),
        manifest_sha256=text(document, "manifest_sha256", SHA256),
        sequence=whole(document, "sequence", least=1),
        date=text(document, "date", DAY),
        hold=hold,
        reason=text(document, "reason", PROSE) if "reason" in document else "",
        withdrawn=tuple(text({"withdrawn": one}, "withdrawn", VERSION) for one in taken_back),
    )


def move_pointer(root: Path, channel: str, *, expected: Pointer | None, pointer: Pointer) -> None:
    """Let the channel say *pointer*, if it still says what was *expected*.

    Raises:
        ConflictError: If someone else moved it meanwhile, or the release is being pruned.
    """
    before = sealed(expected.document(), FORMAT) if expected else None
    with claimed(root, pointer.version):
        swap_json(pointer_path(root, channel), expected=before, document=sealed(pointer.document(), FORMAT))


def point_at(release: Release, before: Pointer | None, *, hold: Hold | None = None, reason: str = "") -> Pointer:
    """Make the pointer that names *release* and follows *before*; with a *hold* it takes back what *before* names."""
    sequence = before.sequence + 1 if before else 1
    digest, date = manifest_digest(release.layout), release.manifest.date
    taken_back = [*before.withdrawn, *([before.version] if hold else [])] if before else []
    withdrawn = tuple(version for version in taken_back if version[:10] > date)
    return Pointer(release.version, digest, sequence, date, hold, reason, withdrawn)


def follow(root: Path, channel: str = LATEST) -> Release:
    """Give the release that a pointer names, after checking that its manifest is the one that was published.

    Raises:
        UsageError: If nothing was published yet.
        CorruptError: If the release is missing, or its manifest is another.
    """
    pointer = read_pointer(root, channel)
    if pointer is None:
        night = "nightrec run" if channel == LATEST else f"nightrec run --channel {channel}"
        raise UsageError(f"{pointer_path(root, channel)}: nothing is published yet; run `{night}` first")
    path = pointer_path(root, channel)
    layout = RootLayout(root).release(pointer.version)
    if not is_there(layout.manifest):
        raise CorruptError(f"{path} names {pointer.version}, but {layout.manifest} is missing")
    if (found := manifest_digest(layout)) != pointer.manifest_sha256:
        raise CorruptError(f"{layout.manifest}: {path} expects sha256 {pointer.manifest_sha256}, found {found}")
    manifest = Manifest.read(layout.manifest)
    if (manifest.version, manifest.date) != (pointer.version, pointer.date):
        raise CorruptError(f"{path}: names {pointer.version} of {pointer.date}, found {manifest.version}")
    return Release(layout, manifest)


def versions(root: Path, *, whole: bool = True) -> list[str]:
    """Name the stored releases, oldest date first; if not *whole*, also those that have no manifest.

    In an object store a publisher or a prune that was killed leaves files without one.
    """
    layout = RootLayout(root)
    named = filter(VERSION.fullmatch, names_in(layout.releases))
    return [version for version in named if not whole or is_there(layout.release(version).manifest)]


def find_release(root: Path, version: str | None = None, channel: str = LATEST) -> Release:
    """Give the release named *version*, or else the one that *channel* names.

    Raises:
        UsageError: If there is none of that name; the message names the nearest.
        CorruptError: If its manifest is missing or changed.
    """
    if version is None:
        return follow(root, channel)
    if not VERSION.fullmatch(version) or not is_there(RootLayout(root).release(version).manifest):
        known = versions(root)
        of_date = [one for one in known if one.startswith(version)][-1:]  # a date alone, or the beginning of a name
        near = of_date or difflib.get_close_matches(version, known, n=1) or known[-1:]
        hint = f"did you mean {near[0]}?" if near else "there are no releases yet"
        raise UsageError(f"release {version}: there is none of that name under {root}; {hint}")
    layout = RootLayout(root).release(version)
    return Release(layout, Manifest.read(layout.manifest))


def earlier_release(root: Path, date: str, channel: str = LATEST) -> Release | None:
    """Give the newest release of an earlier data date than *date* that readers of *channel* have had.

    The pointer's chain of parents leads to it: what was stored under a hold, withdrawn by a rollback, or published to
    another channel is no yardstick. Where the chain is broken, because a release of it was pruned, because nights are
    repeated that lie before it, or because LATEST itself was lost, the newest stored release of an earlier date stands
    in: a surface that has releases has no first night. Another channel begins with one.

    Raises:
        CorruptError: If a pointer or manifest on the way is changed.
    """
    pointer = read_pointer(root, channel)
    if pointer is None and channel != LATEST:
        return None
    for version in lineage(root, pointer.version) if pointer else ():
        if version[:10] < date:
            return find_release(root, version)
    newest = pointer.date if pointer else date
    known = [version for version in versions(root) if version[:10] < date and version[:10] <= newest]
    return find_release(root, known[-1]) if known else None


def lineage(root: Path, version: str) -> Iterator[str]:
    """Name *version* and its parents, each of an earlier date than the one before it, as far as they are stored."""
    current: str | None = version
    while current is not None and is_there(RootLayout(root).release(current).manifest):
        yield current
        parent = find_release(root, current).manifest.parent
        current = parent if parent is not None and parent < current else None  # dates only fall: no endless chain
