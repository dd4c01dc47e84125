"""Whole nights with recent popularity in retrieval: training, readers and the replay mean the same by it."""

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from artifacts.bundle import Bundle, read_bundle
from artifacts.errors import UsageError
from artifacts.run import Run, find_run, replay_of
from artifacts.tables import read_table
from batch.prepare import require_same_popularity
from examples.reader import load, search
from features.catalogue import encode_catalogue
from features.ordered import Engine
from features.sequences import read_sequences
from models.candidates import Night, retrieve
from models.checkpoint import build, load_checkpoint
from models.events import EventIndex
from models.examples import Examples
from nightrec.config import read_config
from nightrec.inputs import inputs_of
from tests.night.shop import DATE, Shop, run_nightrec

BEFORE = (date.fromisoformat(DATE) - timedelta(days=1)).isoformat()
WEIGHT, DAYS = 0.25, 20
PLAIN_READER = Path(__file__).parents[2] / "examples" / "plain_reader.py"


@dataclass(frozen=True)
class Popular:
    """Two nights in a row whose lists are all candidates: twenty, without rules."""

    config: Path
    run: Run
    earlier: Run

    def lists(self, run: Run) -> dict[int, list[dict]]:
        """The ranked rows of each user of *run*."""
        rows = defaultdict(list)
        for shard in range(run.shards):
            for row in read_table(run.layout.scores(shard, run.shards)).to_pylist():
                if row["score"] is not None:
                    rows[row["user_id"]].append(row)
        return rows


