"""Nights that went wrong, and nights that only look unusual: each is made from a good one.

A change of the inputs takes the tables of a data date and gives others; a step that went wrong is meddled with when it
is done.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artifacts.run import Run
from tests.faults import meddling

DAY, HOUR = 86_400, 3_600
Random = np.random.Generator


@dataclass(frozen=True)
class Tables:
    """What a night reads.

    Attributes:
        interactions: ``user_id``, ``item_id`` (int64) and ``time`` (seconds, UTC), up to the end of the data date.
        items: ``item_id``, ``eligible`` and side features.
        users: ``user_id`` and profile features.
        end: The end of the data date, in seconds since 1970.
        segment: The profile feature by which users are told apart.
    """

    interactions: pa.Table
    items: pa.Table
    users: pa.Table
    end: int
    segment: str

    @property
    def seconds(self) -> np.ndarray:
        """The times of the interactions, in seconds since 1970."""
        return self.interactions["time"].cast(pa.int64()).to_numpy()

    def keep(self, kept: np.ndarray) -> "Tables":
        """Keep some of the interactions."""
        return replace(self, interactions=self.interactions.filter(pa.array(kept)))

    def at(self, seconds: np.ndarray) -> "Tables":
        """Let the interactions happen at other times."""
        times = pa.array(seconds, pa.int64()).cast(self.interactions.schema.field("time").type)
        return replace(self, interactions=self.interactions.set_column(2, "time", times))

    def with_ids(self, name: str, ids: np.ndarray) -> "Tables":
        """Let the interactions be of other users or items."""
        place = self.interactions.schema.get_field_index(name)
        return replace(self, interactions=self.interactions.set_column(place, name, pa.array(ids)))

    def more(self, interactions: pa.Table) -> "Tables":
        """Add interactions."""
        both = pa.concat_tables([self.interactions, interactions.cast(self.interactions.schema)])
        return replace(self, interactions=both)

    def last(self, days: float, *, before: float = 0) -> np.ndarray:
        """Whether each interaction is of so many last days, up to so many days ago."""
        ago = self.end - self.seconds
        return (ago <= days * DAY) & (ago > before * DAY)


Change = Callable[[Tables, Random], Tables]
Meddling = Callable[[Run, Random], None]


@dataclass(frozen=True)
class Kind:
    """One way for a night to differ.

    Attributes:
        name: For people.
        change: What is done to the inputs.
        after: The step after which the run is meddled with; ``""`` for none.
        meddle: What is done to it.
        untrained_index: Whether the index's lists are made from noise, and one of them is looked into.
        bundles: The world's bundles that the night takes.
    """

    name: str
    change: Change = lambda tables, rng: tables
    after: str = ""
    meddle: Meddling = lambda run, rng: None
    untrained_index: bool = False
    bundles: str = "bundles"


def ids(table: pa.Table, name: str) -> np.ndarray:
    """Give a column of numbers."""
    return table[name].to_numpy()


def of_users(tables: Tables, chosen: np.ndarray) -> np.ndarray:
    """Whether each interaction is of one of the *chosen* users."""
    return np.isin(ids(tables.interactions, "user_id"), chosen)


def some(rng: Random, values: np.ndarray, share: float) -> np.ndarray:
    """Choose a share of the distinct *values*."""
    distinct = np.unique(values)
    return rng.choice(distinct, max(1, round(len(distinct) * share)), replace=False)


def without_users(tables: Tables, gone: np.ndarray) -> Tables:
    """Leave users out of every table."""
    kept = tables.keep(~of_users(tables, gone))
    return replace(kept, users=tables.users.filter(pa.array(~np.isin(ids(tables.users, "user_id"), gone))))


def without_items(tables: Tables, gone: np.ndarray) -> Tables:
    """Leave items out of the catalogue; what was done with them stays."""
    return replace(tables, items=tables.items.filter(pa.array(~np.isin(ids(tables.items, "item_id"), gone))))


def empty(table: pa.Table, name: str) -> pa.Table:
    """Leave nothing in a column."""
    place = table.schema.get_field_index(name)
    return table.set_column(place, name, pa.nulls(len(table), table[name].type))


# --- inputs that are wrong


def lost_share(share: float, tables: Tables, rng: Random) -> Tables:
    """Of the partitions by user, some are missing."""
    return tables.keep(~of_users(tables, some(rng, ids(tables.interactions, "user_id"), share)))


def lost_days(days: float, before: float, tables: Tables, rng: Random) -> Tables:
    """The partitions of some days are missing."""
    return tables.keep(~tables.last(days, before=before))


def lost_past(tables: Tables, rng: Random) -> Tables:
    """The older half of all that happened is missing."""
    return tables.keep(tables.seconds >= np.quantile(tables.seconds, 0.5))


def doubled(days: float, tables: Tables, rng: Random) -> Tables:
    """The partitions of the last days are there twice."""
    twice = tables.interactions.filter(pa.array(tables.last(days)))
    return tables.more(twice)


def renumbered(column: str, tables: Tables, rng: Random) -> Tables:
    """Ids are counted anew, in every table."""
    moved = tables.with_ids(column, ids(tables.interactions, column) + 1_000_000)
    name = "users" if column == "user_id" else "items"
    table: pa.Table = getattr(tables, name)
    return replace(moved, **{name: table.set_column(0, column, pa.array(ids(table, column) + 1_000_000))})


def shuffled(column: str, tables: Tables, rng: Random) -> Tables:
    """Each id of the interactions means another one: a join with the wrong key."""
    values = ids(tables.interactions, column)
    distinct, places = np.unique(values, return_inverse=True)
    return tables.with_ids(column, rng.permutation(distinct)[places])


def foreign_items(tables: Tables, rng: Random) -> Tables:
    """A third of the events name their items as another system does."""
    values = ids(tables.interactions, "item_id")
    return tables.with_ids("item_id", np.where(rng.random(len(values)) < 1 / 3, values + 5_000_000, values))


def shifted(seconds: int, tables: Tables, rng: Random) -> Tables:
    """All times are off by as much."""
    return tables.at(tables.seconds + seconds)


def to_midnight(tables: Tables, rng: Random) -> Tables:
    """Times have become days."""
    return tables.at(tables.seconds // DAY * DAY)


def halved_catalogue(tables: Tables, rng: Random) -> Tables:
    """Every second item is missing."""
    return without_items(tables, some(rng, ids(tables.items, "item_id"), 0.5))


def half_ineligible(tables: Tables, rng: Random) -> Tables:
    """Every second item has lost its mark."""
    gone = some(rng, ids(tables.items, "item_id"), 0.5)
    marks = pa.array(~np.isin(ids(tables.items, "item_id"), gone))
    return replace(
        tables, items=tables.items.set_column(tables.items.schema.get_field_index("eligible"), "eligible", marks)
    )


def no_side_features(tables: Tables, rng: Random) -> Tables:
    """The columns that say what an item is are empty."""
    items = tables.items
    for name in items.column_names:
        if name not in {"item_id", "eligible"}:
            items = empty(items, name)
    return replace(tables, items=items)


def no_profiles(tables: Tables, rng: Random) -> Tables:
    """The columns that say who a user is are empty."""
    users = tables.users
    for name in users.column_names[1:]:
        users = empty(users, name)
    return replace(tables, users=users)


def halved_users(tables: Tables, rng: Random) -> Tables:
    """Half of the users are missing everywhere."""
    return without_users(tables, some(rng, ids(tables.users, "user_id"), 0.5))


def members_of_segment(tables: Tables, place: int) -> np.ndarray:
    """The users of the segment that is the *place*-th by size."""
    values = tables.users[tables.segment].combine_chunks()
    counted = pc.value_counts(values).to_pylist()
    names = [one["values"] for one in sorted(counted, key=lambda one: (-one["counts"], str(one["values"])))]
    return ids(tables.users, "user_id")[pc.equal(values, names[place]).to_numpy(zero_copy_only=False)]


def lost_segment(tables: Tables, rng: Random) -> Tables:
    """One country is missing."""
    return without_users(tables, members_of_segment(tables, 1))


def cold_segment(tables: Tables, rng: Random) -> Tables:
    """What the people of one country did is missing; they are still known."""
    return tables.keep(~of_users(tables, members_of_segment(tables, 1)))


def one_item_for_all(tables: Tables, rng: Random) -> Tables:
    """The last four weeks tell of one item alone."""
    values = ids(tables.interactions, "item_id")
    return tables.with_ids("item_id", np.where(tables.last(28), values[0], values))


def flood(tables: Tables, rng: Random) -> Tables:
    """A bot: as many events of one day as half of all there were."""
    count = len(tables.interactions) // 2
    rows = {
        "user_id": np.full(count, ids(tables.interactions, "user_id")[0]),
        "item_id": rng.choice(ids(tables.items, "item_id"), count),
        "time": pa.array(tables.end - rng.integers(1, DAY, count), pa.int64()).cast(pa.timestamp("s", tz="UTC")),
    }
    return tables.more(pa.table(rows))


def sample_only(tables: Tables, rng: Random) -> Tables:
    """Somebody's tenth of the data, for tests."""
    kept = some(rng, ids(tables.interactions, "user_id"), 0.1)
    everybody = np.union1d(ids(tables.users, "user_id"), ids(tables.interactions, "user_id"))
    return without_users(tables, np.setdiff1d(everybody, kept))


