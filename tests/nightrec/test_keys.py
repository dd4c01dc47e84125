"""The keys of the config: each is explained, from the one place that declares it."""

from dataclasses import fields

import pytest

from artifacts.errors import UsageError
from models.fit import FitOptions
from models.mind import MindConfig
from nightrec.config import Config
from nightrec.keys import Key, find_keys, known_keys, network_keys, tables, toml_of
from release.gates import GATES


def test_every_key_says_what_it_means_and_is_there_once() -> None:
    """A key without a description would be a hole in `explain` and in the reference."""
    keys = known_keys() + network_keys()

    assert [key.path for key in keys if not key.meaning] == []
    assert len({key.path for key in keys}) == len(keys)
    assert {key.path for key in keys if key.path.count(".") == 1} >= {"surface.root", "night.shards", "train.until"}
    assert {f"gates.{gate.name}" for gate in GATES} <= {key.path for key in keys}
    names = {field.name for one in (MindConfig, FitOptions) for field in fields(one)}
    assert {key.path for key in keys if key.path.startswith("train.mind.")} == {f"train.mind.{name}" for name in names}


@pytest.mark.parametrize(
    "key",
    [
        Key(
            "night.shards",
            "whole number",
            "1",
            "at least 1, at most 99,999",
            "Into how many files the users are split, by a hash of their id.",
        ),
        Key("index.recall_target", "number", "0.95", "above 0, at most 1", ""),
        Key("night.device", '"cpu" or "gpu" or "auto"', '"cpu"', "", ""),
        Key("surface.root", "path, or address of an object store", "required", "", ""),
        Key("inputs.users.features", "table", "{}", "", ""),
        Key("train.until", "day as YYYY-MM-DD", "required", "", ""),
        Key("score.rules[].at_most", "whole number", "required", "at least 1, at most 65,535", ""),
        Key("day.min_share_of_median", "number", "0.5", "at least 0", ""),
        Key("inputs.interactions.time_unit", '"s" or "ms" or "us"', "not set", "", ""),
    ],
    ids=lambda key: key.path,
)
def test_a_key_has_its_type_default_and_bounds_in_words(key: Key) -> None:
    """What is read is what is checked."""
    (found,) = find_keys(key.path, known_keys())

    assert (found.kind, found.default, found.bounds) == (key.kind, key.default, key.bounds)
    assert key.meaning in found.meaning


def test_a_key_is_found_by_its_path_its_last_part_or_its_table() -> None:
    """People write what they remember of it."""
    keys = known_keys()

    assert [key.path for key in find_keys("shards", keys)] == ["night.shards"]
    assert [key.path for key in find_keys("[night] shards", keys)] == ["night.shards"]
    assert [key.path for key in find_keys("history", keys)] == ["history.popular_days"]
    assert [key.path for key in find_keys("seed", keys)] == ["index.seed", "train.seed"]
    assert [key.path for key in find_keys("score.rules", keys)] == [
        "score.rules",
        "score.rules[].group",
        "score.rules[].at_most",
    ]


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("nigth.shards", "night.shards"), ("shrads", "shards"), ("retrive", "retrieve")],
)
def test_a_misspelt_key_is_answered_with_the_nearest(asked: str, meant: str) -> None:
    """The message has what was probably meant."""
    with pytest.raises(UsageError, match=f"no key or table '{asked}' is known; did you mean '{meant}'"):
        find_keys(asked, known_keys())


def test_every_table_says_what_it_is_for() -> None:
    """A table is a docstring too, and each field of the whole file is one or a key."""
    said = tables()

    assert all(said.values())
    assert set(Config.model_fields) - {"gates"} <= set(said)


def test_values_are_written_as_toml() -> None:
    """Quotes and odd names are escaped, so that what is shown can be pasted."""
    assert toml_of({"a": [1, 2.5], "b c": 'x"\\', "d": True}) == '{ a = [1, 2.5], "b c" = "x\\"\\\\", d = true }'
