"""A made shop of any size: interactions, a catalogue and seeded networks, for what does not depend on meaning.

``python -m benchmarks.made FOLDER --users N --items M`` makes ``shop-M``, ``large`` (N users), ``small`` (a tenth).
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from artifacts.bundle import FeatureSpec
from export.source import sources_from_checkpoint
from export.write import export
from features.vocabulary import FIRST, fit_vocabulary
from models.bst import Bst, BstConfig
from models.checkpoint import checkpoint_of, save_checkpoint
from models.mind import Mind, MindConfig

EVENTS = 20  # a user
CATEGORIES = 500
CLUSTER = 100  # items that are alike
END = np.datetime64("2026-04-01T00:00:00", "s")
SPEC = FeatureSpec(
    item_features=("item_id", "category"),
    profile_features=("country",),
    history_length=EVENTS,
    gap_edges=(3_600, 86_400, 604_800, 2_592_000),
    cross_features=("retrieval_score", "times_had", "days_since", "popularity"),
)
MIND = MindConfig(width=64, interests=4)

CONFIG = """\
[surface]
name = "made"
root = "store"

[inputs.interactions]
path = "interactions.parquet"

[inputs.items]
path = "{shop}/items.parquet"
features = {{ category = "category" }}

[inputs.users]
path = "users.parquet"
features = {{ country = "country" }}

[bundles]
item = "{shop}/bundles/item"
user = "{shop}/bundles/user"
ranker = "{shop}/bundles/ranker"

[night]
shards = {shards}
threads = {threads}

[score]
top_n = 50
"""


def make_catalogue(
    folder: Path, *, items: int, seed: int = 5, spec: FeatureSpec = SPEC, mind: MindConfig = MIND, ranked: bool = True
) -> None:
    """Write *items* items, a MIND for them and, if *ranked*, a BST (L = 20, 8 heads, 1024-512-256)."""
    if (folder / "bundles" / ("ranker" if ranked else "user")).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    catalogue = pa.table({"item_id": np.arange(items), "category": np.arange(items) // CLUSTER % CATEGORIES})
    pq.write_table(catalogue, folder / "items.parquet")
    vocabularies = {
        "item_id": fit_vocabulary("item_id", catalogue["item_id"]),
        "category": fit_vocabulary("category", catalogue["category"]),
        "country": fit_vocabulary("country", pa.array(["de", "fr", "it"])),
    }
    vocabularies = {name: vocabularies[name] for name in spec.features}
    torch.manual_seed(seed)
    bst = BstConfig(width=64, heads=8, mlp=(1024, 512, 256))
    tower = Mind(mind, spec, vocabularies)
    _cluster(tower.item_tables[0].weight, rng)
    networks = {"mind": (tower, mind)} | ({"bst": (Bst(bst, spec, vocabularies), bst)} if ranked else {})
    for name, (network, config) in networks.items():
        checkpoint = checkpoint_of(
            network, config=config, spec=spec, vocabularies=vocabularies, trained_through="2026-03-01", about={}
        )
        save_checkpoint(checkpoint, folder / "models" / name)
        export(sources_from_checkpoint(folder / "models" / name), folder / "bundles")


def _cluster(table: torch.Tensor, rng: np.random.Generator) -> None:
    """Lay items beside each other in space, too, as training does: with vectors in all directions no index is quick."""
    rows, width = table.shape
    centres = rng.standard_normal((rows // CLUSTER + 1, width), dtype=np.float32)
    near = centres[np.arange(rows) // CLUSTER] + 0.3 * rng.standard_normal((rows, width), dtype=np.float32)
    near[:FIRST] = 0.0
    with torch.no_grad():
        table.copy_(torch.from_numpy(near * np.float32(width**-0.5)))


def make_users(
    folder: Path, shop: Path, *, users: int, items: int, threads: int, shards: int = 32, seed: int = 6
) -> Path:
    """Write *users* users with ``EVENTS`` events each over 60 days, and a config; gives the config's path."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = users * EVENTS
    seconds = rng.integers(0, 60 * 86_400, rows).astype("timedelta64[s]")
    taste = rng.integers(0, items, users)
    near = (np.repeat(taste, EVENTS) + rng.integers(-50, 51, rows)) % items  # a user's items lie beside each other
    interactions = {
        "user_id": np.repeat(np.arange(users), EVENTS),
        "item_id": np.where(rng.random(rows) < 0.8, near, rng.integers(0, items, rows)),
        "time": pa.array(END - np.timedelta64(1, "s") - seconds, pa.timestamp("s", tz="UTC")),
    }
    pq.write_table(pa.table(interactions), folder / "interactions.parquet")
    countries = np.array(["de", "fr", "it"])[rng.integers(0, 3, users)]
    pq.write_table(pa.table({"user_id": np.arange(users), "country": countries}), folder / "users.parquet")
    config = folder / "job.toml"
    config.write_text(CONFIG.format(shop=shop.resolve(), threads=threads, shards=shards))
    return config


def main() -> None:
    """Make what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=int, required=True)
    parser.add_argument("--items", type=int, required=True)
    asked = parser.parse_args()
    shop = asked.folder / f"shop-{asked.items}"
    make_catalogue(shop, items=asked.items)
    for name, users in (("large", asked.users), ("small", asked.users // 10)):
        threads = len(os.sched_getaffinity(0))
        make_users(asked.folder / name, shop, users=users, items=asked.items, threads=threads)


if __name__ == "__main__":
    main()
