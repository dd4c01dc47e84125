"""torch-rechub's MIND, fitted by its own trainer and written by its own exporter, in an environment that has it.

``python -m examples.own.rechub DATA FOLDER`` leaves two ONNX files, and the lists of what they know, in FOLDER. MIND as
torch-rechub has it draws the start of its routing anew in every call, and so is refused: ``--drawn`` leaves it so. The
remedy is one line: the routing of its ComiRec, which starts from zeros, as each interest has a map of its own.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.basic.layers import CapsuleNetwork
from torch_rechub.models.matching import MIND
from torch_rechub.trainers import MatchTrainer
from torch_rechub.utils.data import MatchDataGenerator, pad_sequences

WIDTH, LENGTH, INTERESTS, FIRST = 16, 8, 3, 2  # rows 0 and 1 are left for padding and for what is unknown


def network(items: int, countries: int, *, drawn: bool) -> MIND:
    """Build MIND for tables of so many rows."""

    def of_items(name: str) -> SequenceFeature:
        return SequenceFeature(name, vocab_size=items, embed_dim=WIDTH, pooling="concat", shared_with="item_id")

    model = MIND(
        user_features=[SparseFeature("country", vocab_size=countries, embed_dim=WIDTH)],
        history_features=[of_items("hist_item_id")],
        item_features=[SparseFeature("item_id", vocab_size=items, embed_dim=WIDTH)],
        neg_item_feature=[of_items("neg_items")],
        max_length=LENGTH,
        interest_num=INTERESTS,
    )
    if not drawn:
        model.capsule = CapsuleNetwork(WIDTH, LENGTH, bilinear_type=1, interest_num=INTERESTS)
    return model


def write(data: Path, folder: Path, *, drawn: bool) -> None:
    """Fit to the last item of each history among others, and export both towers."""
    torch.manual_seed(1)
    items, users, events = (pq.read_table(data / f"{name}.parquet") for name in ("items", "users", "interactions"))
    known = {"sku": items["item_id"].to_pylist(), "country": pc.unique(users["country"]).to_pylist()}
    sku, country = ({value: FIRST + row for row, value in enumerate(values)} for values in known.values())
    country_of = {one["user_id"]: country[one["country"]] for one in users.to_pylist()}
    taken: dict[int, list[int]] = {}
    for one in events.sort_by([("time", "ascending"), ("item_id", "ascending")]).to_pylist():
        taken.setdefault(one["user_id"], []).append(sku[one["item_id"]])
    many = {user: skus for user, skus in sorted(taken.items()) if len(skus) > 1 and user in country_of}
    newest_first = [skus[-2::-1] for skus in many.values()]
    rows = {
        "country": np.array([country_of[user] for user in many]),
        "hist_item_id": pad_sequences(newest_first, LENGTH, "int64", "post", "post"),
        "item_id": np.array([skus[-1] for skus in many.values()]),
        "neg_items": np.random.default_rng(1).integers(FIRST, FIRST + len(sku), (len(many), 4)),
    }

    folder.mkdir(parents=True, exist_ok=True)
    model = network(FIRST + len(sku), FIRST + len(country), drawn=drawn)
    loader, _, _ = MatchDataGenerator(rows, np.zeros(len(many), np.int64)).generate_dataloader(
        rows, rows, batch_size=64, num_workers=0
    )
    trainer = MatchTrainer(model, mode=2, n_epoch=2, model_path=str(folder))
    trainer.fit(loader)
    model.neg_item_feature = []  # of training alone; its exporter would make it an input of the item tower
    # Optimized, it takes the 1e-9 under a root for nothing, and whoever has no history would get NaN.
    as_it_is = {"optimize": False}
    for tower in ("user", "item"):
        path = str(folder / f"{tower}_tower.onnx")
        trainer.export_onnx(path, tower, seq_length=LENGTH, opset_version=18, onnx_export_kwargs=as_it_is)
    for name, values in known.items():
        (folder / f"{name}.txt").write_text("\n".join(values))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), drawn="--drawn" in sys.argv)
