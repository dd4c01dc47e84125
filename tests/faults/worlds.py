"""Shops to have nights in: MovieLens-100K and Online Retail with trained models, and a made one."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from examples import demo, movielens
from tests.faults.nights import Tables

NIGHTREC = Path(sys.executable).with_name("nightrec")
RETAIL = Path("../shared/data/online_retail")
ROLES = ("item", "user", "ranker")
JOB = """\
[night]
shards = 2
threads = 1

[day]
min_share_of_median = 0

[index]
lists = 16
recall_k = 50

[score]
top_n = 50

[retrieve]
candidates = 100
"""  # of the shops with trained models


@dataclass(frozen=True)
class World:
    """A shop.

    Attributes:
        name: Of the data set.
        folder: Where its ``data/``, ``models/`` and ``bundles/`` lie.
        first: The day after the last that the models were trained on.
        last: The last day with data.
        segment: The profile feature by which users are told apart.
        job: The tables of the config after ``[bundles]``.
        roles: Which models it has.
    """

    name: str
    folder: Path
    first: date
    last: date
    segment: str
    job: str
    roles: tuple[str, ...] = ROLES

    def tables(self, day: date) -> Tables:
        """Give what a night of *day* reads."""
        end = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) + 86_400
        interactions, items, users = (
            pq.read_table(self.folder / "data" / f"{name}.parquet") for name in ("interactions", "items", "users")
        )
        times = interactions["time"].cast(pa.timestamp("s", tz="UTC"))  # Parquet knows no seconds
        interactions = interactions.set_column(2, "time", times)
        past = pc.less(times.cast(pa.int64()), end)
        return Tables(interactions.filter(past), items, users, end, self.segment)

    def config(self, folder: Path, root: Path, bundles: str = "bundles") -> Path:
        """Write into *folder* the config of a night that reads the tables there and takes some of the *bundles*."""
        items, users = (pq.read_schema(self.folder / "data" / f"{name}.parquet").names for name in ("items", "users"))
        side = ", ".join(f'{name} = "{name}"' for name in items if name not in {"item_id", "eligible", "title"})
        profile = ", ".join(f'{name} = "{name}"' for name in users if name != "user_id")
        places = "\n".join(f'{role} = "{self.folder.resolve()}/{bundles}/{role}"' for role in self.roles)
        path = folder / "job.toml"
        path.write_text(
            f"""\
[surface]
name = "{self.name}"
root = "{root.resolve()}"

[inputs]
interactions = {{ path = "interactions.parquet" }}
items = {{ path = "items.parquet", eligible = "eligible", features = {{ {side} }} }}
users = {{ path = "users.parquet", features = {{ {profile} }} }}

[bundles]
{places}

[segments]
columns = ["{self.segment}"]

{self.job}""",
            "utf-8",
        )
        return path

    def days(self) -> list[date]:
        """Give the days after training that have events, ascending."""
        times = pq.read_table(self.folder / "data" / "interactions.parquet", columns=["time"])["time"]
        found = pc.unique(pc.cast(times, pa.date32())).to_pylist()
        return sorted(day for day in found if self.first <= day <= self.last)


def movielens_world(folder: Path) -> World:
    """Make the world of MovieLens: half a year, of which the models know all but the last seven weeks."""
    world = World(
        "movielens",
        folder,
        date(1998, 3, 1),
        date(1998, 4, 22),
        "gender",
        JOB,
    )
    data = folder / "data"
    if not (data / "users.parquet").exists():
        movielens.fetch(folder / "raw")
        raw = {name: pq.read_table(folder / "raw" / f"{name}.parquet") for name in ("interactions", "items", "users")}
        _write(world, raw["interactions"], raw["items"].drop_columns("title"), raw["users"])
    job = demo.JOB[demo.JOB.index("[train]") :].replace(f"until = {demo.TRAINED_THROUGH}", "until = 1998-02-14")
    job = job.replace('folder = "models"\n', "").replace("seed = 1\n", "")
    _train(world, job)
    return world


def retail_world(folder: Path) -> World | None:
    """Make the world of Online Retail, where its files are: eleven months, the last two are judged; no ranker."""
    if not RETAIL.is_dir():
        return None
    world = World(
        "retail",
        folder,
        date(2011, 10, 1),
        date(2011, 12, 8),
        "country",
        f'{JOB}exclude_seen = "none"\n',  # people buy again
        roles=("item", "user"),
    )
    if not (folder / "data" / "users.parquet").exists():
        events, items, users = (pq.read_table(RETAIL / f"{n}.parquet") for n in ("interactions", "items", "users"))
        events = events.filter(pc.greater_equal(events["timestamp"], 1_293_840_000))  # 2011
        times = events["timestamp"].cast(pa.timestamp("s", tz="UTC"))
        events = pa.table({"user_id": events["user_id"], "item_id": events["item_id"], "time": times})
        side = {"category": items["category"].cast(pa.string()), "parent": items["parent_id"]}
        people = pa.table({"user_id": users["user_id"], "country": users["country"].cast(pa.string())})
        _write(world, events, pa.table({"item_id": items["item_id"], **side}), people)
    _train(world, RETAIL_TRAINING)
    return world


RETAIL_TRAINING = """\
[train]
until = 2011-09-16
validate_days = 14
history_length = 30