@pytest.fixture(scope="module")
def popular(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Popular:
    folder = tmp_path_factory.mktemp("popular")
    config = shop.config(folder)
    text = config.read_text().split("[score]")[0].replace("lists = 3", "lists = 1")
    text += f"popularity_weight = {WEIGHT}\n[history]\npopular_days = {DAYS}\n[score]\ntop_n = 20\n"
    config.write_text(text)
    for day in (BEFORE, DATE):
        finished = run_nightrec("run", "--config", config, "--date", day)
        assert finished.returncode == 0, finished.stderr
    store = folder / "store"
    return Popular(config, find_run(store, DATE), find_run(store, BEFORE))


def test_training_proposes_the_nights_candidates(popular: Popular, shop: Shop, tmp_path: Path) -> None:
    """Asked at the end of the data date, the checkpoint gives each user the night's items with the night's scores."""
    config, checkpoint = read_config(popular.config), load_checkpoint(shop.folder / "models" / "mind")
    inputs = inputs_of(config)
    catalogue, _ = encode_catalogue(inputs, spec=checkpoint.spec, vocabularies=checkpoint.vocabularies)
    sequences = read_sequences(
        inputs,
        catalogue=catalogue,
        spec=checkpoint.spec,
        vocabularies=checkpoint.vocabularies,
        until=date.fromisoformat(DATE),
        zone="Europe/Berlin",
        engine=Engine(tmp_path),
    )
    users = np.flatnonzero(np.diff(sequences.starts))
    now = np.full(len(users), popular.run.now * 1_000_000)
    nothing = np.zeros((len(users), 1))
    examples = Examples(users, now, sequences.starts[users + 1], nothing.astype(int), nothing.astype(np.float32))
    index = EventIndex(sequences, zone="Europe/Berlin", until_us=int(now[0]))
    night = Night(candidates=20, popular_days=DAYS, popularity_weight=WEIGHT)

    found = retrieve(sequences, examples, index, mind=build(checkpoint), night=night, batch=97)

    lists = popular.lists(popular.run)
    ids = catalogue["item_id"].to_pylist()
    assert len(lists) > 350
    assert sequences.user_ids.take(pa.array(users)).to_pylist() == sorted(lists)
    for row, user in enumerate(sorted(lists)):
        of_night = {one["item_id"]: one["retrieval_score"] for one in lists[user]}
        of_training = dict(zip([ids[item] for item in found.items[row]], found.scores[row].tolist(), strict=True))
        assert of_night == pytest.approx(of_training, abs=1e-4)


def test_the_replay_is_the_night_before(popular: Popular) -> None:
    """Its users get the lists of that night, whose popularity did not know the day that was to come."""
    replayed, before, after = (popular.lists(run) for run in (replay_of(popular.run), popular.earlier, popular.run))

    known = replayed.keys() & before.keys()
    assert len(known) > 20
    assert {user: replayed[user] for user in known} == {user: before[user] for user in known}
    assert any(before[user] != after[user] for user in known)
    figures = json.loads(popular.run.layout.record.gates.read_text())["figures"]
    assert figures["replay_churn"] == 0


def test_readers_find_the_nights_scores(popular: Popular) -> None:
    """What stands in ``index.json`` is appended: both examples search the release to the scores of its tables."""
    store, lists = popular.config.parent / "store", popular.lists(popular.run)
    user = max(lists, key=lambda user: len({row["interest"] for row in lists[user]}))
    rows = {row["item_id"]: row for row in lists[user]}
    shards = [
        read_table(popular.run.layout.interests(shard, popular.run.shards)) for shard in range(popular.run.shards)
    ]
    (vectors,) = (row["vectors"] for row in pa.concat_tables(shards).to_pylist() if row["user_id"] == user)
    command = [sys.executable, PLAIN_READER, store, str(user)]
    plain = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[1:]
    loaded, compared = load(store), 0

    assert len(vectors) == len(plain) > 1
    for interest, (vector, line) in enumerate(zip(vectors, plain, strict=True)):
        found = search(loaded, np.array(vector, np.float32), 5)
        assert json.loads(line) == [[item, float(score)] for item, score in found]
        for item, score in found:
            if item in rows and rows[item]["interest"] == interest:
                assert rows[item]["retrieval_score"] == pytest.approx(score, abs=1e-5)
                compared += 1
    assert compared > 3


def test_why_tells_what_popularity_added(popular: Popular, tmp_path: Path) -> None:
    """Its share is weight * log(1 + events), in the table's exact score; without the run it says that there is one."""
    run = popular.run
    events = {row["item_id"]: row["events"] for row in read_table(run.layout.popular).to_pylist()}
    user, rows = next((user, rows) for user, rows in popular.lists(run).items() if rows)
    row = next(row for row in rows if row["item_id"] in events)

    finished = run_nightrec("why", user, row["item_id"], "--config", popular.config, "--json")

    assert finished.returncode == 0, finished.stderr
    told = json.loads(finished.stdout)
    assert told["same"]
    assert told["retrieval"]["exact"] == row["retrieval_score"]
    assert told["retrieval"]["stored"] == pytest.approx(row["retrieval_score"], abs=1e-5)
    assert told["retrieval"]["popularity"] == pytest.approx(WEIGHT * np.log1p(events[row["item_id"]]), rel=1e-6)
    assert "of it for recent popularity" in finished.stderr
    alone = shutil.copytree(popular.config.parent, tmp_path / "alone")
    shutil.rmtree(alone / "store" / "runs")
    finished = run_nightrec("why", user, row["item_id"], "--config", alone / "job.toml")
    assert finished.returncode == 0, finished.stderr
    assert "the night added what its recent popularity was" in " ".join(finished.stderr.split())


def test_the_release_is_whole_and_says_how_it_is_searched(popular: Popular) -> None:
    """It verifies; the index is wider than the tables, and the weight is part of what the run is named by."""
    verified = run_nightrec("releases", "verify", "--config", popular.config)
    assert verified.returncode == 0, verified.stderr

    said = json.loads(popular.run.layout.index.parameters.read_text())
    assert (said["width"], said["append"]) == (20, [WEIGHT, 0, 0, 0])
    assert read_table(popular.run.layout.items(0, 2))["vector"].type.list_size == 16
    assert popular.run.semantic["retrieve"]["popularity_weight"] == WEIGHT


def test_a_ranker_that_was_fitted_by_another_weight_is_refused(shop: Shop) -> None:
    """Its retrieval_score would be of another scale than it learnt; who made a foreign ranker says nothing of it."""
    ranker = read_bundle(shop.folder / "bundles" / "ranker")

    def fitted(about: dict) -> Bundle:
        return replace(ranker, about=about)

    require_same_popularity([fitted({"model": {"night": {"popularity_weight": 0.5}}})], 0.5)
    require_same_popularity([fitted({"model": {"night": {"candidates": 100}}})], 0.0)  # before there was a weight
    require_same_popularity([fitted({})], 0.5)
    with pytest.raises(UsageError, match=r"popularity_weight: expected 0\.5, .* found 0\.0;"):
        require_same_popularity([fitted({"model": {"night": {"popularity_weight": 0.5}}})], 0.0)
    with pytest.raises(UsageError, match=r"expected 0\.0, .* found 0\.5;"):
        require_same_popularity([fitted({"model": {"night": {"candidates": 100}}})], 0.5)
