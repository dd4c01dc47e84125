"""A shop so small that a night of it is worked out by hand: what golden bundles and releases are made of.

Items are called ``hat-01`` to ``tea-20``: their vector has a 1 at their category and number / 32 in the last place. A
user has an interest for the newest click and one for the oldest: a 1 at its category, and in the last place 1, or -1 in
France. So an item's retrieval score is (1 if its category was clicked) + number / 32, in France - number / 32. The
ranker halves that, takes off number / 32, and adds 1 / 16 for the newest click's category, a 64th of its gap bucket and
a 256th of the country's vocabulary row. All of these are sums of few powers of two, which float32 holds exactly.
"""

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from artifacts.bundle import FeatureSpec, Role
from export.source import Source
from features.vocabulary import fit_vocabulary

CATEGORIES = ("hat", "jam", "pen", "tea")
ITEMS = [f"{category}-{number:02d}" for category in CATEGORIES for number in range(1, 21)]
SPEC = FeatureSpec(
    item_features=("item_id", "category"),
    profile_features=("country",),
    history_length=4,
    gap_edges=(3_600, 86_400, 604_800),
    cross_features=("retrieval_score", "times_had", "days_since", "popularity"),
)
EVENTS = [
    (1, "hat-01", "2026-03-20T08:00"),
    (1, "tea-02", "2026-03-30T10:00"),
    (2, "jam-06", "2026-03-29T23:30"),
    (3, "pen-01", "2026-03-10T12:00"),
    (3, "pen-02", "2026-03-15T12:00"),
    (3, "tea-06", "2026-03-25T12:00"),
    (4, "hat-03", "2026-03-12T12:00"),
    (4, "hat-03", "2026-03-30T23:30"),
    (6, "tea-21", "2026-03-28T12:00"),  # is not for sale
    (7, "new-01", "2026-03-27T12:00"),  # is new since the model was trained, and in no category
    (8, "hat-01", "2026-03-28T12:00"),  # has asked to be forgotten
    (1, "jam-03", "2026-03-31T12:00"),  # the day after the golden release
    (9, "pen-06", "2026-03-31T09:00"),
]
COUNTRIES = {1: "de", 2: "fr", 3: "de", 4: "fr", 5: "de", 6: None, 7: "de", 8: "de", 9: "fr"}  # 5 has no event
CONFIG = """\
[surface]
name = "golden"
root = "store"

[inputs.interactions]
path = "data/interactions.parquet"

[inputs.items]
path = "data/items.parquet"
title = "title"
eligible = "eligible"
features = { category = "category" }

[inputs.users]
path = "data/users.parquet"
features = { country = "country" }

[inputs.exclude_users]
path = "data/exclude_users.parquet"

[bundles]
item = "bundles/item"
user = "bundles/user"
ranker = "bundles/ranker"

[night]
shards = 2
item_shards = 2
threads = 1
batch_users = 8
batch_items = 8
batch_lists = 8
faiss_threads = 1

[day]
min_share_of_median = 0

[index]
lists = 2
recall_target = 1.0
recall_k = 60

[retrieve]
candidates = 6

[score]
top_n = 4
"""


def write_data(folder: Path) -> None:
    """Write the input tables into *folder*."""
    folder.mkdir(parents=True)
    users, items, times = zip(*EVENTS, strict=True)
    moments = pa.array([datetime.fromisoformat(f"{time}:00+00:00") for time in times], pa.timestamp("s", tz="UTC"))
    interactions = {"user_id": pa.array(users, pa.int64()), "item_id": pa.array(items), "time": moments}
    catalogue = {
        "item_id": [*ITEMS, "tea-21", "new-01"],
        "title": [item.replace("-", " number ") for item in (*ITEMS, "tea-21", "new-01")],
        "category": [*(item[:3] for item in ITEMS), "tea", None],
        "eligible": [*(True for _ in ITEMS), False, True],
    }
    people = {"user_id": pa.array(COUNTRIES, pa.int64()), "country": pa.array(COUNTRIES.values(), pa.string())}
    pq.write_table(pa.table(interactions), folder / "interactions.parquet")
    pq.write_table(pa.table(catalogue), folder / "items.parquet")
    pq.write_table(pa.table(people), folder / "users.parquet")
    pq.write_table(pa.table({"id": pa.array([8], pa.int64())}), folder / "exclude_users.parquet")