def other_shop(tables: Tables, rng: Random) -> Tables:
    """Another shop's events under the same numbers."""
    users, items = ids(tables.users, "user_id"), ids(tables.items, "item_id")
    count = len(tables.interactions)
    return tables.with_ids("user_id", rng.choice(users, count)).with_ids("item_id", rng.choice(items, count))


def mixed_columns(tables: Tables, rng: Random) -> Tables:
    """The first side feature stands in the column of the second, and the other way round."""
    names = [name for name in tables.items.column_names if name not in {"item_id", "eligible"}][:2]
    one, two = (tables.items[name] for name in names)
    if one.type != two.type:
        one, two = (pa.nulls(len(tables.items), column.type) for column in (two, one))
    items = tables.items.set_column(tables.items.schema.get_field_index(names[0]), names[0], two)
    return replace(tables, items=items.set_column(items.schema.get_field_index(names[1]), names[1], one))


def bad_kinds() -> list[Kind]:
    """Every kind of bad night."""
    return [
        Kind("the day's partition is missing", partial(lost_days, 1, 0)),
        Kind("a week's partitions are missing", partial(lost_days, 10, 3)),
        Kind("a quarter of the partitions is missing", partial(lost_share, 0.25)),
        Kind("the older half is missing", lost_past),
        Kind("all partitions are there twice", partial(doubled, 100_000)),
        Kind("user ids are counted anew", partial(renumbered, "user_id")),
        Kind("item ids are counted anew", partial(renumbered, "item_id")),
        Kind("user ids are joined by the wrong key", partial(shuffled, "user_id")),
        Kind("item ids are joined by the wrong key", partial(shuffled, "item_id")),
        Kind("a third of the events has another system's item ids", foreign_items),
        Kind("times are a day late", partial(shifted, DAY)),
        Kind("times are a day early", partial(shifted, -DAY)),
        Kind("times are in a zone eight hours east", partial(shifted, 8 * HOUR)),
        Kind("times are in a zone five hours west", partial(shifted, -5 * HOUR)),
        Kind("times have become days", to_midnight),
        Kind("the catalogue is halved", halved_catalogue),
        Kind("half of the catalogue is not eligible", half_ineligible),
        Kind("items have lost their features", no_side_features),
        Kind("columns of the catalogue are mixed up", mixed_columns),
        Kind("users have lost their profiles", no_profiles),
        Kind("half of the users are missing", halved_users),
        Kind("one country is missing", lost_segment),
        Kind("one country has lost its history", cold_segment),
        Kind("half of the users are cold", partial(lost_share, 0.5)),
        Kind("popularity has collapsed", one_item_for_all),
        Kind("a bot floods the day", flood),
        Kind("a tenth for tests was loaded", sample_only),
        Kind("another shop's events were loaded", other_shop),
        Kind("item vectors of another model", after="items", meddle=meddling.turned_vectors),
        Kind("item vectors are out of step with their ids", after="items", meddle=meddling.mixed_vectors),
        Kind("a tenth of the item vectors is zero", after="items", meddle=meddling.zero_vectors),
        Kind("an untrained index", untrained_index=True),
        Kind("a new model that knows nothing", bundles="untrained"),
        Kind("everybody has the same interests", after="interests", meddle=meddling.same_interests),
        Kind("constant scores", after="score", meddle=partial(meddling.scores_of, meddling.constant)),
        Kind("an untrained ranker", after="score", meddle=partial(meddling.scores_of, meddling.untrained)),
        Kind("lists are cut short", after="score", meddle=partial(meddling.scores_of, meddling.without_lists)),
        Kind("everybody has the same list", after="score", meddle=partial(meddling.scores_of, meddling.same_lists)),
        Kind(
            "the last users have no list",
            after="score",
            meddle=partial(meddling.scores_of, meddling.without_last_users),
        ),
    ]


