"""Pruning: which stored releases and runs may go, which must, which stay and why; and their removal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

from artifacts.errors import CorruptError, UsageError
from artifacts.fields import DAY
from artifacts.layout import RootLayout
from artifacts.release import Manifest, read_record
from artifacts.store import (
    exclusive,
    files_under,
    names_in,
    remove_file,
    remove_folder,
    size_of,
    sweep_staged_folders,
    written_at,
)
from release.pins import (
    absolve,
    condemn,
    forget_the_dead,
    is_claimed,
    is_condemned,
    pinned,
    read_pin,
    remove_pin,
    time_of_store,
)
from release.pointer import channels, read_pointer, versions

CLAIM_SECONDS = 3600  # a pointer moves within seconds; a claim this old is of a process that died


@dataclass(frozen=True, slots=True)
class Rules:
    """What may go. Days are counted between data dates; only the grace time looks at when a release was stored.

    Attributes:
        keep: All releases of so many newest data dates stay; None asks nothing.
        older_than: Only releases of a data date before this one may go; None asks nothing.
        overdue_before: Releases of a data date before this one must go, kept or pinned or not; None asks nothing.
        versions: Only these go, whatever their age; no other rule is asked then.
        runs: Whether the runs of the dates go too.
        grace: Seconds; what was stored later than so long ago stays.
        now: Seconds since 1970; where something is removed, no later than the store's own clock says.
    """

    keep: int | None
    older_than: date | None
    overdue_before: date | None
    versions: tuple[str, ...]
    runs: bool
    grace: float
    now: float

    @property
    def claimed_since(self) -> float:
        """From when on a claim counts."""
        return self.now - max(self.grace, CLAIM_SECONDS)


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a release, or of the runs of a date.

    Attributes:
        name: The version, or ``runs/DATE``.
        goes: Whether it is to be removed.
        must: Whether it was to be removed without fail: it is overdue, or was named.
        why: The reason.
        size: Bytes; 0 where they cannot be counted.
    """

    name: str
    goes: bool
    must: bool
    why: str
    size: int

    @property
    def refused(self) -> bool:
        """Whether it must go and stays."""
        return self.must and not self.goes


