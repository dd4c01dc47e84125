"""DIN (arXiv 1706.06978) in plain torch: a candidate weighs each item of the history by its own relevance.

As papers and libraries write it, it scores one user and one candidate a row. ``python -m examples.own.din FOLDER``
leaves weights in FOLDER, beside the lists that ``examples.own.two_tower`` left there.
"""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

WIDTH, PADDING, FIRST = 8, 0, 2


class Din(nn.Module):
    """The network: embeddings, attention unit and MLP."""

    def __init__(self, items: int, categories: int) -> None:
        """Make tables of so many rows."""
        super().__init__()
        self.item = nn.Embedding(items, WIDTH)
        self.category = nn.Embedding(categories, WIDTH)
        self.relevance = nn.Sequential(nn.Linear(8 * WIDTH, 16), nn.PReLU(), nn.Linear(16, 1))
        self.mlp = nn.Sequential(nn.Linear(4 * WIDTH, 16), nn.PReLU(), nn.Linear(16, 1))

    def forward(self, hist_sku: Tensor, hist_category: Tensor, sku: Tensor, category: Tensor) -> Tensor:
        """[pairs, L], [pairs, L], [pairs], [pairs] -> probability of a click [pairs]."""
        history = torch.cat([self.item(hist_sku), self.category(hist_category)], dim=-1)
        target = torch.cat([self.item(sku), self.category(category)], dim=-1)
        beside = target.unsqueeze(1).expand_as(history)
        weight = self.relevance(torch.cat([history, beside, history - beside, history * beside], dim=-1))
        real = (hist_sku != PADDING).unsqueeze(-1)
        pooled = (weight * history * real).sum(dim=1)
        probability: Tensor = torch.sigmoid(self.mlp(torch.cat([pooled, target], dim=-1))).squeeze(-1)
        return probability


def new(folder: Path) -> Din:
    """Make a network for what is known in *folder*."""
    known = json.loads((folder / "known.json").read_text())
    return Din(*(FIRST + len(known[name]) for name in ("sku", "category")))


def ranker(folder: Path) -> nn.Module:
    """What `ranker = "examples.own.din:ranker"` asks for."""
    model = new(folder)
    model.load_state_dict(torch.load(folder / "din.pt", weights_only=True))
    return model


if __name__ == "__main__":
    torch.manual_seed(2)
    torch.save(new(Path(sys.argv[1])).state_dict(), Path(sys.argv[1]) / "din.pt")
