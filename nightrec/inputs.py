"""From the config's input tables to those that ``features`` reads, and how large they are."""

from dataclasses import dataclass
from typing import Any

import duckdb

from artifacts.errors import InputError
from features.inputs import Inputs, Source, check_inputs, files_of
from nightrec.config import Config
from nightrec.tables import Histories, Interactions, Table

_NOT_COLUMNS = {"path", "naive_zone", "features", "groups"}
EXACT = 20_000_000  # events up to which their users are counted one by one, in seconds and little memory


def inputs_of(config: Config) -> Inputs:
    """Name the tables and columns that a night reads, by our names."""
    tables = config.inputs
    return Inputs(
        interactions=_source(tables.interactions),
        histories=_source(tables.histories),
        users=_source(tables.users, tables.users.features if tables.users else {}),
        items=_items(config),
        exclude_users=_source(tables.exclude_users),
        exclude_items=_source(tables.exclude_items),
        naive_zone=_behaviours(config).naive_zone,
    )


def _behaviours(config: Config) -> Interactions | Histories:
    behaviours = config.inputs.interactions or config.inputs.histories
    if behaviours is None:
        raise ValueError("the config holds one of the two tables, or it could not have been read")
    return behaviours


def _items(config: Config) -> Source:
    items = config.inputs.items
    groups = {f"group_{name}": column for name, column in items.groups.items()}
    return Source(items.path, {**_columns(items), **items.features, **groups})


def _source(table: Table | None, features: dict[str, str] | None = None) -> Source | None:
    if table is None:
        return None
    path: str = table.path  # type: ignore[attr-defined]  # every table of the inputs has one
    return Source(path, {**_columns(table), **(features or {})})


def _columns(table: Table) -> dict[str, str]:
    return {name: column for name, column in table.model_dump(exclude=_NOT_COLUMNS).items() if column is not None}


@dataclass(frozen=True, slots=True)
class Counted:
    """Rows of the inputs: events and items exactly; users too up to ``EXACT`` events, else by a sketch of their ids."""

    events: int
    users: int
    items: int


def count_inputs(inputs: Inputs) -> Counted:
    """Count the rows of *inputs*, reading the column of user ids alone.

    Raises:
        NotReadyError: If there are no files of a table (yet).
        InputError: If a file is damaged, or a column is missing.
    """
    check_inputs(inputs)
    behaviours = inputs.sources[inputs.behaviours]
    with duckdb.connect() as connection:
        events = connection.from_parquet(_paths(behaviours))
        if inputs.behaviours == "interactions":
            count = events.aggregate("count(*)")
        else:
            count = events.aggregate(f"coalesce(sum(len({_quoted(behaviours.columns['item_ids'])})), 0)")
        users = events.project(f"{_quoted(behaviours.columns['user_id'])} AS user_id")
        if inputs.users is not None:
            others = connection.from_parquet(_paths(inputs.users))
            users = users.union(others.project(f"{_quoted(inputs.users.columns['user_id'])} AS user_id"))
        listed = connection.from_parquet(_paths(inputs.items)).aggregate("count(*)")
        try:
            known = int(_one(count))
            distinct = "count(DISTINCT user_id)" if known <= EXACT else "approx_count_distinct(user_id)"
            return Counted(known, int(_one(users.aggregate(distinct))), int(_one(listed)))
        except duckdb.Error as error:
            raise InputError(f"{behaviours.path}: the inputs cannot be counted ({error})") from error


def _one(relation: Any) -> Any:
    ((value,),) = relation.fetchall()
    return value


def _paths(source: Source) -> list[str]:
    return [str(path) for path in files_of(source).paths]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
