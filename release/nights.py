"""What is on record of a surface's nights: published or not, their verdicts and numbers, from releases and runs alike.

The records are what dashboards and the page over the releases tell of; nothing is measured anew here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import date as calendar_date
from datetime import timedelta
from enum import StrEnum
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

from artifacts.documents import read_json, read_sealed
from artifacts.errors import CorruptError, StaleRunError
from artifacts.fields import DAY, listing, mapping, only, text, whole
from artifacts.layout import RootLayout
from artifacts.release import Manifest, read_record, verify_record_file
from artifacts.run import find_run
from artifacts.store import is_there, names_in
from release.pointer import LATEST, channels, lineage, read_pointer, versions
from release.verdicts import GateReport, State, Verdict

FORMAT = 1
_ANY = re.compile(r"[^\ud800-\udfff]*")


class Outcome(StrEnum):
    """What became of a night."""

    PUBLISHED = "published"  # readers of the channel have it, or had it
    STORED = "stored"  # a release that the channel does not lead to: held, withdrawn, replaced
    REFUSED = "refused"  # by a gate, or before its gates
    BLESSED = "blessed"  # by its gates, and there is no release: not published yet, or pruned
    UNFINISHED = "unfinished"  # a run without a verdict
    UNREADABLE = "unreadable"  # its record is missing or changed


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a night.

    Attributes:
        seconds: How long it took, added up over all groups of shards.
        rows: Rows that it wrote.
    """

    seconds: float
    rows: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """All that is on record of one night; of an unreadable one there is only the problem.

    Attributes:
        date: The data date, ISO.
        outcome: What became of it.
        version: The release; ``""`` if it is none.
        run_key: The run.
        end: End of the data date in its time zone, in seconds since 1970; None where the record does not say.
        size: Bytes of the release's content.
        verdicts: What the gates said, those of the segments too.
        figures: Every number that the gates measured, of all users.
        counts: What ``prepare`` counted.
        steps: By name, as far as they were timed.
        problem: Why the record cannot be read, or that the night was refused before its gates.
    """

    date: str
    outcome: Outcome
    version: str = ""
    run_key: str = ""
    end: int | None = None
    size: int = 0
    verdicts: tuple[Verdict, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    steps: Mapping[str, Step] = field(default_factory=dict)
    problem: str = ""

    @property
    def judged(self) -> bool:
        """Whether it came to its gates, and to an end that its readers should hear of."""
        return self.outcome in {Outcome.PUBLISHED, Outcome.STORED, Outcome.REFUSED} and not self.problem

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """The gates that refuse it; a published night has some where they were overridden."""
        return tuple(verdict for verdict in self.verdicts if verdict.state is State.FAIL)

    @property
    def warned(self) -> tuple[Verdict, ...]:
        """The gates that only warn."""
        return tuple(verdict for verdict in self.verdicts if verdict.state is State.WARN)

    @property
    def seconds(self) -> float:
        """How long all its steps took."""
        return sum(step.seconds for step in self.steps.values())

    def document(self) -> dict[str, Any]:
        """What goes into JSON."""
        return {"format": FORMAT, **asdict(self), "verdicts": [asdict(verdict) for verdict in self.verdicts]}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what :meth:`document` gave.

        Raises:
            KeyError, TypeError, ValueError: If it is another document.
        """
        only(document, "format", *cls.__slots__)
        if document["format"] != FORMAT:
            raise ValueError(f"expected a night of format {FORMAT}, found {document['format']!r}")
        steps = mapping(document, "steps")
        return cls(
            date=text(document, "date", DAY),
            outcome=Outcome(document["outcome"]),
            version=text(document, "version", _ANY),
            run_key=text(document, "run_key", _ANY),
            end=None if document["end"] is None else whole(document, "end"),
            size=whole(document, "size"),
            verdicts=tuple(_verdict(one) for one in listing(document, "verdicts")),
            figures=_numbers(mapping(document, "figures")),
            counts=_numbers(mapping(document, "counts")),
            steps={name: Step(**_numbers(mapping(steps, name))) for name in steps},
            problem=text(document, "problem", _ANY),
        )


def _verdict(document: Mapping[str, Any]) -> Verdict:
    for name in ("name", "side", "against", "why"):
        text(document, name, _ANY)
    _numbers({name: document[name] for name in ("bound", "value") if document[name] is not None})
    return Verdict(**{**document, "state": State(document["state"])})


def _numbers(document: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in document.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise ValueError(f"{name}: expected a finite number, found {value!r}")
    return dict(document)


def recorded_nights(
    root: Path, *, nights: int, channel: str = LATEST, told: Iterable[Recorded] = ()
) -> tuple[Recorded, ...]:
    """Give the nights on record, oldest first, of so many days up to the newest of them; days without one are left out.

    A date has one night: the release that *channel* leads to, else one that no channel does, else the run that was
    prepared last. Runs do not say for which channel they were judged, and count for each.

    Args:
        root: The surface's root.
        nights: Days.
        channel: Whose nights.
        told: What was written down of nights; it stands in for those that were pruned.

    Raises:
        CorruptError: If a pointer is changed.
    """
    remembered = {night.date: night for night in told}
    newest = max({*remembered, *_dates(root)}, default=None)
    if newest is None:
        return ()
    first = (calendar_date.fromisoformat(newest) - timedelta(days=nights - 1)).isoformat()
    known = _known(root, channel, first)
    found = (
        _believed(_night(root, date, known[date]) if date in known else None, remembered.get(date))
        for date in sorted({*remembered, *known})
        if date >= first
    )
    return tuple(night for night in found if night is not None)


def _believed(stored: Recorded | None, told: Recorded | None) -> Recorded | None:
    """Believe the store, but for a run that is left of a release that was pruned."""
    if stored is None or told is None:
        return stored or told
    return told if stored.outcome is Outcome.BLESSED and told.run_key == stored.run_key else stored


def newest_night(root: Path, channel: str = LATEST) -> Recorded | None:
    """Give the night of the newest data date that was judged, as :func:`recorded_nights` would; None without one."""
    nights = (night_of(root, date, channel) for date in sorted(_dates(root), reverse=True))
    return next((night for night in nights if night is not None and night.judged), None)


def night_of(root: Path, date: str, channel: str = LATEST) -> Recorded | None:
    """Give the night of *date*, as :func:`recorded_nights` would; None without one."""
    release = _known(root, channel, date).get(date)
    return _night(root, date, release) if release else None


def _dates(root: Path) -> set[str]:
    """Name the dates of which there may be a run or a release."""
    return _runs(root) | {version[:10] for version in versions(root, whole=False)}


def _runs(root: Path) -> set[str]:
    return {date for date in names_in(RootLayout(root).runs) if DAY.fullmatch(date)}


def _known(root: Path, channel: str, since: str) -> dict[str, tuple[str, Outcome]]:
    """Give each date from *since* on with the release that tells of it; ``""`` where there are only runs."""
    own = set(_led_to(root, channel, since))
    others = {version for other in channels(root) if other != channel for version in _led_to(root, other, since)}
    stored = [
        version
        for version in versions(root, whole=False)
        if version[:10] >= since
        and version not in others | own
        and is_there(RootLayout(root).release(version).manifest)
    ]
    return {
        **{date: ("", Outcome.UNFINISHED) for date in _runs(root) if date >= since},
        **{version[:10]: (version, Outcome.STORED) for version in stored},
        **{version[:10]: (version, Outcome.PUBLISHED) for version in own},
    }


def _led_to(root: Path, channel: str, since: str) -> Iterator[str]:
    pointer = read_pointer(root, channel)
    if pointer is not None:
        with suppress(CorruptError):  # of a manifest; that night tells of it, and those before it count as stored
            yield from takewhile(lambda version: version[:10] >= since, lineage(root, pointer.version))


def _night(root: Path, date: str, release: tuple[str, Outcome]) -> Recorded | None:
    version, outcome = release
    return _of_release(root, version, outcome) if version else _of_run(root, date)


def _of_release(root: Path, version: str, outcome: Outcome) -> Recorded:
    layout, date = RootLayout(root).release(version), version[:10]
    record = layout.record
    try:
        manifest = Manifest.read(layout.manifest)
        listed = read_record(record) if is_there(record.contents) else {}
        report = GateReport.read(record) if record.gates.name in listed else None
        run = read_json(verify_record_file(record, record.run)) if record.run.name in listed else {}
        timings = read_json(verify_record_file(record, record.timings)) if record.timings.name in listed else {}
    except CorruptError as error:
        return Recorded(date, Outcome.UNREADABLE, version, problem=str(error))
    return Recorded(
        date,
        outcome,
        version,
        manifest.run_key,
        end=run.get("now"),
        size=manifest.size,
        verdicts=report.verdicts if report else (),
        figures=report.figures if report else {},
        counts=run.get("counts", {}),
        steps=_steps(timings),
    )


def _of_run(root: Path, date: str) -> Recorded | None:
    """Tell of the run of *date* that was prepared last; None while none is prepared, nor one refused before that."""
    try:
        run = find_run(root, date)
        record = run.layout.record
        report = GateReport.read(record) if is_there(record.gates) else None
    except StaleRunError:
        return _refused(root, date)
    except CorruptError as error:
        return Recorded(date, Outcome.UNREADABLE, problem=str(error))
    if report is None and (refused := _refused(root, date)):
        return refused
    timings: dict[str, Any] = {}
    if is_there(run.layout.timings):
        with suppress(CorruptError):  # cut short as the power went: the night began to count anew
            timings = read_sealed(run.layout.timings, version=1)
    return Recorded(
        date,
        _outcome(report),
        run_key=run.run_key,
        end=run.now,
        verdicts=report.verdicts if report else (),
        figures=report.figures if report else {},
        counts=run.counts,
        steps=_steps(timings),
    )


def _refused(root: Path, date: str) -> Recorded | None:
    """Tell of a night that was refused before its gates; None if it was not."""
    if not is_there(RootLayout(root).refusal(date)):
        return None
    return Recorded(date, Outcome.REFUSED, problem=f"before its gates; `nightrec report {date}` shows why")


def _outcome(report: GateReport | None) -> Outcome:
    if report is None:
        return Outcome.UNFINISHED
    return Outcome.BLESSED if report.passed else Outcome.REFUSED


def _steps(timings: Mapping[str, Any]) -> dict[str, Step]:
    """Add up what was timed of each step; each time that it did something is an entry."""
    return {
        name: Step(
            round(sum(entry["seconds"] for entry in entries), 3),
            sum(entry["rows"] for entry in entries),
        )
        for name, entries in timings.items()
    }