# --- what good nights do


def new_users(tables: Tables, rng: Random) -> Tables:
    """A campaign: a tenth more users, each like somebody who was there."""
    like = some(rng, ids(tables.users, "user_id"), 0.1)
    rows = tables.interactions.filter(pa.array(of_users(tables, like)))
    moved = rows.set_column(0, "user_id", pa.array(ids(rows, "user_id") + 2_000_000))
    ago = rng.integers(1, DAY, len(moved))
    moved = moved.set_column(2, "time", pa.array(tables.end - ago, pa.int64()).cast(rows["time"].type))
    profiles = tables.users.filter(pa.array(np.isin(ids(tables.users, "user_id"), like)))
    profiles = profiles.set_column(0, "user_id", pa.array(ids(profiles, "user_id") + 2_000_000))
    kept = pa.array(rng.random(len(moved)) < 0.2)  # they have just begun
    return replace(tables.more(moved.filter(kept)), users=pa.concat_tables([tables.users, profiles]))


def new_items(tables: Tables, rng: Random) -> Tables:
    """A delivery: a tenth more items, of the kinds that are known."""
    chosen = some(rng, ids(tables.items, "item_id"), 0.1)
    rows = tables.items.filter(pa.array(np.isin(ids(tables.items, "item_id"), chosen)))
    rows = rows.set_column(0, "item_id", pa.array(ids(rows, "item_id") + 2_000_000))
    return replace(tables, items=pa.concat_tables([tables.items, rows]))