[train.mind]
interests = 2
normalise = true
temperature = 0.2
"""


def _write(world: World, interactions: pa.Table, items: pa.Table, users: pa.Table) -> None:
    data = world.folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    kinds = {"user_id": pa.int64(), "item_id": pa.int64(), "time": pa.timestamp("s", tz="UTC")}
    interactions = pa.table({name: interactions[name].cast(kind) for name, kind in kinds.items()})
    items = items.append_column("eligible", pa.array([True] * len(items)))
    for name, table in (("interactions", interactions), ("items", items), ("users", users)):
        pq.write_table(table.combine_chunks(), data / f"{name}.parquet")


def _train(world: World, training: str) -> None:
    """Fit and export what is missing: models, the same models with another seed, and models that know nothing.

    The config of training reads the whole data set.
    """
    for seed, bundles in ((1, "bundles"), (2, "retrained")):
        folder = "models" if seed == 1 else bundles + "-models"
        if _exported(world, bundles):
            continue
        config = world.config(world.folder / "data", world.folder / "none")
        path = world.folder / f"{bundles}.toml"
        text = config.read_text("utf-8").replace('path = "', 'path = "data/')
        told = training.replace("[train]\n", f'[train]\nfolder = "{folder}"\nseed = {seed}\n')
        path.write_text(text + "\n" + told, "utf-8")
        config.unlink()
        for kind in _kinds(world):
            subprocess.run([NIGHTREC, "fit", kind, "--config", path], check=True)
            _export(world, world.folder / folder / kind, bundles)
    if not _exported(world, "untrained"):
        for kind in _kinds(world):
            _forget(world.folder / "models" / kind, world.folder / "untrained-models" / kind)
            _export(world, world.folder / "untrained-models" / kind, "untrained")


def _kinds(world: World) -> list[str]:
    return ["mind", "bst"] if "ranker" in world.roles else ["mind"]


def _exported(world: World, bundles: str) -> bool:
    return all((world.folder / bundles / role / "bundle.json").exists() for role in world.roles)


def _export(world: World, checkpoint: Path, bundles: str) -> None:
    command = [NIGHTREC, "export", "--checkpoint", checkpoint, "--out", world.folder / bundles]
    subprocess.run(command, check=True)


def _forget(checkpoint: Path, folder: Path) -> None:
    """Write a checkpoint with noise of the same size in place of each weight."""
    from models.checkpoint import load_checkpoint, save_checkpoint

    rng, known = np.random.default_rng(1), load_checkpoint(checkpoint)
    noise = {
        name: (rng.normal(size=weight.shape) * weight.std()).astype(weight.dtype)
        if weight.dtype.kind == "f"
        else weight
        for name, weight in known.weights.items()
    }
    save_checkpoint(replace(known, weights=noise), folder)


def made_world(folder: Path) -> World:
    """Make a small shop with networks that know nothing, which needs no data of others: for the short form."""
    world = World(
        "made",
        folder,
        date(2026, 3, 15),
        date(2026, 3, 31),
        "country",
        """\
