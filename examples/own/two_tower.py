"""A two-tower model in plain torch: mean of the items of a history, plus the country, against one vector per item.

``python -m examples.own.two_tower DATA FOLDER`` trains it on the Parquet files in DATA, and leaves in FOLDER what such
a training leaves: weights, and the lists of what it knows, in the order of its tables.
"""

import json
import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

WIDTH, LENGTH, PADDING, UNKNOWN, FIRST = 16, 8, 0, 1, 2


class TwoTower(nn.Module):
    """Both towers; the tables of the items are one."""

    def __init__(self, items: int, categories: int, countries: int) -> None:
        """Make tables of so many rows."""
        super().__init__()
        self.item = nn.Embedding(items, WIDTH)
        self.category = nn.Embedding(categories, WIDTH)
        self.country = nn.Embedding(countries, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU(), nn.Linear(32, WIDTH))

    def embed(self, sku: Tensor, category: Tensor) -> Tensor:
        """Give items their vectors."""
        return self.item(sku) + self.category(category)

    def user(self, skus: Tensor, categories: Tensor, country: Tensor) -> Tensor:
        """Give users their vectors; what is padded in a history is left out of the mean."""
        real = (skus != PADDING).unsqueeze(-1)
        mean = (self.embed(skus, categories) * real).sum(1) / real.sum(1).clamp(min=1)
        vector: Tensor = self.mlp(mean + self.country(country))
        return vector


class Items(nn.Module):
    """The tower of the items."""

    def __init__(self, model: TwoTower) -> None:
        """Take it from *model*."""
        super().__init__()
        self.model = model

    def forward(self, sku: Tensor, category: Tensor) -> Tensor:
        """[items], [items] -> [items, d]."""
        return self.model.embed(sku, category)


class Users(nn.Module):
    """The tower of the users."""

    def __init__(self, model: TwoTower) -> None:
        """Take it from *model*."""
        super().__init__()
        self.model = model

    def forward(self, skus: Tensor, categories: Tensor, country: Tensor) -> Tensor:
        """[users, L], [users, L], [users] -> [users, d]."""
        return self.model.user(skus, categories, country)


def load(folder: Path) -> TwoTower:
    """Read what :func:`train` left in *folder*."""
    known = json.loads((folder / "known.json").read_text())
    model = TwoTower(*(FIRST + len(known[name]) for name in ("sku", "category", "country")))
    model.load_state_dict(torch.load(folder / "two_tower.pt", weights_only=True))
    return model


def item_tower(folder: Path) -> nn.Module:
    """What `item = "examples.own.two_tower:item_tower"` asks for."""
    return Items(load(folder))


def user_tower(folder: Path) -> nn.Module:
    """What `user = "examples.own.two_tower:user_tower"` asks for."""
    return Users(load(folder))


def train(data: Path, folder: Path, steps: int = 60) -> None:
    """Train on who took what, with a sampled softmax within the batch, and write weights and vocabularies."""
    torch.manual_seed(1)
    items, users, events = (pq.read_table(data / f"{name}.parquet") for name in ("items", "users", "interactions"))
    known = {
        "sku": pc.unique(items["item_id"]).to_pylist(),
        "category": pc.drop_null(pc.unique(items["category"])).to_pylist(),
        "country": pc.unique(users["country"]).to_pylist(),
    }
    row = {name: {value: FIRST + place for place, value in enumerate(values)} for name, values in known.items()}
    category_of = {one["item_id"]: row["category"].get(one["category"], UNKNOWN) for one in items.to_pylist()}
    country_of = {one["user_id"]: row["country"][one["country"]] for one in users.to_pylist()}
    taken: dict[int, list[str]] = {}
    for one in events.sort_by([("time", "ascending"), ("item_id", "ascending")]).to_pylist():
        taken.setdefault(one["user_id"], []).append(one["item_id"])
    many = {user: skus for user, skus in sorted(taken.items()) if len(skus) > 1}
    histories = [skus[:-1][-LENGTH:] for skus in many.values()]
    skus = torch.tensor([[*(row["sku"][sku] for sku in h), *[PADDING] * (LENGTH - len(h))] for h in histories])
    kinds = torch.tensor([[*(category_of[sku] for sku in h), *[PADDING] * (LENGTH - len(h))] for h in histories])
    countries = torch.tensor([country_of[user] for user in many])
    next_sku = torch.tensor([row["sku"][skus[-1]] for skus in many.values()])
    next_kind = torch.tensor([category_of[skus[-1]] for skus in many.values()])

    model = TwoTower(*(FIRST + len(values) for values in known.values()))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        scores = model.user(skus, kinds, countries) @ model.embed(next_sku, next_kind).T
        loss = nn.functional.cross_entropy(scores, torch.arange(len(scores)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "two_tower.pt")
    (folder / "known.json").write_text(json.dumps(known))
    for name, values in known.items():
        (folder / f"{name}.txt").write_text("\n".join(values))


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]))
