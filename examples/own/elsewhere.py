"""A checkpoint from elsewhere: its rows begin at 0, and its histories end with the newest item.

Padding is the row behind the last item, and unknown ids have no row.
``python -m examples.own.elsewhere DATA FOLDER`` leaves the checkpoint, and that project's file of item to row.
"""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

WIDTH = 12


class Recent(nn.Module):
    """One vector a user: the items of the history, the newer the heavier, and projected."""

    def __init__(self, items: int) -> None:
        """Make a table of so many items, and a row of zeros behind them for padding."""
        super().__init__()
        self.items = nn.Embedding(items + 1, WIDTH, padding_idx=items)
        self.weight = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, history: Tensor) -> Tensor:
        """[users, L] of rows, oldest first, padded in front -> [users, d]."""
        age = torch.arange(history.shape[1] - 1, -1, -1, dtype=torch.float32)
        vector: Tensor = (self.weight(self.items(history)) / (1 + age).unsqueeze(-1)).sum(dim=1)
        return vector


def new(folder: Path) -> Recent:
    """Make a network for the vocabulary in *folder*."""
    return Recent(len(json.loads((folder / "item2row.json").read_text())))


def user_tower(folder: Path) -> nn.Module:
    """The user's side, with its trained weights."""
    model = new(folder)
    model.load_state_dict(torch.load(folder / "checkpoint.pt", weights_only=True)["state"])
    return model


def item_tower(folder: Path) -> nn.Module:
    """The items' side: the table itself."""
    model = user_tower(folder)
    assert isinstance(model, Recent)
    return model.items


def write(data: Path, folder: Path) -> None:
    """Leave a checkpoint of start weights, and what is known in that project's own form."""
    folder.mkdir(parents=True, exist_ok=True)
    items = pq.read_table(data / "items.parquet")["item_id"]
    rows = {sku: row for row, sku in enumerate(reversed(items.to_pylist()))}
    (folder / "item2row.json").write_text(json.dumps(rows))
    torch.manual_seed(4)
    torch.save({"state": new(folder).state_dict(), "epoch": 7}, folder / "checkpoint.pt")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
