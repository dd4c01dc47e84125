"""``nightrec config``: what holds and whence, what is wrong, and what a key means."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nightrec.config_verbs import effective, mistakes_in


def test_show_gives_every_value_and_where_it_comes_from(surface: Path, command: Callable[..., Any]) -> None:
    """What the file says is marked with its name; all else is a default."""
    finished = command("config", "show", "--config", surface, "--json")

    keys = json.loads(finished.stdout)["keys"]
    assert keys["night.shards"] == {"value": 2, "from": "job.toml"}
    assert keys["night.workers"] == {"value": 1, "from": "default"}
    assert keys["inputs.users"] == {"value": None, "from": "default"}
    assert keys["inputs.items.path"]["value"] == str(surface.parent / "data/items.parquet")
    assert keys["gates.recall"]["value"] == {"bound": 0.9, "action": "fail", "against": "absolute"}
    assert "night.shards" in finished.stderr
    assert list(json.loads(command("config", "show", "shards", "--config", surface, "--json").stdout)["keys"]) == [
        "night.shards"
    ]


def test_show_has_the_networks_keys_where_they_are_trained(surface: Path) -> None:
    """A table of the networks is shown with the defaults that it does not change."""
    surface.write_text(surface.read_text() + '\n[train]\nuntil = "2026-03-01"\nmind = { width = 8 }\n')

    values = effective(surface)

    assert values["train.mind.width"] == (8, "job.toml")
    assert values["train.mind.power"] == (math.inf, "default")
    assert values["train.mind.interests"] == (4, "default")
    assert values["train.bst.ema_momentum"] == (0.99, "default")
    assert "train.mind" not in values


def test_machines_are_told_an_infinite_power_in_words(surface: Path, command: Callable[..., Any]) -> None:
    """JSON has no infinity: ``Infinity`` would be read by Python alone."""
    surface.write_text(surface.read_text() + '\n[train]\nuntil = "2026-03-01"\nmind = { power = inf }\n')

    finished = command("config", "show", "power", "--config", surface, "--json")

    assert "Infinity" not in finished.stdout
    assert json.loads(finished.stdout)["keys"]["train.mind.power"] == {"value": "inf", "from": "job.toml"}


def test_check_says_every_mistake_in_a_line_of_its_own(surface: Path, command: Callable[..., Any]) -> None:
    """One mistake hides no other; what could not be read at all comes alone."""
    good = surface.read_text()
    assert command("config", "check", "--config", surface).returncode == 0
    surface.write_text(good.replace("shards = 2", "shrads = 2\nworkers = 0"))

    finished = command("config", "check", "--config", surface, "--json")

    assert finished.returncode == 2
    assert json.loads(finished.stdout)["mistakes"] == [
        f"{surface}: [night] no key 'shrads' is known here; did you mean 'shards'?",
        f"{surface}: [night] workers: expected a number of at least 1, found 0",
    ]
    assert finished.stderr.count("nightrec: ") == 2


def test_check_reads_the_inputs_the_gates_and_the_networks(surface: Path) -> None:
    """Each table, each other table of the config, and the bundles are looked at by themselves."""
    good = surface.read_text()
    surface.write_text(
        good.replace("[inputs.items]", "[inputs.items]\nitem_id = 'itm'").replace("data/events", "data/evnts")
        + '\n[gates]\nchrun = 0.5\n[train]\nuntil = "2026-03-01"\nmind = { wdth = 8 }\n'
    )

    mistakes = list(mistakes_in(surface))

    assert [said.partition(": ")[2].partition(";")[0] for said in mistakes] == [
        "expected Parquet files, found none",
        "column itm of items is missing",
        "there is no such gate",
        "",
    ]
    assert mistakes[-1] == "[train.mind] no key 'wdth' is known here; did you mean 'width'?"
    surface.write_text(good)
    items = pq.read_table(surface.parent / "data/items.parquet")
    text = items.set_column(0, "item_id", items["item_id"].cast(pa.string()))
    pq.write_table(text, surface.parent / "data/items.parquet")
    (only,) = mistakes_in(surface)
    assert "item ids are" in only
    (surface.parent / "bundles/item/model.onnx").unlink()
    assert "model.onnx" in list(mistakes_in(surface))[-1]


def test_explain_answers_for_a_key_a_table_and_nothing(command: Callable[..., Any]) -> None:
    """A machine gets the same as people; a misspelt key ends with code 2 and the nearest."""
    (key,) = json.loads(command("config", "explain", "night.memory", "--json").stdout)["keys"]
    assert key["default"] == '"4GB"'
    assert key["meaning"] == "What DuckDB may hold before it spills to disk."
    assert len(json.loads(command("config", "explain", "day", "--json").stdout)["keys"]) == 4
    assert "night" in json.loads(command("config", "explain", "--json").stdout)["tables"]
    finished = command("config", "explain", "night.memry")
    assert (finished.returncode, finished.stderr) == (
        2,
        "nightrec: no key or table 'night.memry' is known; did you mean 'night.memory'?\n",
    )
