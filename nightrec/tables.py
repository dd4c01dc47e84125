"""The tables of the config, one model each: every key with its type, its default, its bounds and what it means.

What stands below a key is its one description: ``nightrec config explain`` and the reference in the docs show it.
"""

import itertools
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

from nightrec.values import (
    Count,
    CrossFeature,
    Day,
    Days,
    Feature,
    Few,
    Hours,
    Memory,
    Name,
    Number,
    Place,
    Positive,
    Root,
    Share,
    Text,
    TimeUnit,
    Weight,
    Zone,
)


class Table(BaseModel):
    """A table of the config: it knows its keys, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Surface(Table):
    """``[surface]``: what is recommended where; one config is one surface."""

    name: Name
    """Its name, for people; it enters no digest."""
    root: Root
    """The folder, or the ``s3://``, ``gs://`` or ``az://`` prefix, with ``runs/``, ``releases/`` and ``LATEST``."""
    timezone: Zone = "UTC"
    """The zone in which a data date ends."""


class Store(Table):
    """``[store]``: how a root in an object store is used; credentials come from the environment alone."""

    cache: Place | None = None
    """Local folder for what was fetched; else ``NIGHTREC_CACHE``, else ``nightrec`` in ``XDG_CACHE_HOME``."""
    cache_size: Memory = "100GB"
    """What stays in it from one command to the next; what was used longest ago goes first."""
    retry_seconds: Annotated[Positive, Field(le=240)] = 120
    """For how long a request that fails is tried again."""


class Interactions(Table):
    """``[inputs.interactions]``: who had what when. The values of all keys but two are column names."""

    path: Place
    """A Parquet file, a folder of them, or a glob."""
    user_id: Text = "user_id"
    """Column of the users' ids: whole numbers or text, which come out exactly as they went in."""
    item_id: Text = "item_id"
    """Column of the items' ids, of the same kinds."""
    time: Text = "time"
    """Column of the moment: a timestamp, or whole numbers with ``time_unit``."""
    event: Text | None = None
    """Column of the kind of event, for ``train.event_weights``; a night does not read it."""
    weight: Text | None = None
    """Column of how much an event counts, a number of at least 0, for ``train.sample_weight``; a night does not read
    it."""
    naive_zone: Zone = "UTC"
    """The zone of times that carry none."""
    time_unit: TimeUnit | None = None
    """The unit of times that are whole numbers since 1970."""


class Histories(Table):
    """``[inputs.histories]``: ready-made lists, in place of interactions."""

    path: Place
    """A Parquet file, a folder of them, or a glob; one row for each user."""
    user_id: Text = "user_id"
    """Column of the users' ids."""
    item_ids: Text = "item_ids"
    """Column of the lists of item ids."""
    times: Text = "times"
    """Column of the lists of times, aligned with ``item_ids``."""
    naive_zone: Zone = "UTC"
    """The zone of times that carry none."""
    time_unit: TimeUnit | None = None
    """The unit of times that are whole numbers since 1970."""


class Users(Table):
    """``[inputs.users]``: who else is a user, and what is known of them."""

    path: Place
    """A Parquet file, a folder of them, or a glob; one row for each user."""
    user_id: Text = "user_id"
    """Column of the users' ids."""
    features: dict[Feature, Text] = Field(default_factory=dict)
    """From the name of a categorical profile feature to its column."""


class Items(Table):
    """``[inputs.items]``: the catalogue."""

    path: Place
    """A Parquet file, a folder of them, or a glob; one row for each item."""
    item_id: Text = "item_id"
    """Column of the items' ids."""
    title: Text | None = None
    """Column of what people call an item; only shown."""
    eligible: Text | None = None
    """Boolean column: false is embedded, but never recommended."""
    features: dict[Feature, Text] = Field(default_factory=dict)
    """From the name of a categorical side feature to its column."""
    groups: dict[Feature, Text] = Field(default_factory=dict)
    """From the name of a group that the shop's rules limit to its column, where it is no feature."""


class Exclusion(Table):
    """``[inputs.exclude_users]`` and ``[inputs.exclude_items]``: ids that are gone from every output."""

    path: Place
    """A Parquet file, a folder of them, or a glob."""
    id: Text = "id"
    """Column of the ids."""


