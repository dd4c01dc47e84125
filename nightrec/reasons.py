"""What became of an item for a user, in words and for machines, from what ``batch.explain`` found."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from batch.explain import Explanation, Fate, Had, Retrieval
from batch.lists import ScoreOptions

_POLICY = {
    "all": "nothing that a user ever had is given again",
    "days": "what a user had in the last {days} days is not given again",
    "none": "people buy again",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a night's reasons are told by.

    Attributes:
        options: What its lists were made with.
        now: The end of the data date, in seconds since 1970.
        zone: The time zone that its days and times are told in.
        popular_days: Days whose events make an item popular.
    """

    options: ScoreOptions
    now: int
    zone: str
    popular_days: int

    def time(self, seconds_ago: int) -> str:
        """Say when something was, as ISO in the surface's time zone."""
        return datetime.fromtimestamp(self.now - seconds_ago, ZoneInfo(self.zone)).isoformat(" ")

    def minute(self, seconds_ago: int) -> str:
        """Say when something was, to the minute."""
        return self.time(seconds_ago)[:16]


def reason_of(told: Explanation, setting: Setting) -> str:
    """Say in a sentence what became of the item."""
    options = setting.options
    if told.listed:
        return listed_words(told)
    plain = {
        Fate.NOT_ELIGIBLE: "the item is not eligible: it is embedded for histories, but never indexed or recommended",
        Fate.NO_SIGNAL: "the item is not indexed: the model knows neither its id nor any of its side features",
        Fate.NO_VECTOR: "the item is not indexed: its vector holds NaN, Inf or nothing but zeros",
        Fate.UNTOLD: "a candidate, but not in the list; whether for its score or by a rule cannot be told here",
    }
    if told.fate in plain:
        return plain[told.fate]
    if told.fate is Fate.HAD and told.had:
        days = options.exclude_days
        return f"the user {had_words(told.had, setting)}; {_POLICY[options.exclude_seen].format(days=days)}"
    return _beaten(told, setting)


def listed_words(told: Explanation) -> str:
    """Say which place a recommended item has, and of what kind."""
    assert told.listed
    place = f"recommended, rank {told.listed.rank} of {told.length}"
    if told.listed.score is not None:
        return place
    return f"{place}, as a popular item: {'the list was short' if told.history_length else 'the user is cold'}"


def had_words(had: Had, setting: Setting) -> str:
    """Say how often and when the user had the item."""
    often = "once, on" if had.times == 1 else f"{had.times} times, last on"
    return f"had it {often} {setting.minute(had.seconds_ago)}"


def _beaten(told: Explanation, setting: Setting) -> str:
    """Say what others had that this item has not; each sentence names both numbers."""
    options, found, ranking, popular = setting.options, told.retrieval, told.ranking, told.popularity
    if told.broken:
        rule, many = told.broken, len(told.broken.before)
        before = ", ".join(map(str, rule.before[:5])) + (" ..." if many > 5 else "")
        return f"the shop's rule, at most {rule.at_most} of one {rule.group}: before it stand {before}"
    if popular:
        last = f"the list ends with place {popular.last_rank}" if popular.last_rank else "nothing fills the list"
        return f"the user is cold and is given what is popular: the item is place {popular.rank}, {last}"
    if told.fate is Fate.BELOW and ranking and found:
        last = f", the list ends at {told.last_score:.4g}" if told.last_score is not None else ""
        return (
            f"the list was full: rank {ranking.rank} of {found.candidates} by score ({ranking.score:.4g}), and "
            f"{options.top_n} are given{last}"
        )
    assert found  # a user who is not cold, and an indexed item
    if told.fate is Fate.MISSED:
        why = (
            f"{found.lists_nearer} of its lists {'lies' if found.lists_nearer == 1 else 'lie'} nearer to the interest "
            f"than the item's, and a search looks into {found.nprobe}"
            if found.lists_nearer >= found.nprobe
            else f"what it stores of the item scores {found.stored:.6g} in place of {found.exact:.6g}"
        )
        return (
            f"the index missed it: place {found.exact_rank} by exact score, of {options.candidates} candidates; {why}"
        )
    last = "" if found.least is None else f", the last with {found.least:.4g}, {found.least - found.exact:.4g} more"
    place = f"place {found.exact_rank} by exact score ({found.exact:.4g})"
    return f"not near enough to an interest: {place}, and {found.candidates} became candidates{last}"


def facts_of(told: Explanation, setting: Setting) -> Iterator[tuple[str, str]]:
    """Say what was found on the way, line by line: what, and what it is."""
    if told.history_length is not None:
        yield "history", f"{told.history_length} clicks" if told.history_length else "none: the user is cold"
    if told.had:
        yield "had", f"the user {had_words(told.had, setting)}"
    if (found := told.retrieval) is not None:
        verb = "found by" if found.rank else "nearest"
        yield verb, f"interest {found.interest}, of {found.interests}"
        yield "retrieval", _retrieved(found)
        added = "" if found.popularity is None else f", {found.popularity:.4g} of it for recent popularity"
        yield "exact score", f"{found.exact:.6g}, from the item's vector{added}"
        yield "index score", f"{found.stored:.6g}, off by {abs(found.stored - found.exact):.2g}"
    if told.ranking and told.retrieval:
        yield "score", f"rank {told.ranking.rank} of {told.retrieval.candidates}, {told.ranking.score:.4g}"
    if (popular := told.popularity) is not None:
        yield "popularity", f"place {popular.rank}, {popular.events} events in {setting.popular_days} days"


def _retrieved(found: Retrieval) -> str:
    exact = f"; place {found.exact_rank} by exact search" if found.exact_rank else ""
    if found.rank:
        return f"rank {found.rank} of {found.candidates} candidates{exact}"
    return f"not among the {found.candidates} candidates{exact}"


def document_of(told: Explanation, reason: str, time: Callable[[int], str]) -> dict[str, Any]:
    """Give what goes into JSON: numbers as they are, and what *time* makes of the seconds since something."""
    clicks = [
        {
            "item_id": click.item_id,
            "title": click.title,
            "time": None if click.seconds_ago is None else time(click.seconds_ago),
            "weights": click.weights and list(click.weights),
        }
        for click in told.clicks
    ]
    parts = ("listed", "retrieval", "ranking", "broken", "popularity")
    return {
        "fate": str(told.fate),
        "reason": reason,
        "recommended": told.listed is not None,
        "length": told.length,
        "history_length": told.history_length,
        "had": told.had and {"times": told.had.times, "last": time(told.had.seconds_ago)},
        **{name: (part := getattr(told, name)) and asdict(part) for name in parts},
        "clicks": clicks,
        "same": told.same,
    }
