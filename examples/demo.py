"""The whole chain on MovieLens-100K: data, fit, export, one night, one release, and what it is worth.

Everything goes through the ``nightrec`` command, as a team would use it, and lies under ``build/demo/``. What is done
is not done again.
"""

import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from examples import movielens, quality

FOLDER = Path("build/demo")
CONFIG = FOLDER / "job.toml"
NIGHTREC = Path(sys.executable).with_name("nightrec")
DATE = movielens.LAST_DAY.isoformat()
VALIDATE_DAYS = 14
TRAINED_THROUGH = movielens.LAST_DAY - timedelta(days=VALIDATE_DAYS)

JOB = f"""\
# One surface of one shop. Paths are relative to this file; nightrec/tables.py explains every key.
[surface]
name = "movielens"
root = "store"
timezone = "UTC"

[inputs.interactions]
path = "data/interactions.parquet"
user_id = "user_id"
item_id = "item_id"
time = "time"

[inputs.items]
path = "data/items.parquet"
item_id = "item_id"
title = "title"
features = {{ genre = "genre", decade = "decade" }}

[inputs.users]
path = "data/users.parquet"
user_id = "user_id"
features = {{ age = "age", gender = "gender", occupation = "occupation" }}

[bundles]
item = "bundles/item"
user = "bundles/user"
ranker = "bundles/ranker"

[night]
shards = 4
workers = 1

[history]
popular_days = 30

[retrieve]
candidates = 100
exclude_seen = "all"
popularity_weight = 1.0

[score]
top_n = 100

[train]
folder = "models"
until = {TRAINED_THROUGH}
validate_days = {VALIDATE_DAYS}
refit = true
history_length = 50
gap_edges_hours = [0.02, 0.1, 0.5, 2, 24, 168, 720, 2160]
cross_features = ["retrieval_score", "popularity"]
seed = 1

# Few people and few days: two interests, softer cosines, and a ranker that learns from all days.
[train.mind]
interests = 2
power = 1.0
temperature = 0.2

[train.bst]
mlp = [256, 128]
in_sample = true
"""


def main() -> None:
    """Run what is missing, then show the release, three people and the quality table."""
    started = time.monotonic()
    console = Console()
    make_bundles()
    config = ("--config", str(CONFIG))
    _nightrec("run", *config, "--date", DATE)
    _nightrec("releases", "show", *config)

    quality.show(console, CONFIG)
    seconds = time.monotonic() - started
    console.print(
        f"\nDone in {seconds:.0f} s. Ask on:\n  .venv/bin/nightrec recommend 1 --config {CONFIG}", soft_wrap=True
    )


def make_bundles() -> None:
    """Make what a night of the demo needs: the data, the config, and the bundles of models that are fitted to it."""
    movielens.fetch(FOLDER / "data")
    if not CONFIG.exists():  # whoever edited it keeps it
        CONFIG.write_text(JOB, "utf-8")

    config = ("--config", str(CONFIG))
    for kind, bundle in (("mind", "user"), ("bst", "ranker")):
        checkpoint, contract = FOLDER / "models" / kind, FOLDER / "bundles" / bundle / "bundle.json"
        _nightrec("fit", kind, *config)
        if contract.exists() and contract.stat().st_mtime > (checkpoint / "model.json").stat().st_mtime:
            Console().print(f"nightrec: {contract.parent} is newer than {checkpoint}; nothing to do", soft_wrap=True)
        else:
            _nightrec("export", "--checkpoint", str(checkpoint), "--out", str(FOLDER / "bundles"))
            contract.touch()  # an equal bundle is left as it was


def _nightrec(*arguments: str) -> None:
    finished = subprocess.run([NIGHTREC, *arguments], check=False)
    if finished.returncode:
        raise SystemExit(finished.returncode)


if __name__ == "__main__":
    main()