def sale(tables: Tables, rng: Random) -> Tables:
    """A sale: the day's people do four times as much, with a hundredth of the items."""
    day = tables.interactions.filter(pa.array(tables.last(1)))
    offered = some(rng, ids(tables.items, "item_id"), 0.01)
    count = 3 * len(day)
    rows = day.take(pa.array(rng.integers(0, max(1, len(day)), count))) if len(day) else day
    rows = rows.set_column(1, "item_id", pa.array(rng.choice(offered, len(rows))))
    return tables.more(rows)


def quiet_day(tables: Tables, rng: Random) -> Tables:
    """A holiday: a third of the day's events, the last of them among these."""
    day = tables.last(1)
    kept = ~day | (rng.random(len(day)) < 1 / 3) | (tables.seconds == tables.seconds.max())
    return tables.keep(kept)


def late_events(tables: Tables, rng: Random) -> Tables:
    """A hundredth of the last week's events is not there yet."""
    return tables.keep(~tables.last(7) | (rng.random(len(tables.interactions)) > 0.01))


def erased_users(tables: Tables, rng: Random) -> Tables:
    """A hundredth of the users have asked to be forgotten."""
    return without_users(tables, some(rng, ids(tables.users, "user_id"), 0.01))


def taken_down(tables: Tables, rng: Random) -> Tables:
    """A hundredth of the items are sold out."""
    return without_items(tables, some(rng, ids(tables.items, "item_id"), 0.01))


def good_kinds() -> list[Kind]:
    """Every kind of good night; an ordinary one is most of them."""
    return [
        Kind("an ordinary day"),
        Kind("a campaign brings users", new_users),
        Kind("a delivery brings items", new_items),
        Kind("a sale", sale),
        Kind("a holiday", quiet_day),
        Kind("late events", late_events),
        Kind("users are erased", erased_users),
        Kind("items are sold out", taken_down),
        Kind("a model is trained again", bundles="retrained"),
    ]
