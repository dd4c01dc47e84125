"""``nightrec run --profile``: where the time of each step went, beside the content and never in it."""

import json
from pathlib import Path

from artifacts.documents import read_sealed
from artifacts.run import find_run
from batch.stages import NAMES
from tests.night.shop import DATE, Shop, content_of, only_release, run_nightrec

STAGES = {  # of each step that has some, by what it does; waiting is luck
    "prepare": {"read", "encode", "write"},
    "items": {"read", "run", "merge", "write"},
    "index": {"read", "run", "encode", "build", "search", "write"},
    "interests": {"read", "encode", "run", "merge", "write"},
    "score": {"read", "encode", "run", "search", "merge", "write"},
}


def test_a_profile_names_the_stages_of_each_step_and_changes_no_byte(shop: Shop, plain: Path, tmp_path: Path) -> None:
    """People get a table, machines an object, the run's timings the same; the release is that of any other night."""
    config = shop.config(tmp_path, workers=2)

    finished = run_nightrec("run", "--config", config, "--date", DATE, "--profile", "--json")

    assert finished.returncode == 0, finished.stderr
    night = json.loads(finished.stdout)
    assert list(night["profile"]) == ["prepare", "items", "index", "interests", "score", "check", "publish"]
    for step, profile in night["profile"].items():
        assert set(profile["stages"]) - {"wait"} == STAGES.get(step, set()), step
        assert set(profile["stages"]) <= set(NAMES)
        assert profile["memory"] > 1e6, step
        assert profile["seconds"] > 0, step
    assert night["profile"]["interests"]["rows_a_second"] > 0
    assert "Where the time went" in finished.stderr
    timings = read_sealed(find_run(tmp_path / "store", DATE).layout.timings, version=1)
    assert timings["score"][0]["stages"] == night["profile"]["score"]["stages"]
    assert content_of(only_release(tmp_path / "store")) == content_of(only_release(plain / "store"))


def test_without_it_nothing_is_said_of_stages(shop: Shop, plain: Path) -> None:
    """A scheduler keeps what a step says, so it stays short."""
    finished = run_nightrec("run", "--config", plain / "job.toml", "--date", DATE, "--json")

    night = json.loads(finished.stdout)
    assert "profile" not in night
    assert not any("stages" in step or "memory" in step for step in night["steps"])
    assert "Where the time went" not in finished.stderr
