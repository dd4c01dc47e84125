"""torch-rechub 0.9 in its own environment: its MIND and its BST, fitted by its own trainers.

``python -m benchmarks.quality.with_torch_rechub FOLDER`` reads ``how.json``, ``train.npz`` and ``asked.npz`` of a
folder. For its MIND it writes ``vectors-E.npz`` after every epoch E, from 1: interests [N, K, d] of who is asked, and
items [items, d]; list-wise softmax over a target and its negatives, Adam and batches of 256 are those of its example;
K = 4 and d = 64 are ours. For its BST it writes ``scores.npz``: the probability of every pair that is asked; Adam and
cross entropy are those of its example, the widths of the layers ours.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
from torch_rechub.models.matching import MIND
from torch_rechub.models.ranking import BST
from torch_rechub.trainers import CTRTrainer, MatchTrainer
from torch_rechub.utils.data import MatchDataGenerator, TorchDataset

from models.memory import keep_what_is_freed

WIDTH, INTERESTS = 64, 4
EACH = 16  # of an embedding of its BST, which wants the same for every feature


def mind_of(items: int, words: int, length: int) -> MIND:
    """Build its MIND over rows of items (0 is padding) and of one feature of the user."""

    def sequence(name: str) -> SequenceFeature:
        return SequenceFeature(name, vocab_size=items, embed_dim=WIDTH, pooling="concat", shared_with="item_id")

    return MIND(
        user_features=[SparseFeature("profile", vocab_size=words, embed_dim=16)],
        history_features=[sequence("history")],
        item_features=[SparseFeature("item_id", vocab_size=items, embed_dim=WIDTH)],
        neg_item_feature=[sequence("negatives")],
        max_length=length,
        interest_num=INTERESTS,
        dynamic_interest=True,
    )


def retrieval(folder: Path, how: dict[str, Any], train: dict[str, Any], asked: dict[str, Any]) -> None:
    """Fit its MIND, and give the vectors of every epoch."""
    model = mind_of(how["items"], how["words"], asked["history"].shape[1])
    adam = {"lr": how["learning_rate"], "weight_decay": 1e-6}
    trainer = MatchTrainer(model, mode=2, optimizer_params=adam, model_path=str(folder))
    every = {"item_id": np.arange(how["items"])}
    generator = MatchDataGenerator(x=train, y=np.zeros(len(train["item_id"]), np.int64))
    batches, users, rows = generator.generate_dataloader(asked, every, batch_size=256, num_workers=0)
    for epoch in range(how["epochs"]):
        trainer.train_one_epoch(batches)
        torch.save(model.state_dict(), folder / "model.pth")
        interests = trainer.inference_embedding(model, "user", users, str(folder)).numpy()
        vectors = trainer.inference_embedding(model, "item", rows, str(folder)).numpy()
        np.savez(folder / f"vectors-{epoch + 1}.npz", interests=interests, items=vectors)
        model.mode = None  # it says what a forward pass gives: to go on, the scores of training


def bst_of(how: dict[str, Any], length: int, cross: int) -> BST:
    """Build its BST over the item's features, histories of *length*, the profile, and numbers of each pair."""
    words, names = how["words"], how["item_features"]
    profile = [SparseFeature(name, vocab_size=words[name], embed_dim=EACH) for name in how["profile_features"]]
    candidate = [SparseFeature(f"candidate_{name}", vocab_size=words[name], embed_dim=EACH) for name in names]
    history = [
        SequenceFeature(
            f"history_{name}",
            vocab_size=words[name],
            embed_dim=EACH,
            pooling="concat",
            shared_with=f"candidate_{name}",
        )
        for name in names
    ]
    head = {"dims": how["mlp"], "activation": "leakyrelu", "dropout": how["dropout"]}
    return BST([*profile, DenseFeature("cross", cross)], history, candidate, head, max_seq_len=length + 1)


def ranking(folder: Path, how: dict[str, Any], train: dict[str, Any], asked: dict[str, Any]) -> None:
    """Fit its BST, and give the scores of all pairs that are asked."""
    length = asked[f"history_{how['item_features'][0]}"].shape[1]
    model = bst_of(how, length, train["cross"].shape[1])
    adam = {"lr": how["learning_rate"], "weight_decay": 1e-6}
    trainer = CTRTrainer(model, optimizer_params=adam, model_path=str(folder))
    label = train.pop("label")
    batches = DataLoader(TorchDataset(train, label), batch_size=256, shuffle=True)
    for _ in range(how["epochs"]):
        trainer.train_one_epoch(batches)
    pairs = DataLoader(TorchDataset(asked, np.zeros(len(asked["cross"]), np.float32)), batch_size=2048)
    np.savez(folder / "scores.npz", scores=np.array(trainer.predict(model, pairs), np.float32))


def main() -> None:
    """Fit what ``how.json`` names, and write what it gives."""
    folder = Path(sys.argv[1])
    how = json.loads((folder / "how.json").read_text())
    keep_what_is_freed()  # as ours does
    torch.set_num_threads(1)
    torch.manual_seed(how["seed"])
    train, asked = dict(np.load(folder / "train.npz")), dict(np.load(folder / "asked.npz"))
    {"retrieval": retrieval, "ranking": ranking}[how["model"]](folder, how, train, asked)


if __name__ == "__main__":
    main()
