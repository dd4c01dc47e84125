"""The gates: a table of bounds, and the pure judgement of one night's figures by it."""

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self

from artifacts.errors import UsageError


class Against(StrEnum):
    """What a figure is measured against."""

    ABSOLUTE = "absolute"
    EARLIER = "earlier"  # the newest release of an earlier data date that readers have had


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
        why: The reason where ``value`` is None.
    """

    value: float | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Gate:
    """One bound that a night must keep.

    Attributes:
        name: Of the gate and of the figure that it judges.
        meaning: What the figure is, with its unit.
        bound: The last value that passes.
        remedy: What to do when it is not kept.
        side: ``"at most"`` or ``"at least"``.
        action: ``fail`` refuses the night, ``warn`` only says so.
        against: What the figure is measured against.
        fixed: Whether no config can move it.
    """

    name: str
    meaning: str
    bound: float
    remedy: str
    side: str = "at most"
    action: State = State.FAIL
    against: Against = Against.ABSOLUTE
    fixed: bool = False

    def holds(self, value: float) -> bool:
        """Whether *value* keeps the bound; NaN never does."""
        return value <= self.bound if self.side == "at most" else value >= self.bound


_EARLIER = Against.EARLIER
_WARN = State.WARN
_RERUN = "the run's tables contradict each other: remove this run and start it again; if it stays, report it"

GATES = (
    Gate(
        "rows",
        "recommendations",
        1,
        "is the day's input there, are all users or items excluded?",
        "at least",
        fixed=True,
    ),
    Gate(
        "users_missing",
        "users of the histories without a recommendation, though there are items that they have not had",
        0,
        "was a score table cut short? run the step score again; else is the popular list too short for them?",
    ),
    Gate(
        "users_empty",
        "share of users without a recommendation since they have had every item of the index",
        0.05,
        "has the catalogue shrunk? let people have again what they had: [retrieve] exclude_seen, exclude_days",
    ),
    Gate("users_unknown", "recommended users that are in no history", 0, _RERUN, fixed=True),
    Gate("users_repeated", "users that are in more than one shard", 0, _RERUN, fixed=True),
    Gate(
        "rows_unaccounted",
        "rows that went in, did not come out and were not counted as excluded",
        0,
        _RERUN,
        fixed=True,
    ),
    Gate("rows_unsorted", "rows out of order: users ascending, ranks 1, 2, 3 ... without holes", 0, _RERUN, fixed=True),
    Gate("items_repeated", "rows that repeat an item of the same user", 0, _RERUN, fixed=True),
    Gate("items_foreign", "rows whose item is not in the catalogue or not eligible", 0, _RERUN, fixed=True),
    Gate(
        "not_finite",
        "scores and interest vectors that are NaN, Inf or missing",
        0,
        "export the model again and look at its weights; was training stable?",
        fixed=True,
    ),
    Gate(
        "items_unusable",
        "share of eligible items with a signal whose vector is zero, NaN or Inf",
        0.01,
        "look at the item model and at the catalogue's columns",
    ),
    Gate(
        "items_without_signal",
        "share of items with an unknown id and no known side feature",
        0.2,
        "the catalogue has outgrown the model: fit it again, or map the side columns",
        action=_WARN,
    ),
    Gate("interests_zero", "share of interest vectors that are zero", 0.01, "look at the user model's export"),
    Gate(
        "unknown_share",
        "share of behaviours in histories whose item id the model does not know",
        0.3,
        "were item ids renamed? otherwise fit the model on newer days",
    ),
    Gate("cold_share", "share of users without a history", 0.9, "is the day's history whole?", action=_WARN),
    Gate(
        "model_age", "days from the model's last training day to the data date", 60, "fit the model again", action=_WARN
    ),
    Gate(
        "recall",
        "recall of the index against exact search, on users that did not choose its parameters",
        0.9,
        "raise [index] recall_target, take another type, or look at the item vectors",
        "at least",
    ),
    Gate(
        "list_imbalance",
        "imbalance of the index's lists (1 is even; lists x sum of squared sizes / squared items)",
        6,
        "search will be slow: set [index] lists, or look for many equal item vectors",
        action=_WARN,
    ),
    Gate(
        "coverage",
        "share of items that are recommended at all (of the most that the rows could hold)",
        0.002,
        "nearly everyone is recommended the same: look at the interest vectors and at the scores",
        "at least",
    ),
    Gate(
        "exposure_top",
        "share of the recommendations that the most recommended 1 % of the items take",
        0.9,
        "a few items take nearly all places: look at the scores, or limit groups by [[score.rules]]",
        action=_WARN,
    ),
    Gate(
        "users_lost", "share of users fewer than in the earlier release", 0.2, "is the input whole?", against=_EARLIER
    ),
    Gate(
        "users_gained",
        "share of users more than in the earlier release",
        1.0,
        "were partitions doubled, or ids changed?",
        against=_EARLIER,
    ),
    Gate(
        "items_lost",
        "share of items fewer than in the earlier release",
        0.2,
        "is the catalogue whole?",
        against=_EARLIER,
    ),
    Gate(
        "items_gained",
        "share of items more than in the earlier release",
        1.0,
        "were partitions doubled, or ids changed?",
        against=_EARLIER,
    ),
    Gate(
        "cold_rise",
        "rise of the share of users without a history",
        0.1,
        "is a part of the interactions missing?",
        against=_EARLIER,
    ),
    Gate(
        "score_psi",
        "population stability index of the ranked rows' scores (0.1 small, 0.25 large)",
        0.25,
        "did an input column change its meaning? compare its values with the day before",
        against=_EARLIER,
    ),
    Gate(
        "churn",
        "share of the top 10 that is new, over users who are in both releases",
        0.8,
        "did ids or times shift? compare the day's input with the day before",
        against=_EARLIER,
    ),
)


def configured_gates(
    changes: Mapping[str, float | Mapping[str, Any]], gates: Sequence[Gate] = GATES
) -> tuple[Gate, ...]:
    """Give *gates* with the bounds and actions of a config: ``{"churn": 0.5, "recall": {"action": "warn"}}``.

    Raises:
        UsageError: If a gate or key is unknown, a value is of the wrong kind, or a fixed gate is to be moved.
    """
    by_name = {gate.name: gate for gate in gates}
    for name, change in changes.items():
        if name not in by_name:
            nearest = difflib.get_close_matches(name, by_name, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(by_name)}"
            raise UsageError(f"gates.{name}: there is no such gate; {hint}")
        by_name[name] = _changed(by_name[name], change if isinstance(change, Mapping) else {"bound": change})
    return tuple(by_name.values())


def _changed(gate: Gate, change: Mapping[str, Any]) -> Gate:
    if gate.fixed:
        raise UsageError(f"gates.{gate.name}: this gate cannot be moved: {gate.meaning}, {gate.side} {gate.bound:g}")
    for key, value in change.items():
        if key == "action":
            if value not in {"fail", "warn"}:
                raise UsageError(f'gates.{gate.name}.action: expected "fail" or "warn", found {value!r}')
            gate = replace(gate, action=State(value))
        elif key == "bound":
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not abs(value) <= sys.float_info.max:  # an infinite bound lets every night pass
                raise UsageError(f"gates.{gate.name}.bound: expected a finite number, found {value!r}")
            gate = replace(gate, bound=float(value))
        else:
            raise UsageError(f"gates.{gate.name}.{key}: expected bound or action")
    return gate


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one gate says of a night.

    Attributes:
        name: The gate.
        state: Whether it holds.
        value: The figure; None if the gate does not apply, or the figure is not finite.
        side: ``"at most"`` or ``"at least"``.
        bound: What was allowed.
        against: ``"absolute"``, or the version of the earlier release.
        why: The reason of a skip; what to do after a failure or a warning.
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
        against = "" if self.against == Against.ABSOLUTE else f" against {self.against}"
        remedy = f"; {self.why}" if self.why else ""
        return f"{self.name}: {value}, expected {self.side} {self.bound:g}{against}{remedy}"


def judge(gates: Sequence[Gate], figures: Mapping[str, Figure], *, earlier: str | None) -> tuple[Verdict, ...]:
    """Judge *figures* by *gates*, in the order of the gates.

    Args:
        gates: The table.
        figures: Name of each gate to its figure.
        earlier: Version that the figures of ``Against.EARLIER`` are measured against.

    Raises:
        KeyError: If a gate has no figure: a gate is never passed by in silence.
    """
    return tuple(_verdict(gate, figures[gate.name], earlier) for gate in gates)


def _verdict(gate: Gate, figure: Figure, earlier: str | None) -> Verdict:
    against = str(gate.against) if gate.against is Against.ABSOLUTE or earlier is None else earlier
    if figure.value is None:
        return Verdict(gate.name, State.SKIP, None, gate.side, gate.bound, against, figure.why)
    finite = abs(figure.value) < float("inf")
    if finite and gate.holds(figure.value):
        return Verdict(gate.name, State.PASS, figure.value, gate.side, gate.bound, against, "")
    value = figure.value if finite else None
    return Verdict(gate.name, gate.action, value, gate.side, gate.bound, against, f"{gate.meaning}; {gate.remedy}")


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gates said of a run; the content of ``gates.json``.

    Attributes:
        date: The data date, ISO.
        run_key: The run.
        judged: Digest of what was recorded of all the files that were judged.
        asked: Digest of all that the verdict depends on: the files, the gates, the earlier release, the models' age.
        earlier: Version that the night was compared with; None on a first night.
        verdicts: One for each gate.
        figures: What else was measured, for people.
    """

    date: str
    run_key: str
    judged: str
    asked: str
    earlier: str | None
    verdicts: tuple[Verdict, ...]
    figures: dict[str, float]

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
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what :meth:`document` gave.

        Raises:
            KeyError, TypeError, ValueError: If it is another document.
        """
        fields = {key: document[key] for key in ("date", "run_key", "judged", "asked", "earlier", "figures")}
        verdicts = tuple(Verdict(**{**v, "state": State(v["state"])}) for v in document["verdicts"])
        return cls(**fields, verdicts=verdicts)
