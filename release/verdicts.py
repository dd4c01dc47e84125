"""The judgement: a figure and a verdict for each gate, all verdicts as a report, and the page made of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from artifacts.documents import read_json
from artifacts.errors import CorruptError, UsageError
from artifacts.layout import RecordLayout
from artifacts.release import read_record, verify_record_file
from artifacts.store import fetched, is_there
from release.gate import ABSOLUTELY, Action, Gate


class State(StrEnum):
    """What a gate says of a night."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"  # the gate does not apply, for a declared reason


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured number, or the declared reason why there is none.

    Attributes:
        value: The number; None where the gate does not apply.
        why: The reason where ``value`` is None; else what is to be known of it.
        against: What it was measured against, in words.
    """

    value: float | None
    why: str = ""
    against: str = ABSOLUTELY


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one gate says of a night.

    Attributes:
        name: The gate, and the segment that it looked at: ``users_lost[country=de]``.
        state: Whether it holds.
        value: The figure; None if the gate does not apply, or the figure is not finite.
        side: ``"at most"`` or ``"at least"``.
        bound: What was allowed.
        against: ``"absolute"``, or the releases that the figure was measured against, in words.
        why: Why it was skipped, or passed in spite of a change; what to do after a failure or a warning.
    """

    name: str
    state: State
    value: float | None
    side: str
    bound: float
    against: str
    why: str

    def line(self) -> str:
        """Say it in one line, for a person."""
        if self.state is State.SKIP:
            return f"{self.name}: does not apply: {self.why}"
        value = "not a finite number" if self.value is None else f"{self.value:.4g}"
        against = "" if self.against == ABSOLUTELY else f" against {self.against}"
        remedy = f"; {self.why}" if self.why else ""
        return f"{self.name}: {value}, expected {self.side} {self.bound:g}{against}{remedy}"


def name_in(gate: str, segment: str) -> str:
    """Name a gate's figure for one segment; the figure of all users has the gate's name."""
    return f"{gate}[{segment}]" if segment else gate


def judge(gates: Sequence[Gate], figures: Mapping[str, Figure], *, segments: Iterable[str] = ()) -> tuple[Verdict, ...]:
    """Judge *figures* by *gates*, in the order of the gates; after each come its segments.

    Args:
        gates: The table.
        figures: Name of each gate, and of each gate within a segment, to its figure.
        segments: Such as ``"country=de"``; the gates that are about users judge each of them too.

    Raises:
        KeyError: If a gate has no figure: a gate is never passed by in silence.
    """
    segments = tuple(segments)
    return tuple(
        _verdict(gate, name, figures[name])
        for gate in gates
        for name in [gate.name, *(name_in(gate.name, segment) for segment in segments if gate.by_segment)]
    )


def _verdict(gate: Gate, name: str, figure: Figure) -> Verdict:
    if figure.value is None:
        return Verdict(name, State.SKIP, None, gate.side, gate.bound, figure.against, figure.why)
    finite = abs(figure.value) < float("inf")
    if finite and gate.holds(figure.value):
        return Verdict(name, State.PASS, figure.value, gate.side, gate.bound, figure.against, figure.why)
    state = State.FAIL if gate.action is Action.FAIL else State.WARN
    value = figure.value if finite else None
    why = "; ".join(part for part in (gate.meaning, figure.why, gate.remedy) if part)
    return Verdict(name, state, value, gate.side, gate.bound, figure.against, why)


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gates said of a run; the content of ``gates.json``.

    Later nights measure themselves against all but the verdicts.

    Attributes:
        date: The data date, ISO.
        run_key: The run.
        judged: Digest of what was recorded of all the files that were judged.
        asked: Digest of all that the verdict depends on: the files, the gates, the earlier releases, the models' age.
        earlier: Version that the night was compared with; None on a first night.
        verdicts: One for each gate, and for each segment of it.
        figures: All that was measured, by name.
        segments: For each declared segment ``figures``, and ``score_bins``: its ranked rows by score.
        recent: Pairs of user and item by the quarter of a day in which they last met: ``first`` is the number of the
            first quarter since 1970, ``counts`` are the pairs of each whole one from there.
        popular: Ids of the items with the most events of the last days, most first.
    """

    date: str
    run_key: str
    judged: str
    asked: str
    earlier: str | None
    verdicts: tuple[Verdict, ...]
    figures: dict[str, float]
    segments: dict[str, dict[str, Any]]
    recent: dict[str, Any]
    popular: list[int | str]

    @property
    def passed(self) -> bool:
        """Whether no gate failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """The gates that refuse the night."""
        return tuple(verdict for verdict in self.verdicts if verdict.state is State.FAIL)

    @property
    def warned(self) -> tuple[Verdict, ...]:
        """The gates that only warn."""
        return tuple(verdict for verdict in self.verdicts if verdict.state is State.WARN)

    def document(self) -> dict[str, Any]:
        """What goes into JSON."""
        return {**asdict(self), "format": 1, "passed": self.passed}

    @classmethod
    def read(cls, record: RecordLayout, *, remedy: str = "") -> Self:
        """Read the verdict in *record*, whose bytes are checked first.

        Args:
            record: Of a run or of a release.
            remedy: What to do if it is another document; ends the message.

        Raises:
            CorruptError: If it is not listed, missing, changed, or another document.
        """
        path = verify_record_file(record, record.gates)
        try:
            return cls.from_document(read_json(path))
        except (KeyError, TypeError, ValueError) as error:
            ending = f"; {remedy}" if remedy else ""
            raise CorruptError(
                f"{path}: expected the gates' verdict, found something else ({error!r}){ending}"
            ) from error

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what :meth:`document` gave.

        Raises:
            KeyError, TypeError, ValueError: If it is another document.
        """
        names = ("date", "run_key", "judged", "asked", "earlier", "figures", "segments", "recent", "popular")
        verdicts = tuple(Verdict(**{**v, "state": State(v["state"])}) for v in document["verdicts"])
        return cls(**{name: document[name] for name in names}, verdicts=verdicts)


def report_stands(record: RecordLayout) -> bool:
    """Whether the record holds a report, unchanged: it was made of the verdict beside it."""
    try:
        return is_there(record.contents) and verify_record_file(record, record.report).name in read_record(record)
    except CorruptError:
        return False


def find_report(record: RecordLayout) -> Path:
    """Give a local path of the verified report of a record.

    Raises:
        UsageError: If it has none.
        CorruptError: If it is changed.
    """
    if not is_there(record.contents) or record.report.name not in read_record(record):
        raise UsageError(f"{record.report}: there is no report; `nightrec check` makes one")
    return fetched(verify_record_file(record, record.report))
