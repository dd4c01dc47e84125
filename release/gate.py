"""What a gate is: a bound on a number, and what the number is measured against."""

from dataclasses import dataclass
from enum import StrEnum


class Against(StrEnum):
    """What a figure is measured against."""

    ABSOLUTE = "absolute"
    LAST = "last"  # the newest release of an earlier data date that readers have had
    MEDIAN = "median"  # the median of the last seven of them; the last one while there are too few


class Action(StrEnum):
    """What a gate does that does not hold."""

    FAIL = "fail"  # the night is refused
    WARN = "warn"


class Change(StrEnum):
    """How a gate gets its figure from the number that it looks at, the level."""

    NONE = "none"  # the level itself
    LOST = "lost"  # the share that the level has lost of the earlier one; 0 where it has grown
    GAINED = "gained"  # the share that it has gained; 0 where it has shrunk
    RISE = "rise"  # the difference
    BETWEEN = "between"  # the level itself lies between tonight and the last release


ABSOLUTELY = str(Against.ABSOLUTE)


@dataclass(frozen=True, slots=True)
class Gate:
    """One bound that a night must keep.

    Attributes:
        name: Of the gate.
        meaning: What its figure is, with its unit.
        bound: The last value that passes.
        remedy: What to do when it is not kept.
        side: ``"at most"`` or ``"at least"``.
        action: What it does then.
        against: What the figure is measured against.
        change: How the figure comes from ``level``.
        of: The level; the gate's own name if ``""``.
        by_segment: Whether it is about users, and judges each declared segment of them too.
        of_model: Whether it does not apply when a model has changed.
        fixed: Whether no config can move it.
    """

    name: str
    meaning: str
    bound: float
    remedy: str
    side: str = "at most"
    action: Action = Action.FAIL
    against: Against = Against.ABSOLUTE
    change: Change = Change.NONE
    of: str = ""
    by_segment: bool = False
    of_model: bool = False
    fixed: bool = False

    @property
    def level(self) -> str:
        """The number that it looks at."""
        return self.of or self.name

    def holds(self, value: float) -> bool:
        """Whether *value* keeps the bound; NaN never does."""
        return value <= self.bound if self.side == "at most" else value >= self.bound
