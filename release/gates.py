"""The gates: the table of bounds, and what a config changes in it; docs/gates.md gives the reason of each default."""

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from artifacts.errors import UsageError
from release.gate import Action, Against, Change, Gate

_LAST, _MEDIAN, _WARN = Against.LAST, Against.MEDIAN, Action.WARN
_RERUN = "the run's tables contradict each other: remove this run and start it again; if it stays, report it"
_WHOLE = "is a part of the interactions missing, written twice, or another shop's?"

GATES = (
    # Is everybody and everything there, once, in order, and a number?
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
    # Are the models sound and fresh, and do they know what people do?
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
        by_segment=True,
    ),
    Gate(
        "cold_share",
        "share of users without a history",
        0.9,
        "is the day's history whole?",
        action=_WARN,
        by_segment=True,
    ),
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
        "scores_constant",
        "share of users whose ranked items all have the same score, so that chance orders them",
        0.05,
        "the model tells nothing about them: look at its weights and at its input columns",
    ),
    # Over how many items are the recommendations spread?
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
    # Is the input the one of the night before, and a day more?
    Gate(
        "users_lost",
        "share of users fewer than in the earlier release",
        0.2,
        "is the input whole?",
        against=_LAST,
        change=Change.LOST,
        of="users",
        by_segment=True,
    ),
    Gate(
        "users_gained",
        "share of users more than in the earlier release",
        1.0,
        "were partitions doubled, or ids changed?",
        against=_LAST,
        change=Change.GAINED,
        of="users",
        by_segment=True,
    ),
    Gate(
        "users_gone",
        "share of the earlier release's users who are not there any more, whoever came for them",
        0.2,
        "were user ids changed? compare them with those of the day before",
        against=_LAST,
        change=Change.BETWEEN,
    ),
    Gate(
        "histories_shorter",
        "share of the users of both releases whose history is shorter than it was",
        0.1,
        "were user ids joined by another key, or is a part of the interactions missing?",
        against=_LAST,
        change=Change.BETWEEN,
        of_model=True,
    ),
    Gate(
        "rows_lost",
        "share of recommendations fewer than in the earlier release",
        0.2,
        "were lists cut short, or a group of users left out?",
        against=_LAST,
        change=Change.LOST,
        of="rows",
        by_segment=True,
    ),
    Gate(
        "items_lost",
        "share of items fewer than in the earlier release",
        0.2,
        "is the catalogue whole?",
        against=_LAST,
        change=Change.LOST,
        of="items",
    ),
    Gate(
        "items_gained",
        "share of items more than in the earlier release",
        1.0,
        "were partitions doubled, or ids changed?",
        against=_LAST,
        change=Change.GAINED,
        of="items",
    ),
    Gate(
        "items_gone",
        "share of the earlier release's items that are not there any more, whatever came for them",
        0.2,
        "were item ids changed? compare the catalogue with the day before",
        against=_LAST,
        change=Change.BETWEEN,
    ),
    Gate(
        "indexed_lost",
        "share of items fewer in the index than in the earlier release",
        0.2,
        "did items lose their eligible mark or their known features?",
        against=_LAST,
        change=Change.LOST,
        of="items_indexed",
    ),
    Gate(
        "events_lost",
        "share of events fewer than in the earlier release",
        0.1,
        _WHOLE,
        against=_LAST,
        change=Change.LOST,
        of="events",
    ),
    Gate(
        "events_gained",
        "share of events more than in the earlier release",
        0.5,
        _WHOLE,
        against=_LAST,
        change=Change.GAINED,
        of="events",
    ),
    Gate(
        "recent_changed",
        "pairs of user and item that came and went in the quarters of a day that the earlier release had counted, as a "
        "share of those of its last four weeks",
        0.1,
        "were times shifted, or partitions lost or written again? compare the last days with the day before",
        against=_LAST,
        change=Change.BETWEEN,
    ),
    Gate(
        "popular_gone",
        "share of the earlier release's most popular items, a tenth of all or 100, that are not among twice as many "
        "any more",
        0.5,
        "were item ids joined by another key, or do the events of a few items drown the others?",
        against=_LAST,
        change=Change.BETWEEN,
    ),
    Gate(
        "cold_rise",
        "rise of the share of users without a history",
        0.1,
        "is a part of the interactions missing?",
        against=_LAST,
        change=Change.RISE,
        of="cold_share",
        by_segment=True,
    ),
    Gate(
        "uncatalogued_rise",
        "rise of the share of events whose item is not in the catalogue",
        0.05,
        "were item ids changed in the events or in the catalogue alone?",
        against=_MEDIAN,
        change=Change.RISE,
        of="uncatalogued_share",
    ),
    Gate(
        "unknown_rise",
        "rise of the share of behaviours in histories whose item id the model does not know",
        0.1,
        "were item ids renamed?",
        against=_MEDIAN,
        change=Change.RISE,
        of="unknown_share",
        by_segment=True,
        of_model=True,
    ),
    Gate(
        "features_rise",
        "rise of the share of items without a known value of a side feature, of the feature where it is greatest",
        0.1,
        "is a column of the catalogue empty, or written in another way?",
        against=_MEDIAN,
        change=Change.RISE,
        of="features_unknown",
        of_model=True,
    ),
    Gate(
        "profiles_rise",
        "rise of the share of users without a known value of a profile feature, of the feature where it is greatest",
        0.1,
        "is a column of the users empty, or written in another way?",
        against=_MEDIAN,
        change=Change.RISE,
        of="profiles_unknown",
        of_model=True,
    ),
    # Do people get much the same as the night before, or something better?
    Gate(
        "hit_rate_lost",
        "at a model change, share of the earlier release's hits on the day's real events that is lost for sure",
        0.05,
        "the new models find less of what people really did: look at their training, or keep the old ones",
        against=_LAST,
        change=Change.BETWEEN,
    ),
    Gate(
        "replay_churn",
        "share of the top 10 that the same models now make otherwise of a sample of users as they stood a day before",
        0.3,
        "tonight's input tells of yesterday otherwise than yesterday's did: compare both",
        against=_LAST,
        change=Change.BETWEEN,
        of_model=True,
    ),
    Gate(
        "spread_lost",
        "share of items fewer that are recommended at all",
        0.5,
        "lists have become alike: look at the interest vectors, the scores and the popular items",
        against=_MEDIAN,
        change=Change.LOST,
        of="items_recommended",
        of_model=True,
    ),
    Gate(
        "score_psi",
        "population stability index of the ranked rows' scores (0.1 small, 0.25 large)",
        0.25,
        "did an input column change its meaning? compare its values with the day before",
        against=_LAST,
        change=Change.BETWEEN,
        by_segment=True,
        of_model=True,
    ),
    Gate(
        "churn",
        "share of the top 10 that is new, over users who are in both releases",
        0.8,
        "did ids or times shift? compare the day's input with the day before",
        against=_LAST,
        change=Change.BETWEEN,
        by_segment=True,
        of_model=True,
    ),
)


