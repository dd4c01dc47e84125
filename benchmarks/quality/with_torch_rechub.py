"""torch-rechub 0.9 in its own environment: its MIND, fitted by its own trainer to sampled negatives.

``python -m benchmarks.quality.with_torch_rechub FOLDER ITEMS WORDS EPOCHS SEED`` reads ``train.npz`` and ``asked.npz``
of a folder and writes ``vectors.npz``: interests [N, K, d] of who is asked, and items [items, d]. List-wise softmax
over a target and its negatives, Adam at 0.001 and batches of 256 are those of its example; K = 4 and d = 64 are ours.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.models.matching import MIND
from torch_rechub.trainers import MatchTrainer
from torch_rechub.utils.data import MatchDataGenerator

WIDTH, INTERESTS = 64, 4


def model_of(items: int, words: int, length: int) -> MIND:
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


def main() -> None:
    """Fit, and give the vectors."""
    folder = Path(sys.argv[1])
    items, words, epochs, seed = map(int, sys.argv[2:])
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    train, asked = dict(np.load(folder / "train.npz")), dict(np.load(folder / "asked.npz"))
    model = model_of(items, words, asked["history"].shape[1])
    trainer = MatchTrainer(model, mode=2, optimizer_params={"lr": 1e-3, "weight_decay": 1e-6}, model_path=str(folder))
    every = {"item_id": np.arange(items)}
    generator = MatchDataGenerator(x=train, y=np.zeros(len(train["item_id"]), np.int64))
    batches, users, rows = generator.generate_dataloader(asked, every, batch_size=256, num_workers=0)
    for _ in range(epochs):
        trainer.train_one_epoch(batches)
    torch.save(model.state_dict(), folder / "model.pth")
    interests = trainer.inference_embedding(model, "user", users, str(folder)).numpy()
    vectors = trainer.inference_embedding(model, "item", rows, str(folder)).numpy()
    np.savez(folder / "vectors.npz", interests=interests, items=vectors)


if __name__ == "__main__":
    main()