[night]
shards = 2
threads = 1
batch_users = 64
batch_items = 64
batch_lists = 32

[day]
min_share_of_median = 0

[index]
lists = 3
recall_k = 20
sample_users = 256

[retrieve]
candidates = 40

[score]
top_n = 20
""",
    )
    if not (folder / "data" / "users.parquet").exists():
        _write(world, *_made_tables())
    for seed, bundles in enumerate(("bundles", "retrained", "untrained"), start=1):
        if not _exported(world, bundles):
            _seeded(world, seed, bundles)
    return world


MADE_USERS, MADE_ITEMS = 600, 240


def _made_tables() -> tuple[pa.Table, pa.Table, pa.Table]:
    """Give interactions, items and users: six weeks in which people follow a taste by day, and not by night."""
    rng = np.random.default_rng(11)
    kinds, end = 8, int(datetime(2026, 4, 1, tzinfo=UTC).timestamp())
    counts = rng.integers(4, 40, MADE_USERS - 40)  # forty are known by their profile alone
    user = np.repeat(np.arange(len(counts)), counts)
    taste = rng.integers(0, kinds, MADE_USERS)[user]
    own = rng.integers(0, MADE_ITEMS // kinds, len(user)) * kinds + taste
    item = np.where(rng.random(len(user)) < 0.8, own, rng.integers(0, MADE_ITEMS, len(user)))
    hour = rng.choice(24, len(user), p=np.array([1] * 7 + [4] * 12 + [9] * 4 + [3]) / 94)
    seconds = end - 86_400 * rng.integers(1, 43, len(user)) + 3_600 * hour + rng.integers(0, 3_600, len(user))
    interactions = pa.table({"user_id": user, "item_id": item, "time": pa.array(seconds)})
    names = np.array([f"kind {number}" for number in range(kinds)])
    sizes = np.array([f"size {number}" for number in range(5)])
    numbers = np.arange(MADE_ITEMS)
    items = pa.table({"item_id": numbers, "kind": names[numbers % kinds], "size": rng.choice(sizes, MADE_ITEMS)})
    countries = rng.choice(["de", "fr", "it"], MADE_USERS, p=[0.5, 0.3, 0.2])
    return interactions, items, pa.table({"user_id": np.arange(MADE_USERS), "country": countries})


def _seeded(world: World, seed: int, bundles: str) -> None:
    import torch

    from artifacts.bundle import FeatureSpec
    from export.source import sources_from_checkpoint
    from export.write import export
    from features.vocabulary import fit_vocabulary
    from models.bst import Bst, BstConfig
    from models.checkpoint import checkpoint_of, save_checkpoint
    from models.mind import Mind, MindConfig

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    items, users = (pq.read_table(world.folder / "data" / f"{name}.parquet") for name in ("items", "users"))
    features = {"item_id": items, "kind": items, "size": items, "country": users}
    spec = FeatureSpec(("item_id", "kind", "size"), ("country",), history_length=10, gap_edges=(3_600, 86_400))
    known = {name: fit_vocabulary(name, table[name]) for name, table in features.items()}
    mind = MindConfig(width=16, interests=2, hidden=(16,), profile_width=4)
    bst = BstConfig(width=24, gap_width=4, heads=2, ffn_width=32, profile_width=4, mlp=(32, 16))
    for name, config, network in (("mind", mind, Mind(mind, spec, known)), ("bst", bst, Bst(bst, spec, known))):
        folder = world.folder / f"{bundles}-models" / name
        through = (world.first - timedelta(days=1)).isoformat()
        made = checkpoint_of(network, config=config, spec=spec, vocabularies=known, trained_through=through, about={})
        save_checkpoint(made, folder)
        export(sources_from_checkpoint(folder), world.folder / bundles)


WORLDS: dict[str, Callable[[Path], World | None]] = {
    "movielens": movielens_world,
    "retail": retail_world,
    "made": made_world,
}
