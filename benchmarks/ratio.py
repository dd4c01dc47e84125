"""A ratio of two ways to do the same work: timed in turn on one machine, told as a median with its quartiles."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ROUNDS = 9


@dataclass(frozen=True, slots=True)
class Ratio:
    """How much more of the same work ours does in a second; larger is better.

    Attributes:
        median: Over the rounds.
        quartiles: The first and the third.
        seconds: Medians of both, ours first.
    """

    median: float
    quartiles: tuple[float, float]
    seconds: tuple[float, float]

    def document(self, **more: Any) -> dict[str, Any]:
        """What stands in ``build/bench.json``, beside *more*."""
        return {
            "value": round(self.median, 4),
            "quartiles": [round(one, 4) for one in self.quartiles],
            "seconds": {"ours": round(self.seconds[0], 5), "limit": round(self.seconds[1], 5)},
            **more,
        }


def in_turn(ours: Callable[[], object], limit: Callable[[], object], *, rounds: int = ROUNDS) -> Ratio:
    """Time both, one after the other, *rounds* times, after one call of each that counts for nothing.

    Every other round begins with the other one, so that neither always runs on a warmer machine.
    """
    ours(), limit()
    pairs = []
    for number in range(rounds):
        first, second = (ours, limit) if number % 2 else (limit, ours)
        spent = {first: _seconds(first), second: _seconds(second)}
        pairs.append((spent[ours], spent[limit]))
    return ratio_of(pairs)


def ratio_of(pairs: list[tuple[float, float]]) -> Ratio:
    """Summarize seconds of ours and of the limit, round by round."""
    ratios = [limit / ours for ours, limit in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    mine, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Ratio(middle, (low, high), (mine, theirs))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