def configured_gates(
    changes: Mapping[str, float | Mapping[str, Any]], gates: Sequence[Gate] = GATES
) -> tuple[Gate, ...]:
    """Give *gates* with what a config says: ``{"churn": 0.5, "recall": {"action": "warn", "against": "median"}}``.

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
    said: dict[str, Any] = {}
    for key, value in change.items():
        if key not in _READERS:
            raise UsageError(f"gates.{gate.name}.{key}: expected {', '.join(_READERS)}")
        said[key] = _READERS[key](gate, value)
    if gate.change is Change.NONE and said.get("against", gate.against) is not gate.against and "bound" not in said:
        raise UsageError(
            f"gates.{gate.name}: against {said['against']} its bound is about the rise, and no more {gate.bound:g}; "
            "give the bound too"
        )
    return replace(gate, **said)


def _action(gate: Gate, value: Any) -> Action:
    if value not in set(Action):
        raise UsageError(f'gates.{gate.name}.action: expected "fail" or "warn", found {value!r}')
    return Action(value)


def _bound(gate: Gate, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) <= sys.float_info.max:  # an infinite bound lets every night pass
        raise UsageError(f"gates.{gate.name}.bound: expected a finite number, found {value!r}")
    return float(value)


def _against(gate: Gate, value: Any) -> Against:
    known = [one for one in Against if one is not Against.ABSOLUTE or gate.change is Change.NONE]
    if value not in known:
        choices = " or ".join(f'"{one}"' for one in known)
        raise UsageError(f"gates.{gate.name}.against: expected {choices}, found {value!r}")
    return Against(value)


_READERS = {"bound": _bound, "action": _action, "against": _against}
