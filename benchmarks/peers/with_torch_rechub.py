"""torch-rechub 0.9 in its own environment: its MIND, its offline inference and its index, as its example goes about it.

``MatchDataGenerator`` feeds ``MatchTrainer.inference_embedding``, once for users and once for items, and ``Faiss`` of
its ``utils.match`` builds the index: an IVF of inner products with as many lists as ours. That is its documentation's
advice (FAISS for the medium and large, ``sqrt(n)`` to ``4 * sqrt(n)`` lists), and here it is given more: histories
come from Parquet straight into arrays, in place of ``gen_model_input`` over pandas, which takes another 4 microseconds
a user. Batches of 256 and no loading processes are those of its example; 1,024 and 4,096 took twice the time of a
core.

``python -m benchmarks.peers.with_torch_rechub FOLDER ITEMS L K D`` does what it is asked, with start weights.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.models.matching import MIND
from torch_rechub.trainers import MatchTrainer
from torch_rechub.utils.data import MatchDataGenerator
from torch_rechub.utils.match import Faiss

from benchmarks.peers.conversation import answer, peak_memory

COUNTRIES = 5
PROFILE_WIDTH = 16


def model_of(items: int, length: int, interests: int, width: int) -> MIND:
    """Build its MIND over so many item rows."""
    return MIND(
        user_features=[SparseFeature("country", vocab_size=COUNTRIES, embed_dim=PROFILE_WIDTH)],
        history_features=[_items("hist_item_id", items, width)],
        item_features=[SparseFeature("item_id", vocab_size=items, embed_dim=width)],
        neg_item_feature=[_items("neg_items", items, width)],
        max_length=length,
        interest_num=interests,
    )


def _items(name: str, items: int, width: int) -> SequenceFeature:
    return SequenceFeature(name, vocab_size=items, embed_dim=width, pooling="concat", shared_with="item_id")


def users_of(folder: str) -> dict[str, np.ndarray]:
    """Read histories [users, L] and profiles [users] of a folder of Parquet files."""
    table = pq.read_table(folder, columns=["history_item_id", "profile_country"]).combine_chunks()
    histories = table["history_item_id"].combine_chunks()
    flat = histories.flatten().to_numpy().reshape(len(histories), -1)
    return {"country": table["profile_country"].to_numpy(), "hist_item_id": flat}


def main() -> None:
    """Keep a model of start weights as a training would; then do the job as often as asked."""
    folder = Path(sys.argv[1])
    items, length, interests, width = map(int, sys.argv[2:6])
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(1)
    model = model_of(items, length, interests, width)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "model.pth")
    trainer = MatchTrainer(model, mode=2, model_path=str(folder))

    def job(histories: str, lists: int, rows: int, workers: int) -> dict[str, Any]:
        moments = [time.perf_counter()]
        users, all_items = users_of(histories), {"item_id": np.arange(items)}
        generator = MatchDataGenerator(x=users)
        _, of_users, of_items = generator.generate_dataloader(users, all_items, batch_size=rows, num_workers=workers)
        vectors = trainer.inference_embedding(model, "user", of_users, str(folder))
        torch.save(vectors, folder / "user_embedding.pth")
        moments.append(time.perf_counter())
        item_vectors = trainer.inference_embedding(model, "item", of_items, str(folder)).numpy()
        torch.save(item_vectors, folder / "item_embedding.pth")
        moments.append(time.perf_counter())
        index = Faiss(dim=width, index_type="ivf", nlist=lists, metric="ip")
        index.fit(item_vectors)
        index.save_index(str(folder / "item.index"))
        moments.append(time.perf_counter())
        spent = np.diff(moments).tolist()
        return {"interests": spent[0], "items": spent[1], "index": spent[2], "shape": list(vectors.shape)}

    answer({"job": job, "peak": peak_memory})


if __name__ == "__main__":
    main()