class InputTables(Table):
    """``[inputs]``: the tables that a night reads; column names are mapped to ours.

    A table of which there is no file, since its path leads nowhere or its folder is empty, is not there yet: code 5,
    and 3 after ``day.deadline_hours``. That is right for files that come late, and for a path that was never right it
    is what ends the waiting: set a deadline. The message names the path. Files with wrong content are code 4 at once.
    """

    interactions: Interactions | None = None
    histories: Histories | None = None
    items: Items
    users: Users | None = None
    exclude_users: Exclusion | None = None
    exclude_items: Exclusion | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.interactions is None) == (self.histories is None):
            raise ValueError("one of the tables 'interactions' and 'histories', and not both")
        return self

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        for name in self.users.features if self.users else ():
            if name in self.items.features:
                raise ValueError(
                    f"each feature's name once in [inputs.items.features] and [inputs.users.features], "
                    f"found {name!r} in both"
                )
        return self


class Bundles(Table):
    """``[bundles]``: folders made by ``nightrec export``."""

    item: Place
    """The bundle that embeds items."""
    user: Place
    """The bundle that turns histories into interests."""
    ranker: Place | None = None
    """Without one the order of retrieval is the order of the night."""


class Night(Table):
    """``[night]``: how the work is cut and what it may use."""

    shards: Annotated[Positive, Field(le=99_999)] = 1
    """Into how many files the users are split, by a hash of their id."""
    item_shards: Annotated[Positive, Field(le=99_999)] = 1
    """Into how many files the catalogue is split."""
    device: Literal["cpu", "gpu", "auto"] = "cpu"
    """Where the models run; ``gpu`` is a GPU or an error."""
    engine: Literal["local", "ray"] = "local"
    """Where the workers are: processes of this machine, or of the Ray cluster that ``RAY_ADDRESS`` names."""
    workers: Annotated[Positive, Field(le=1_024)] = 1
    """Processes that do the shards: each a group of them, or on a cluster one after the other."""
    threads: Annotated[Count, Field(le=1_024)] = 0
    """Threads of one worker; 0 shares the cores of a machine evenly."""
    memory: Memory = "4GB"
    """What DuckDB may hold before it spills to disk."""
    batch_users: Few = 256
    """Rows of every batch of users; part of the execution profile."""
    batch_items: Few = 1024
    """Rows of every batch of items; part of the execution profile."""
    batch_lists: Few = 64
    """Rows of every batch of users with their candidates, for the ranker; part of the execution profile."""
    faiss_threads: Annotated[Positive, Field(le=1_024)] = 2
    """Threads of k-means, whose result changes with them; part of the execution profile."""
    keep_unchanged: Annotated[bool, Strict()] = True
    """Users and items whose encoded input is unchanged keep the vectors of an earlier run, unchanged items their index,
    and the events of unchanged files are not read again: no byte depends on it."""


class DayRules(Table):
    """``[day]``: when the day's input counts as there."""

    newest_within_hours: Hours = 24
    """How far before the day's end the newest event may lie; 0 asks nothing."""
    min_share_of_median: Annotated[Number, Field(ge=0)] = 0.5
    """The day's rows over the same weekday's median of the weeks before; 0 asks nothing."""
    weeks: Annotated[Positive, Field(le=520)] = 4
    """How many weeks the median is taken over."""
    deadline_hours: Hours = 0
    """Hours after the day's end until which a missing day, or a table without a file, ends with code 5, and then with
    3; 0 is for ever 5."""


class HistoryRules(Table):
    """``[history]``: what is told of the past."""

    popular_days: Days = 30
    """Days up to the data date whose events make an item popular."""


class Index(Table):
    """``[index]``: how items are found."""

    type: Literal["Flat", "SQ8", "PQ", "auto"] = "Flat"
    """How vectors are kept: whole, in bytes, or as product codes; ``auto`` builds each that fits ``index.memory``, and
    takes the one that meets the recall with the least work a query."""
    lists: Count = 0
    """Lists of the IVF; 0 chooses by the number of items, and with ``index.type = "auto"`` among three numbers."""
    memory: Memory = "0B"
    """The most that the index may take in memory, beside the items' vectors; one that takes more is made on disk, in
    parts, and searched there, and with ``index.type = "auto"`` not tried. 0B is no limit."""
    recall_target: Annotated[Share, Field(gt=0)] = 0.95
    """The recall that nprobe is chosen for, against exact search on tonight's users."""
    recall_k: Few = 100
    """The k of that recall."""
    seed: Count = 1
    """Seed of the training sample and of k-means."""
    sample_users: Positive = 4096
    """Users of the fixed sample: half choose nprobe, half report."""


