"""Small networks of every role, made by hand, with vocabularies to match."""

import sys
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from artifacts.bundle import FeatureSpec, Role
from export.source import Source
from features.vocabulary import Vocabulary

D, K = 6, 3
ITEMS = 20
SPEC = FeatureSpec(
    item_features=("item_id", "category"),
    profile_features=("gender",),
    history_length=5,
    gap_edges=(60, 3600),
    cross_features=("retrieval_score", "popularity"),
)
VOCABULARIES = {
    "item_id": Vocabulary("item_id", pa.array(range(100, 100 + ITEMS), pa.int64())),
    "category": Vocabulary("category", pa.array(["book", "game"])),
    "gender": Vocabulary("gender", pa.array(["f", "m"])),
}


class Tables(nn.Module):
    """What the towers share."""

    def __init__(self, seed: int = 0) -> None:
        """Draw weights from *seed*."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        sizes = [vocabulary.size for vocabulary in VOCABULARIES.values()]
        self.item, self.category, self.gender = (nn.Embedding(size, D) for size in sizes)
        self.mix = nn.Linear(D, K * D)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)

    def items(self, item: Tensor, category: Tensor) -> Tensor:
        return self.item(item) + self.category(category)


class Item(nn.Module):
    def __init__(self, tables: Tables) -> None:
        """Share *tables*."""
        super().__init__()
        self.tables = tables

    def forward(self, item: Tensor, category: Tensor) -> Tensor:
        return self.tables.items(item, category)


class User(nn.Module):
    def __init__(self, tables: Tables) -> None:
        """Share *tables*."""
        super().__init__()
        self.tables = tables

    def forward(self, item: Tensor, category: Tensor, gender: Tensor) -> tuple[Tensor, ...]:
        real = item != 0
        total = (self.tables.items(item, category) * real.unsqueeze(-1)).sum(dim=1)
        mixed = self.tables.mix(torch.tanh(total)).unflatten(-1, (K, D)) + self.tables.gender(gender).unsqueeze(1)
        count = (real.sum(dim=1) // 2).clamp(1, K).to(torch.int32)
        active = torch.arange(K) < count.unsqueeze(-1)
        return torch.where(active.unsqueeze(-1), mixed, 0.0), count


class Ranker(nn.Module):
    def __init__(self, tables: Tables) -> None:
        """Share *tables*."""
        super().__init__()
        self.tables = tables
        self.gap = nn.Embedding(len(SPEC.gap_edges) + 2, D)
        nn.init.ones_(self.gap.weight)

    def forward(self, *inputs: Tensor) -> Tensor:
        item, category, gap, gender, candidate, candidate_category, cross = inputs
        real = (item != 0).unsqueeze(-1)
        history = ((self.tables.items(item, category) + self.gap(gap)) * real).mean(dim=1) + self.tables.gender(gender)
        pairs = self.tables.items(candidate, candidate_category) * history.unsqueeze(1)
        return torch.sigmoid(pairs.sum(dim=-1) + cross.sum(dim=-1))


MODULES: dict[Role, type[nn.Module]] = {Role.ITEM: Item, Role.USER: User, Role.RANKER: Ranker}


def make_source(role: Role, module: nn.Module | None = None, *, seed: int = 0, **said: Any) -> Source:
    module = module or MODULES[role](Tables(seed))
    return Source(role=role, module=module, **{"spec": SPEC, "vocabularies": VOCABULARIES, **said})


def make_towers(seed: int = 0, **said: Any) -> list[Source]:
    tables = Tables(seed)
    return [make_source(role, MODULES[role](tables), **said) for role in (Role.ITEM, Role.USER)]


@pytest.fixture(scope="session")
def small() -> ModuleType:
    """This module: a test cannot import its conftest."""
    return sys.modules[__name__]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)
