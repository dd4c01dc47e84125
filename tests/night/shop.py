"""A small shop: made data, seeded networks and their bundles, and the command that runs its nights."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from artifacts.bundle import FeatureSpec

DATE = "2026-03-31"
NIGHTREC = Path(sys.executable).with_name("nightrec")
END = np.datetime64("2026-04-01T00:00:00", "s")
ITEMS, USERS = 160, 400
COLD_USERS = 25  # known to `users` alone
CATEGORIES = ("books", "games", "garden", "kitchen", "music", "shoes")
SPEC = FeatureSpec(
    item_features=("item_id", "category"),
    profile_features=("country",),
    history_length=8,
    gap_edges=(3_600, 86_400, 604_800),
    cross_features=("retrieval_score", "times_had", "days_since", "popularity"),
)


@dataclass(frozen=True)
class Shop:
    """What every night of the shop starts from."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def config(self, folder: Path, *, tables: Mapping[str, object] | None = None, workers: int = 1) -> Path:
        """Write a config into *folder*, whose root is ``folder/store``; *tables* lie elsewhere than in ``data``."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "job.toml"
        places = {name: self.data / f"{name}.parquet" for name in ("interactions", "items", "users")} | dict(
            tables or {}
        )
        path.write_text(CONFIG.format(shop=self.folder, workers=workers, **places))
        return path


CONFIG = """\
[surface]
name = "shop"
root = "store"
timezone = "Europe/Berlin"

[inputs.interactions]
path = "{interactions}"

[inputs.items]
path = "{items}"
title = "title"
eligible = "eligible"
features = {{ category = "category" }}

[inputs.users]
path = "{users}"
features = {{ country = "country" }}

[inputs.exclude_users]
path = "{shop}/data/exclude_users.parquet"

[inputs.exclude_items]
path = "{shop}/data/exclude_items.parquet"

[bundles]
item = "{shop}/bundles/item"
user = "{shop}/bundles/user"
ranker = "{shop}/bundles/ranker"

[night]
shards = 3
item_shards = 2
workers = {workers}
batch_users = 32
batch_items = 64
batch_lists = 16

[index]
lists = 3
recall_k = 20
sample_users = 128

[retrieve]
candidates = 20

[score]
top_n = 10
rules = [{{ group = "category", at_most = 4 }}]
"""


def run_nightrec(*arguments: object, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``nightrec`` with *arguments*; output is captured."""
    return subprocess.run(
        [NIGHTREC, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )


def only_release(store: Path) -> Path:
    """The one release under *store*."""
    (release,) = (path for path in (store / "releases").iterdir() if path.is_dir() and path.name[0] != ".")
    return release


def content_of(release: Path) -> dict[str, bytes]:
    """Every file that the manifest lists, and the manifest itself."""
    manifest: dict[str, Any] = json.loads((release / "manifest.json").read_text())
    names = [*manifest["files"], "manifest.json"]
    return {name: (release / name).read_bytes() for name in names}


def write_data(folder: Path) -> None:
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True)
    item_ids = [f"item-{number:04d}" for number in range(ITEMS)]
    categories = [CATEGORIES[number % len(CATEGORIES)] for number in range(ITEMS)]
    items = {
        "item_id": item_ids,
        "title": [f"Thing {number}" for number in range(ITEMS)],
        "category": [None if number % 40 == 39 else categories[number] for number in range(ITEMS)],
        "eligible": [number % 20 != 19 for number in range(ITEMS)],
    }
    users = {"user_id": np.arange(USERS + COLD_USERS), "country": rng.choice(["de", "fr", "it"], USERS + COLD_USERS)}
    counts = rng.integers(1, 25, USERS)
    user_of_event = np.repeat(np.arange(USERS), counts)
    taste = rng.integers(0, len(CATEGORIES), USERS)[user_of_event]
    own = rng.integers(0, ITEMS // len(CATEGORIES), counts.sum()) * len(CATEGORIES) + taste
    item_of_event = np.where(rng.random(counts.sum()) < 0.7, own, rng.integers(0, ITEMS, counts.sum()))
    seconds = rng.integers(0, 60 * 86_400, counts.sum())
    times = END - np.timedelta64(7_200, "s") - seconds.astype("timedelta64[s]")
    interactions = pa.table(
        {
            "user_id": user_of_event,
            "item_id": pa.array([item_ids[row] for row in item_of_event]),
            "time": pa.array(times, pa.timestamp("s", tz="UTC")),
        }
    )
    pq.write_table(interactions, folder / "interactions.parquet", row_group_size=1_000)
    pq.write_table(pa.table(items), folder / "items.parquet")
    pq.write_table(pa.table(users), folder / "users.parquet")
    pq.write_table(pa.table({"id": pa.array([3, 5], pa.int64())}), folder / "exclude_users.parquet")
    pq.write_table(pa.table({"id": ["item-0000"]}), folder / "exclude_items.parquet")


def write_bundles(shop: Shop, *, seed: int = 1) -> None:
    """Export networks of start weights drawn by *seed*: the night's mechanics do not ask whether they were trained."""
    import torch

    from export.source import sources_from_checkpoint
    from export.write import export
    from features.vocabulary import fit_vocabulary
    from models.bst import Bst, BstConfig
    from models.checkpoint import checkpoint_of, save_checkpoint
    from models.mind import Mind, MindConfig

    torch.set_num_threads(1)
    items, users = (pq.read_table(shop.data / f"{name}.parquet") for name in ("items", "users"))
    vocabularies = {
        "item_id": fit_vocabulary("item_id", items["item_id"].slice(0, ITEMS - 10)),  # ten are new since training
        "category": fit_vocabulary("category", items["category"]),
        "country": fit_vocabulary("country", users["country"]),
    }
    mind_config = MindConfig(width=16, interests=3, hidden=(24,), profile_width=4, seed=seed)
    bst_config = BstConfig(width=16, gap_width=4, heads=2, ffn_width=32, profile_width=4, mlp=(32, 16), seed=seed)
    networks = {
        "mind": (Mind(mind_config, SPEC, vocabularies), mind_config),
        "bst": (Bst(bst_config, SPEC, vocabularies), bst_config),
    }
    for name, (network, config) in networks.items():
        checkpoint = checkpoint_of(
            network, config=config, spec=SPEC, vocabularies=vocabularies, trained_through="2026-03-01", about={}
        )
        save_checkpoint(checkpoint, shop.folder / "models" / name)
        export(sources_from_checkpoint(shop.folder / "models" / name), shop.folder / "bundles")
