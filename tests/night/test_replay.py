"""The replay within whole nights: what tonight's models say of people as they stood a day before."""

import json
from datetime import date, timedelta
from pathlib import Path

from artifacts.run import find_run, replay_of
from artifacts.tables import read_table
from tests.night.shop import DATE, Shop, run_nightrec


def test_the_same_models_say_the_same_of_yesterday(shop: Shop, tmp_path: Path) -> None:
    """The lists of the replay are those of the night before, though people have moved on since."""
    before = (date.fromisoformat(DATE) - timedelta(days=1)).isoformat()
    config = shop.config(tmp_path)
    for day in (before, DATE):
        finished = run_nightrec("run", "--config", config, "--date", day)
        assert finished.returncode == 0, finished.stderr

    old, new = (find_run(tmp_path / "store", day) for day in (before, DATE))
    figures = json.loads(new.layout.record.gates.read_text())["figures"]
    assert figures["replay_churn"] == 0
    assert figures["churn"] > 0
    lists = [read_table(old.layout.scores(shard, old.shards)).to_pylist() for shard in range(old.shards)]
    was = {(row["user_id"], row["rank"]): row for rows in lists for row in rows}
    replayed = read_table(replay_of(new).layout.scores(0, 1)).to_pylist()
    assert len({row["user_id"] for row in replayed}) > 20
    assert [row for row in replayed if row["user_id"] in {user for user, _ in was}] == [
        was[row["user_id"], row["rank"]] for row in replayed if row["user_id"] in {user for user, _ in was}
    ]
