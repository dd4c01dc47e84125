"""Nights in a row, with what is unchanged kept and with everything computed: every file has the same bytes."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from artifacts.run import find_run
from tests.night.shop import ITEMS, Shop, run_nightrec

DATES = ("2026-03-29", "2026-03-30", "2026-03-31")
LEFT = "item-0001"  # leaves the catalogue before the last night, so that the index is built anew


def nights(shop: Shop, folder: Path, *lines: str) -> list[dict[str, Any]]:
    """Run a night of each date into ``folder/store``; *lines* go into the config's table ``[night]``."""
    items = folder / "items.parquet"
    config = shop.config(folder, tables={"items": items})
    config.write_text(config.read_text().replace("[night]\n", "\n".join(["[night]", *lines, ""])))
    said = []
    for date in DATES:
        catalogue = pq.read_table(shop.data / "items.parquet")
        if date == DATES[-1]:
            catalogue = catalogue.filter([item != LEFT for item in catalogue["item_id"].to_pylist()])
        pq.write_table(catalogue, items)
        finished = run_nightrec("run", "--config", config, "--date", date, "--json")
        assert finished.returncode == 0, finished.stderr
        said.append(json.loads(finished.stdout))
    return said


def counts(night: dict[str, Any], step: str) -> dict[str, int]:
    return next(done["counts"] for done in night["steps"] if done["step"] == step)


def content(store: Path) -> dict[str, bytes]:
    """Every file of the runs and releases but timings, and what stands in the record about them."""
    files = [path for folder in ("runs", "releases") for path in (store / folder).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in files
        if "record" not in path.parts and path.name != "timings.json" and path.suffix != ".lock"
    }


@pytest.fixture(scope="module")
def kept(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Nights as they are by default; tests leave them as they are."""
    folder = tmp_path_factory.mktemp("kept")
    return folder, nights(shop, folder)


def test_nights_in_a_row_have_the_bytes_of_full_nights(shop: Shop, tmp_path: Path, kept) -> None:
    """Histories moved on by a day, an item gone: runs and releases equal those of nights that keep nothing."""
    folder, incremental = kept

    full = nights(shop, tmp_path, "keep_unchanged = false")

    assert content(folder / "store") == content(tmp_path / "store")
    assert [night["release"] for night in incremental] == [night["release"] for night in full]
    assert all(counts(night, "interests")["kept"] == 0 for night in full)
    assert not any("carried" in counts(night, "prepare") for night in [*full, incremental[0]])
    for before, night in pairwise(incremental):  # one file that holds the later days too
        assert counts(night, "prepare")["carried"] == counts(before, "prepare")["interactions"]
    assert counts(incremental[0], "interests")["kept"] == 0
    for night in incremental[1:]:
        assert night["steps"][3]["rows"] / 2 < counts(night, "interests")["kept"] < night["steps"][3]["rows"]
    assert [counts(night, "items")["kept"] for night in incremental] == [0, ITEMS - 1, ITEMS - 2]  # one is excluded
    assert ["kept_lists" in counts(night, "index") for night in incremental] == [False, True, False]


def test_a_second_run_of_a_date_keeps_all_users(shop: Shop, tmp_path: Path, kept) -> None:
    """Another length of the lists makes another run, of users who were told the same: none is computed again."""
    folder = tmp_path / "again"
    shutil.copytree(kept[0], folder)
    config = folder / "job.toml"
    config.write_text(config.read_text().replace(str(kept[0]), str(folder)).replace("top_n = 10", "top_n = 9"))
    before = find_run(folder / "store", DATES[-1])

    for verb in ("prepare", "items", "index", "interests"):
        finished = run_nightrec(verb, "--config", config, "--date", DATES[-1], "--json")
        assert finished.returncode == 0, finished.stderr

    after, said = find_run(folder / "store", DATES[-1]), json.loads(finished.stdout)
    assert after.run_key != before.run_key
    assert counts(said, "interests")["kept"] == said["steps"][0]["rows"] > 0


def test_the_plan_says_what_the_last_night_kept(shop: Shop, tmp_path: Path, kept) -> None:
    """Minutes are planned for a night that keeps nothing, so the share that was kept is told beside them."""
    folder, said = kept
    users = said[-1]["steps"][3]["rows"]

    planned = run_nightrec("plan", "--config", folder / "job.toml", "--json")
    new = run_nightrec("plan", "--config", shop.config(tmp_path), "--json")

    share = counts(said[-1], "interests")["kept"] / users
    assert json.loads(planned.stdout)["kept_lately"] == {"date": DATES[-1], "share": share}
    assert f"The night of {DATES[-1]} kept the vectors of {share:.0%}" in " ".join(planned.stderr.split())
    assert json.loads(new.stdout)["kept_lately"] is None