class Tables(nn.Module):
    """What is known of items and countries, by vocabulary row: 0 is padding, 1 unknown."""

    def __init__(self) -> None:
        """Write the weights down."""
        super().__init__()
        numbers = [0, 0, *(int(item[4:]) / 32 for item in [*ITEMS, "tea-21"])]
        self.number = nn.Embedding.from_pretrained(torch.tensor(numbers)[:, None])
        self.category = nn.Embedding.from_pretrained(torch.cat([torch.zeros(2, 4), torch.eye(4)]))
        self.taste = nn.Embedding.from_pretrained(torch.tensor([[1.0], [1.0], [1.0], [-1.0]]))  # of de, fr
        self.place = nn.Embedding.from_pretrained(torch.arange(5.0)[:, None] / 64)  # of gap buckets
        self.country = nn.Embedding.from_pretrained(torch.arange(4.0)[:, None] / 256)


class Item(nn.Module):
    """An item's vector, [items, 5]."""

    def __init__(self, tables: Tables) -> None:
        """Share *tables*."""
        super().__init__()
        self.tables = tables

    def forward(self, item: Tensor, category: Tensor) -> Tensor:
        return torch.cat([self.tables.category(category), self.tables.number(item)], dim=-1)


class User(nn.Module):
    """The interests of the newest and the oldest click, [users, 2, 5], their count, and which click made each."""

    def __init__(self, tables: Tables) -> None:
        """Share *tables*."""
        super().__init__()
        self.tables = tables

    def forward(self, item: Tensor, category: Tensor, country: Tensor) -> tuple[Tensor, ...]:
        known = (item != 0).sum(dim=1)
        count = known.clamp(1, 2).to(torch.int32)
        made_by = torch.stack([torch.zeros_like(known), (known - 1).clamp(min=0)], dim=1)  # [users, 2]
        active = torch.arange(2) < count[:, None]
        weights = (torch.arange(item.shape[1]) == made_by[..., None]) & active[..., None]  # [users, 2, L]
        clicked = weights.to(torch.float32) @ self.tables.category(category)
        taste = self.tables.taste(country)[:, None, :] * active[..., None]
        return torch.cat([clicked, taste], dim=-1), count, weights.to(torch.float32)


class Ranker(nn.Module):
    """The score of each candidate, [users, C]."""

    def __init__(self, tables: Tables) -> None:
        """Share *tables*."""
        super().__init__()
        self.tables = tables
        self.cross = nn.Parameter(torch.tensor([0.5, 0.0, 0.0, 0.0]))

    def forward(self, *inputs: Tensor) -> Tensor:
        item, category, gap, country, candidate, candidate_category, cross = inputs
        newest = self.tables.category(category[:, :1]) * (item[:, :1, None] != 0)
        same = (newest * self.tables.category(candidate_category)).sum(dim=-1)
        user = self.tables.place(gap[:, :1]).squeeze(-1) + self.tables.country(country)
        return (cross * self.cross).sum(dim=-1) - self.tables.number(candidate).squeeze(-1) + same / 16 + user


def sources() -> list[Source]:
    """Give the networks with what a bundle says of them, for ``nightrec export --factory``."""
    tables = Tables()
    vocabularies = {
        "item_id": fit_vocabulary("item_id", pa.array([*ITEMS, "tea-21"])),
        "category": fit_vocabulary("category", pa.array(CATEGORIES)),
        "country": fit_vocabulary("country", pa.array(["de", "fr"])),
    }
    modules = {Role.ITEM: Item(tables), Role.USER: User(tables), Role.RANKER: Ranker(tables)}
    return [
        Source(role=role, module=module, spec=SPEC, vocabularies=vocabularies, trained_through="2026-03-01")
        for role, module in modules.items()
    ]
