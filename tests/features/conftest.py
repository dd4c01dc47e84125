"""Tables of a small shop on disk, written the way a test asks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.bundle import FeatureSpec
from features.inputs import Inputs, Source

DAY = date(2026, 3, 10)
NOW = 1_773_187_200  # the end of DAY in UTC, in seconds
SPEC = FeatureSpec(("item_id", "brand"), ("country",), history_length=3, gap_edges=(60, 3_600))

INTERACTIONS = {"user_id": "visitor", "item_id": "sku", "time": "at"}
HISTORIES = {"user_id": "visitor", "item_ids": "skus", "times": "ats"}
USERS = {"user_id": "visitor", "country": "land"}
ITEMS = {"item_id": "sku", "brand": "label"}


def write(path: Path, table: pa.Table, *, row_group_size: int | None = None) -> Path:
    """Write *table* as Parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


@dataclass(frozen=True)
class Shop:
    """A shop's events in the order they were collected: (user, item, seconds before now), and its other tables."""

    events: Sequence[tuple[Any, Any, int]]
    items: Sequence[tuple[Any, str | None]]
    users: Sequence[tuple[Any, str | None]] = ()
    gone_users: Sequence[Any] = ()
    gone_items: Sequence[Any] = ()
    user_type: str = "int64"
    item_type: str = "int64"

    def interactions(self) -> pa.Table:
        """One row an event."""
        return pa.table(
            {
                "visitor": pa.array([user for user, _, _ in self.events], self.user_type),
                "sku": pa.array([item for _, item, _ in self.events], self.item_type),
                "at": pa.array([NOW - ago for _, _, ago in self.events], pa.timestamp("s", "UTC")),
            }
        )

    def inputs(self, folder: Path) -> Inputs:
        """Write all tables under *folder*."""
        write(folder / "interactions.parquet", self.interactions())
        gone = {
            name: self._ids(folder / f"{name}.parquet", ids, kind)
            for name, ids, kind in (
                ("exclude_users", self.gone_users, self.user_type),
                ("exclude_items", self.gone_items, self.item_type),
            )
        }
        users = pa.table(
            {
                "visitor": pa.array([user for user, _ in self.users], self.user_type),
                "land": pa.array([land for _, land in self.users], pa.string()),
            }
        )
        items = pa.table(
            {
                "sku": pa.array([item for item, _ in self.items], self.item_type),
                "label": pa.array([brand for _, brand in self.items], pa.string()),
            }
        )
        return Inputs(
            interactions=Source(str(folder / "interactions.parquet"), INTERACTIONS),
            histories=None,
            users=Source(str(write(folder / "users.parquet", users)), USERS),
            items=Source(str(write(folder / "items.parquet", items)), ITEMS),
            **gone,
        )

    def with_events(self, events: Sequence[tuple[Any, Any, int]]) -> "Shop":
        """The same shop with other events."""
        return replace(self, events=events)

    @staticmethod
    def _ids(path: Path, ids: Sequence[Any], kind: str) -> Source:
        return Source(str(write(path, pa.table({"key": pa.array(ids, kind)}))), {"id": "key"})


@pytest.fixture
def shop() -> Callable[..., Shop]:
    """Give :class:`Shop`; tests cannot import each other's modules."""
    return Shop


@pytest.fixture
def write_parquet() -> Callable[..., Path]:
    """Give :func:`write`."""
    return write


@pytest.fixture
def spec() -> FeatureSpec:
    """What the models of the shop are told."""
    return SPEC


@pytest.fixture
def day() -> date:
    """The data date."""
    return DAY


@pytest.fixture
def now() -> int:
    """Its end, in seconds UTC."""
    return NOW
