"""Writing a first config: what was guessed of the inputs, and settings that fit their size, each with its reason."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median

from nightrec.convert import Ready
from nightrec.keys import toml_of

_BUY_AGAIN = 0.2  # share of events that repeat an item of the same user, from which on people buy again
_USERS_OF_A_SHARD = 250_000
_ITEMS_OF_A_SHARD = 1_000_000
_SMALL = 2_000_000  # events up to which small networks learn more
_LARGE = 20_000_000  # events from which on a second fit costs more than it brings
_SQ8, _PQ = 1_000_000, 20_000_000  # items from which on vectors are kept shorter
_ROLES = ("item", "user", "ranker")
_RECENT = 56  # days that tell how even days are


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much there is.

    Attributes:
        events: Of interactions.
        users: About.
        items: Of the catalogue.
        days: Events by day, ascending.
        newest: The newest whole day.
        repeated: Share of the events that repeat an item of the same user.
    """

    events: int
    users: int
    items: int
    days: Mapping[date, int]
    newest: date
    repeated: float


def draft(name: str, timezone: str, ready: Mapping[str, Ready], sizes: Sizes, folder: Path) -> str:
    """Write the text of a config that lies in *folder*."""
    tables = [
        [
            "# Written by `nightrec init`. Paths are relative to this file; `nightrec config explain KEY` says more.",
            "[surface]",
            f"name = {toml_of(name)}",
            _line("root", "store", "runs and releases"),
            _line("timezone", timezone, "in which a data date ends"),
        ],
        *(_table(which, one, timezone, folder) for which, one in ready.items()),
        ["[bundles]  # made by `nightrec fit --export`"] + [f'{role} = "bundles/{role}"' for role in _ROLES],
        list(_night(sizes)),
        list(_day(sizes)),
        list(_index(sizes)),
        list(_retrieve(sizes)),
        list(_train(sizes)),
        list(_networks(sizes)),
    ]
    return "\n\n".join("\n".join(lines) for lines in tables if lines) + "\n"


def _table(which: str, ready: Ready, timezone: str, folder: Path) -> list[str]:
    path = Path(ready.path).resolve()
    near = path.is_relative_to(folder.resolve())
    lines = [f"[inputs.{which}]"]
    if ready.copied:
        lines.append(f"# A copy: {ready.copied}.")
        lines.append("# It does not follow your files: let your own export write Parquet there, or name another path.")
    lines.append(f"path = {toml_of(path.relative_to(folder.resolve()).as_posix() if near else str(path))}")
    lines += [f"{ours} = {toml_of(theirs)}" for ours, theirs in ready.columns.items()]
    if which == "interactions":
        unit = f"time_unit = {toml_of(ready.time_unit)}"  # since 1970 in UTC: no zone is missing
        lines.append(unit if ready.time_unit else _line("naive_zone", timezone, "of times that carry no zone"))
    if ready.features:
        lines.append(f"features = {toml_of(ready.features)}")
    return lines


def _line(key: str, value: object, why: str) -> str:
    """Write a key, its value and the reason for it."""
    return f"{f'{key} = {toml_of(value)}':<30} # {why}"


def _night(sizes: Sizes) -> Iterator[str]:
    shards, item_shards = -(-sizes.users // _USERS_OF_A_SHARD), -(-sizes.items // _ITEMS_OF_A_SHARD)
    if shards > 1 or item_shards > 1:
        yield "[night]"
        yield _line("shards", shards, f"{sizes.users:,} users, at most about {_USERS_OF_A_SHARD:,} in each")
        yield _line("item_shards", item_shards, f"{sizes.items:,} items, at most {_ITEMS_OF_A_SHARD:,} in each")


def _day(sizes: Sizes) -> Iterator[str]:
    """Loosen the rules that days of this kind would break every week."""
    recent = [day for day in sizes.days if sizes.newest - timedelta(days=_RECENT) < day <= sizes.newest]
    gap = max(((after - before).days for before, after in pairwise(recent)), default=1)
    usual = {day: median(sizes.days.get(day - timedelta(weeks=week), 0) for week in range(1, 5)) for day in recent}
    refused = sum(sizes.days[day] < 0.5 * usual[day] for day in recent)
    uneven = refused > len(recent) / 10
    if gap > 1 or uneven:
        yield "[day]"
    if gap > 1:
        yield _line("newest_within_hours", 24 * gap, f"of late up to {gap} days lay between days with events")
    if uneven:
        why = f"{refused} of the last {len(recent)} days had less than half of the usual: too uneven to judge by"
        yield _line("min_share_of_median", 0, why)


def _index(sizes: Sizes) -> Iterator[str]:
    if sizes.items >= _SQ8:
        kind, why = ("PQ", "product codes") if sizes.items >= _PQ else ("SQ8", "a byte for each dimension")
        yield "[index]"
        yield _line("type", kind, f"{sizes.items:,} items: {why}, to fit into memory")


def _retrieve(sizes: Sizes) -> Iterator[str]:
    candidates, again = max(1, min(100, sizes.items)), sizes.repeated >= _BUY_AGAIN
    said = "people take things again" if again else "people seldom take a thing twice"
    yield "[retrieve]"
    if candidates < 100:
        yield _line("candidates", candidates, "all items that there are")
    yield _line("exclude_seen", "none" if again else "all", f"{sizes.repeated:.0%} of the events repeat one: {said}")
    if candidates < 50:
        yield ""
        yield "[score]"
        yield _line("top_n", candidates, "all items that there are")


def _train(sizes: Sizes) -> Iterator[str]:
    first, each = next(iter(sizes.days)), sizes.events / max(1, sizes.users)
    span = (sizes.newest - first).days + 1
    validate = max(1, min(14, span // 10))
    yield "[train]"
    yield _line("until", sizes.newest - timedelta(days=validate), f"the newest whole day is {sizes.newest}")
    yield _line("validate_days", validate, f"of {span:,} days")
    if sizes.events < _LARGE:
        yield _line("refit", value=True, why="and then once more on all days, so that the model is of the newest day")
    yield _line("history_length", 50 if each >= 20 else 20, f"a user has {each:,.0f} events, in the mean")
    if sizes.repeated < _BUY_AGAIN:
        yield _line("cross_features", ["retrieval_score", "popularity"], "what a user had is no candidate")


def _epochs(sizes: Sizes, *, most: int, events: int) -> Iterator[str]:
    """Keep the first fit to minutes: so many passes as read about so many *events*, and two at the least."""
    epochs = max(2, round(events / max(1, sizes.events)))
    if epochs < most:
        yield _line("epochs", epochs, f"a first model soon; without this up to {most}, until it gets no better")


def _networks(sizes: Sizes) -> Iterator[str]:
    yield "[train.mind]"
    yield from _epochs(sizes, most=20, events=2_400_000)
    if sizes.events < _SMALL:
        yield _line("interests", 2, f"{sizes.events:,} events: small networks learn more from them")
        yield _line("power", 1.0, "p of the label-aware attention")
        yield _line("temperature", 0.2, "of the cosines")
    yield ""
    yield "[train.bst]"
    yield from _epochs(sizes, most=5, events=1_600_000)
    if sizes.events < _SMALL:
        yield "mlp = [256, 128]"
        yield _line("in_sample", value=True, why="days are few: it learns from all of them")
