"""What was recorded of the earlier nights that readers have had, verified before it is believed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from artifacts.errors import CorruptError
from artifacts.release import read_record
from artifacts.store import is_there
from release.gate import Against
from release.pointer import LATEST, Release, earlier_release, find_release, versions
from release.verdicts import GateReport

NIGHTS = 7  # releases that a median is taken of
LEAST_NIGHTS = 3  # fewer make no median: it is the last release then


@dataclass(frozen=True, slots=True)
class Past:
    """One earlier release, and what its gates measured.

    Attributes:
        release: The release.
        report: Its gates' report; None if it was published without one, for a reason given.
    """

    release: Release
    report: GateReport | None

    @property
    def models(self) -> dict[str, str]:
        """Role to model id."""
        return {role: ids["model_id"] for role, ids in self.release.manifest.bundles.items()}

    def figure(self, name: str, segment: str = "") -> float | None:
        """Give what was measured under *name*, of all users or of a segment; None where it was not."""
        if self.report is None:
            return None
        figures = self.report.segments.get(segment, {}).get("figures", {}) if segment else self.report.figures
        return figures.get(name)


def past_nights(root: Path, date: str, channel: str = LATEST) -> tuple[Past, ...]:
    """Give the last releases of earlier data dates than *date* that readers of *channel* have had, newest first.

    Each is the parent of the one before it; one that was pruned ends the chain.

    Raises:
        CorruptError: If a pointer, a manifest or a record on the way is changed.
    """
    return tuple(_past(release) for release in _chain(root, earlier_release(root, date, channel)))


def _chain(root: Path, release: Release | None) -> Iterator[Release]:
    known = set(versions(root))
    for _ in range(NIGHTS):
        if release is None:
            return
        yield release
        parent = release.manifest.parent
        release = find_release(root, parent) if parent in known and parent < release.version else None


def _past(release: Release) -> Past:
    record = release.layout.record
    if not is_there(record.contents) or record.gates.name not in read_record(record):
        return Past(release, None)
    report = GateReport.read(record)
    if (report.date, report.run_key) != (release.manifest.date, release.manifest.run_key):
        raise CorruptError(f"{record.gates}: speaks of run {report.run_key} of {report.date}, not of {release.version}")
    return Past(release, report)


def reference(
    against: Against, past: Sequence[Past], name: str, segment: str, last: float | None
) -> tuple[float | None, str]:
    """Give the number that tonight's is measured against, and what it is, in words.

    Args:
        against: The last release, or the median of several.
        past: Newest first, at least one.
        name: Of the figure.
        segment: Of users; ``""`` is all of them.
        last: The last release's number where it was measured anew; else its record is asked.
    """
    last = past[0].figure(name, segment) if last is None else last
    version = past[0].release.version
    if against is not Against.MEDIAN:
        return last, version
    numbers = [last, *(night.figure(name, segment) for night in past[1:])]
    found = [number for number in numbers if number is not None]
    if len(found) < LEAST_NIGHTS:
        return last, f"{version} (fewer than {LEAST_NIGHTS} nights for a median)"
    return median(found), f"the median of the last {len(found)} nights"