def rules_of(
    root: Path,
    *,
    keep: int | None = None,
    older_than: str | None = None,
    max_age: int | None = None,
    versions_named: Sequence[str] = (),
    runs: bool = False,
    grace_hours: float = 24,
    now: float,
) -> Rules:
    """Make rules of what the command line says.

    Args:
        root: The surface's root.
        keep: How many data dates stay.
        older_than: Days before the newest stored data date, or a date.
        max_age: Days before today (UTC): what was promised to be gone by then has no other clock.
        versions_named: Releases that go, in place of the other rules.
        runs: Whether runs go too.
        grace_hours: Of what was stored lately.
        now: Seconds since 1970.

    Raises:
        UsageError: If nothing is asked, too much is, or a release is not known.
    """
    if versions_named and (keep, older_than, max_age) != (None, None, None):
        raise UsageError("prune: expected either --version, or --keep, --older-than and --max-age; found both")
    if not versions_named and (keep, older_than, max_age) == (None, None, None):
        raise UsageError("prune: expected --keep, --older-than, --max-age or --version to say what may go")
    known = versions(root)
    for version in versions_named:
        if version not in known:
            raise UsageError(f"prune, --version {version}: there is no such release; see `nightrec releases list`")
    dates = _dates(root)
    newest = max(dates) if dates else None
    today = date.fromordinal(date(1970, 1, 1).toordinal() + int(now // 86_400))
    return Rules(
        keep=keep,
        older_than=_bound(older_than, newest) if older_than is not None else None,
        overdue_before=_before(today, max_age) if max_age is not None else None,
        versions=tuple(versions_named),
        runs=runs,
        grace=grace_hours * 3600,
        now=now,
    )


def _dates(root: Path) -> list[date]:
    """Give the data dates of what is stored, ascending; names that are no dates are passed over."""
    layout = RootLayout(root)
    names = {version[:10] for version in versions(root)} | set(names_in(layout.runs))
    found = []
    for name in sorted(names):
        if DAY.fullmatch(name):
            try:
                found.append(date.fromisoformat(name))
            except ValueError:
                continue
    return found


def _bound(text: str, newest: date | None) -> date:
    if text.isascii() and text.isdigit():
        return _before(newest, int(text)) if newest else date.min
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"prune, --older-than {text}: expected a number of days, or a day as YYYY-MM-DD") from None


def _before(day: date, days: int) -> date:
    try:
        return day - timedelta(days=days)
    except OverflowError:
        return date.min


def plan(root: Path, rules: Rules) -> list[Fate]:
    """Say of each stored release, and of each date's runs if they are asked for, what becomes of it.

    Raises:
        CorruptError: If a pointer cannot be read: then it is not known what is current, and nothing may go.
    """
    named = _named(root)
    stored = versions(root, whole=False)
    newest = sorted({version[:10] for version in stored}, reverse=True)[: rules.keep or 0]
    fates = [_fate(root, version, rules, named, newest) for version in stored]
    return [*fates, *_fates_of_runs(root, rules)] if rules.runs else fates


def _named(root: Path) -> dict[str, list[str]]:
    """Give what is current: version to the channels that name it."""
    named: dict[str, list[str]] = {}
    for channel in channels(root):
        if pointer := read_pointer(root, channel):
            named.setdefault(pointer.version, []).append(channel)
    return named


def _fate(root: Path, version: str, rules: Rules, named: Mapping[str, Sequence[str]], newest: Sequence[str]) -> Fate:
    overdue = _is_before(version[:10], rules.overdue_before)
    must = overdue or version in rules.versions
    layout = RootLayout(root).release(version)
    if is_condemned(root, version) and not size_of(layout.manifest) and version not in named:
        return Fate(version, True, False, "its removal was begun and is finished now", 0)
    try:
        size = _size(root, version)
    except CorruptError as error:
        return Fate(version, False, must, f"cannot be read: {error}", 0)
    kept = "" if must else _kept(version[:10], rules, newest)
    kept = kept or _protected(root, version, rules, named, overdue=overdue)
    said = _asked(version, rules, overdue=overdue)
    return Fate(version, not kept, must, kept or said, size)


def _size(root: Path, version: str) -> int:
    layout = RootLayout(root).release(version)
    manifest = Manifest.read(layout.manifest)
    if layout.folder.is_symlink() or manifest.version != version:
        raise CorruptError(f"{layout.folder}: is not the release {version}")
    return manifest.size + sum(file.size for file in read_record(layout.record).values())


def _is_before(day: str, bound: date | None) -> bool:
    return bound is not None and day < bound.isoformat()


def _kept(day: str, rules: Rules, newest: Sequence[str]) -> str:
    """Say why the ordinary rules let something of *day* stay; ``""`` if it may go."""
    if rules.versions:
        return "not named"
    if rules.keep is None and rules.older_than is None:
        return "not overdue"
    if day in newest:
        return f"of the {len(newest)} newest data dates"
    if rules.older_than is not None and not _is_before(day, rules.older_than):
        return f"not older than {rules.older_than}"
    return ""


def _protected(root: Path, version: str, rules: Rules, named: Mapping[str, Sequence[str]], *, overdue: bool) -> str:
    """Say what keeps a release from being removed at all; ``""`` if nothing does."""
    if version in named:
        return f"current: {', '.join(named[version])} names it"
    if (stored := written_at(RootLayout(root).release(version).manifest)) > rules.now - rules.grace:
        return f"stored {max(0.0, rules.now - stored) / 3600:.1f} hours ago, within the grace time"
    if version in pinned(root) and not overdue:
        try:
            pin = read_pin(root, version)
        except CorruptError as error:
            return f"pinned: {error}"
        return f"pinned by {pin.who}: {pin.why}" if pin else ""
    return ""


def _asked(name: str, rules: Rules, *, overdue: bool) -> str:
    if name in rules.versions:
        return "named"
    return f"overdue: of a date before {rules.overdue_before}" if overdue else "no rule keeps it"


def _fates_of_runs(root: Path, rules: Rules) -> Iterator[Fate]:
    layout = RootLayout(root)
    days = [name for name in names_in(layout.runs) if DAY.fullmatch(name)]
    newest = sorted(days, reverse=True)[: rules.keep or 0]
    of_named = {version[:10] for version in rules.versions}
    for day in days:
        overdue = _is_before(day, rules.overdue_before)
        must = overdue or day in of_named
        files = files_under(layout.runs / day)
        kept = "" if must else _kept(day, rules, newest)
        if not kept and any(written_at(file) > rules.now - rules.grace for file in files):
            kept = "written to within the grace time"
        why = kept or ("of a named release's date" if day in of_named else _asked(day, rules, overdue=overdue))
        yield Fate(f"{layout.runs.name}/{day}", not kept, must, why, sum(size_of(file) or 0 for file in files))


def prune(root: Path, rules: Rules) -> list[Fate]:
    """Remove what :func:`plan` says goes, manifests first: to a reader each release is whole or absent.

    Returns:
        What became of each: one that somebody pointed at, or pinned, in the meantime has stayed.

    Raises:
        CorruptError: If a pointer cannot be read.
    """
    layout = RootLayout(root)
    with exclusive(root / ".prune.lock"):
        sweep_staged_folders(layout.releases)
        rules = replace(rules, now=min(rules.now, time_of_store(root)))  # else a clock that is ahead shortens the grace
        forget_the_dead(root, versions(root, whole=False), since=rules.claimed_since)
        done = []
        for fate in plan(root, rules):
            of_run = fate.name.startswith(f"{layout.runs.name}/")
            if fate.goes and of_run:
                _remove_runs(layout, fate.name.rpartition("/")[2])
            elif fate.goes:
                done.append(_remove(root, fate, rules))
                continue
            elif not of_run and is_condemned(root, fate.name):
                absolve(root, fate.name)  # by one that was killed before it removed anything
            done.append(fate)
        return done


def _remove(root: Path, fate: Fate, rules: Rules) -> Fate:
    version, overdue = fate.name, _is_before(fate.name[:10], rules.overdue_before)
    condemn(root, version)
    if size_of(RootLayout(root).release(version).manifest):  # else its removal has begun, and is finished
        now = "somebody points at it just now" if is_claimed(root, version, since=rules.claimed_since) else ""
        if kept := now or _protected(root, version, rules, _named(root), overdue=overdue):
            absolve(root, version)
            return replace(fate, goes=False, why=kept)
    remove_folder(RootLayout(root).release(version).folder)
    remove_pin(root, version)
    absolve(root, version)
    return fate


def _remove_runs(layout: RootLayout, day: str) -> None:
    """Remove the runs of a date; what names them goes first."""
    remove_file(layout.current_run(day))
    remove_folder(layout.runs / day)