class Retrieve(Table):
    """``[retrieve]``: which items reach the ranker."""

    candidates: Few = 100
    """Candidates per user."""
    overfetch: Annotated[Number, Field(ge=1, le=100)] = 2.0
    """How many times as many are searched, so that enough are left when the seen ones are gone."""
    exclude_seen: Literal["all", "days", "none"] = "all"
    """Drop what the user has ever had, has had in the last ``exclude_days`` days, or nothing."""
    exclude_days: Days = 30
    """The days of ``exclude_seen = "days"``."""
    popularity_weight: Weight = 0.0
    """How much log(1 + an item's events of the last ``history.popular_days`` days) adds to its inner product with an
    interest; 0 leaves it to the ranker. BST learns from such candidates: fit it anew when this changes."""


class Rule(Table):
    """One of ``score.rules``: at most so many items of one group in a user's list."""

    group: Name
    """A feature of the items, or one of their ``groups``."""
    at_most: Few
    """So many items of one value of the group."""


class Score(Table):
    """``[score]``: what each user is given; who is cold, or whose list is short, gets popular eligible items."""

    top_n: Few = 50
    """Items per user."""
    rules: tuple[Rule, ...] = ()
    """The shop's limits, such as ``[{group = "category", at_most = 3}]``."""


class Segments(Table):
    """``[segments]``: the parts of the users that the gates judge each by itself."""

    columns: tuple[Feature, ...] = ()
    """Profile features of ``[inputs.users]`` that the models take, such as ``["country", "device"]``."""
    min_users: Positive = 100
    """Users of the smallest segment that is judged; of fewer, chance decides."""


class Metrics(Table):
    """``[metrics]``: where a night leaves its numbers; the files of a channel have its name before their ending."""

    textfile: Place | None = None
    """The newest night for Prometheus, in a folder that node_exporter's collector reads; ends in ``.prom``."""
    jsonl: Place | None = None
    """One line a night, kept when its release is pruned; the page of ``nightrec trend`` then still shows it."""

    @model_validator(mode="after")
    def _collected(self) -> Self:
        if self.textfile and not self.textfile.endswith(".prom"):
            raise ValueError(f"a path that ends in .prom in metrics.textfile, found {self.textfile!r}")
        return self


class Report(Table):
    """``[report]``: what the page of a night shows of people."""

    sample_users: Literal["none", "pseudonym", "id"] = "pseudonym"
    """How its ten users are shown, with what they had and are given: not at all, numbered, or by their ids."""


class Train(Table):
    """``[train]``: what ``nightrec fit`` learns from; the night reads none of it."""

    until: Day
    """The last day of training events; the validation days come after it."""
    validate_days: Days = 1
    """Days after ``until`` on which the model is judged."""
    refit: Annotated[bool, Strict()] = False
    """Fit again through the last validation day, for as many epochs as validation chose: an old model falls far."""
    history_length: Annotated[Positive, Field(le=1000)] = 20
    """L, the newest behaviours that are kept."""
    gap_edges_hours: tuple[Annotated[Number, Field(gt=0)], ...] = (1, 6, 24, 72, 168, 336, 720, 1440, 2880, 8760)
    """Ascending edges of the buckets of the time since a behaviour."""
    cross_features: tuple[CrossFeature, ...] = ("retrieval_score", "times_had", "days_since", "popularity")
    """What the ranker is told about user and candidate together."""
    ranker_days: Days = 14
    """The last days up to ``until``, which BST learns from; a MIND of the days before them proposes its candidates."""
    seed: Count = 1
    """What everything drawn in training follows from."""
    sample_weight: Annotated[bool, Strict()] = False
    """Let an event count as much, as a target, as its column ``weight`` says."""
    event_weights: dict[Text, Annotated[Number, Field(ge=0)]] = Field(default_factory=dict)
    """How much an event of a kind counts as a target, such as ``{ purchase = 3.0, view = 0.5 }``; other kinds count 1,
    and one of 0 is still told as history. Takes the column ``event``."""
    warm_start: Place | None = None
    """The folder of an earlier fit: each network begins with the weights of the one of its name there, and new ids with
    fresh rows."""
    tensorboard: Annotated[bool, Strict()] = False
    """Leave event files for TensorBoard in ``tensorboard/`` too; needs the package of that name."""
    folder: Place = Field(default="models", validate_default=True)
    """Where ``vocabularies/``, ``mind/`` and ``bst/`` are made."""
    mind: dict[str, Any] = Field(default_factory=dict)
    """Fields of MIND's config and training that differ from their defaults; checked by ``nightrec fit``."""
    bst: dict[str, Any] = Field(default_factory=dict)
    """The same for BST."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        edges = self.gap_edges_hours
        if any(left >= right for left, right in itertools.pairwise(edges)):
            raise ValueError("ascending numbers in gap_edges_hours")
        return self
