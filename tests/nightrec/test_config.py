"""The config: what is read, what is refused, and in which words."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from artifacts import schemas
from artifacts.bundle import OPTIONAL_OUTPUTS, OUTPUT_NAMES, FeatureSpec, Role, input_names
from artifacts.contract import CROSS_FEATURES
from artifacts.errors import UsageError
from nightrec.config import Config, read_config, semantic
from nightrec.tables import Exclusion, Histories, Interactions, Items, Users
from nightrec.values import RESERVED, RESERVED_PREFIXES

PLAIN = """
[surface]
name = "shop"
root = "store"

[inputs.interactions]
path = "events.parquet"

[inputs.items]
path = "https://bucket/items.parquet"
features = { category = "class" }

[bundles]
item = "bundles/item"
user = "bundles/user"

[train]
until = "2026-11-20"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "job.toml"
    path.write_text(text)
    return path


def test_a_short_config_is_filled_with_the_documented_defaults(tmp_path: Path) -> None:
    """What is not said is what the models declare."""
    config = read_config(write(tmp_path, PLAIN))

    assert config.night.shards == 1
    assert config.score.top_n == 50
    assert config.inputs.interactions is not None
    assert config.inputs.interactions.user_id == "user_id"
    assert config.train is not None
    assert config.train.until.isoformat() == "2026-11-20"
    assert config.train.cross_features == CROSS_FEATURES


def test_segments_are_features_of_the_users(tmp_path: Path) -> None:
    """A column by which nobody can be told apart is named, with the nearest that there is."""
    users = '[inputs.users]\npath = "u.parquet"\nfeatures = { country = "land" }\n'
    config = read_config(write(tmp_path, PLAIN + users + '[segments]\ncolumns = ["country"]\n'))
    assert (config.segments.columns, config.segments.min_users) == (("country",), 100)
    with pytest.raises(UsageError, match=r"segments\.columns, found 'county'; did you mean 'country'"):
        read_config(write(tmp_path, PLAIN + users + '[segments]\ncolumns = ["county"]\n'))


def test_relative_paths_are_relative_to_the_config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder does not matter, and the URL of an object store stays as it is."""
    monkeypatch.chdir("/")

    config = read_config(write(tmp_path, PLAIN))

    assert config.root == tmp_path / "store"
    assert config.inputs.interactions is not None
    assert config.inputs.interactions.path == str(tmp_path / "events.parquet")
    assert config.inputs.items.path == "https://bucket/items.parquet"
    assert config.train is not None
    assert config.train.folder == str(tmp_path / "models")


def test_a_config_does_not_change(tmp_path: Path) -> None:
    """Tables are frozen."""
    config = read_config(write(tmp_path, PLAIN))

    with pytest.raises(ValueError, match="frozen"):
        config.night.shards = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[surface]", "[surfce]", "no key 'surfce' is known here; did you mean 'surface'?"),
        ("name =", "nmae =", "[surface] no key 'nmae' is known here; did you mean 'name'?"),
        ('root = "store"', "", "[surface] the key 'root' is missing"),
        ('name = "shop"', "name = 3", "[surface] name: expected text, found 3"),
        ('name = "shop"', "name = true", "[surface] name: expected text, found true"),
        ('root = "store"', 'root = ""', "[surface] root: expected text that is not empty, found the text ''"),
        ("[train]", "[night]\nshards = '4'\n[train]", "[night] shards: expected a whole number, found the text '4'"),
        ("[train]", "[night]\nshards = true\n[train]", "[night] shards: expected a whole number, found true"),
        ("[train]", "[night]\nshards = 2.0\n[train]", "[night] shards: expected a whole number, found 2.0"),
        ("[train]", "[night]\nshards = 0\n[train]", "[night] shards: expected a number of at least 1, found 0"),
        ("[train]", "[night]\nworkers = [1]\n[train]", "[night] workers: expected a whole number, found a list"),
        ("[train]", "[night]\nmemory = 'lots'\n[train]", "[night] memory: expected a size such as '4GB' or '512MiB'"),
        (
            "[train]",
            "[night]\ndevice = 'gpuu'\n[train]",
            "[night] device: expected 'cpu', 'gpu' or 'auto', found the text 'gpuu'; did you mean 'gpu'?",
        ),
        ("[train]", "[index]\nrecall_target = 2\n[train]", "recall_target: expected a number of at most 1, found 2"),
        ("[train]", "[index]\nrecall_target = '1'\n[train]", "recall_target: expected a number, found the text '1'"),
        (
            "[train]",
            "[retrieve]\npopularity_weight = 1e-38\n[train]",
            "popularity_weight: expected 0, or a number of at least 0.000001, found 1e-38",
        ),
        ("[train]", "[retrieve]\noverfetch = inf\n[train]", "overfetch: expected a finite number, found inf"),
        (
            'root = "store"',
            'root = "store"\ntimezone = "Europe/Berln"',
            "found the text 'Europe/Berln'; did you mean 'Europe/Berlin'?",
        ),
        ("2026-11-20", "2026-13-20", "[train] until: expected a day as YYYY-MM-DD, found the text '2026-13-20'"),
        ('"2026-11-20"', "20", "[train] until: expected a day as YYYY-MM-DD, found 20"),
        (
            "[train]",
            "[train]\ngap_edges_hours = [2, 1]",
            "[train] expected ascending numbers in gap_edges_hours",
        ),
        (
            "[train]",
            "[score]\nrules = [{ group = 'categry', at_most = 3 }]\n[train]",
            "expected a feature or group of [inputs.items] in score.rules, found 'categry'; did you mean 'category'?",
        ),
        (
            "[train]",
            "[score]\nrules = [{ group = 'category', at_mst = 3 }]\n[train]",
            "[score.rules.0] no key 'at_mst' is known here; did you mean 'at_most'?",
        ),
        ("[train]", "[score]\ntop_n = 200\n[train]", "score.top_n of at most retrieve.candidates = 100, found 200"),
        ("[inputs.interactions]\n", "[inputs.histories]\n[inputs.interactions]\n", "[inputs.histories] the key 'path'"),
        (
            '[inputs.interactions]\npath = "events.parquet"',
            "",
            "[inputs] expected one of the tables 'interactions' and 'histories', and not both",
        ),
        ("category =", "title =", "[inputs.items.features] title: expected a feature's name"),
        ("category =", "gap =", "[inputs.items.features] gap: expected a feature's name"),
        ("category =", "time_unit =", "[inputs.items.features] time_unit: expected a feature's name"),
        ("category =", "history_item_id =", "[inputs.items.features] history_item_id: expected a feature's name"),
        (
            "[bundles]",
            "groups = { group_brand = 'b' }\n[bundles]",
            "group_brand: expected a feature's name that begins",
        ),
        (
            "[bundles]",
            "[inputs.users]\npath = 'users.parquet'\nfeatures = { category = 'land' }\n[bundles]",
            "once in [inputs.items.features] and [inputs.users.features], found 'category' in both",
        ),
        ("category =", "Category =", "[inputs.items.features] Category: expected a name of lower-case letters"),
        ("[bundles]", "[[bundles]]", "bundles: expected a table, found a list"),
        ("[train]", "[train", "expected TOML; "),
        ("[train]", "[surface]\n[train]", "expected TOML; "),
    ],
)
def test_a_mistake_is_one_line_that_names_key_expected_and_found(tmp_path: Path, old: str, new: str, said: str) -> None:
    """Each wrong config is refused in a line that begins with the file and says what to do."""
    assert old in PLAIN
    path = write(tmp_path, PLAIN.replace(old, new, 1))

    with pytest.raises(UsageError) as refused:
        read_config(path)

    message = str(refused.value)
    assert said in message
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


def test_no_feature_is_called_as_a_column_of_ours() -> None:
    """Every column of the inputs and of our tables, and every input and output of a graph, is reserved."""
    spec = FeatureSpec(("item_id",), ("x",), history_length=1, gap_edges=(1,), cross_features=CROSS_FEATURES)
    kind = pa.int64()
    tables = [
        schemas.vocabulary(kind),
        schemas.catalogue(kind, ["item_id"], ["x"]),
        schemas.histories(kind, ["item_id"], ["x"]),
        *(schemas.seen(kind), schemas.popular(kind), schemas.index_items(kind)),
        *(schemas.items(kind, 4), schemas.interests(kind, 4), schemas.scores(kind, kind)),
    ]
    names = {name for table in tables for name in table.names} | set(CROSS_FEATURES)
    names |= {name for role in Role for name in (*input_names(role, spec), *OUTPUT_NAMES[role])}
    names |= {name for role in Role for name in OPTIONAL_OUTPUTS[role]}
    for table in (Interactions, Histories, Users, Items, Exclusion):
        names |= set(table.model_fields) - {"path", "naive_zone", "features", "groups"}

    assert {name for name in names if not name.startswith(RESERVED_PREFIXES)} - RESERVED == set()


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    """The message names the file that was looked for."""
    with pytest.raises(UsageError, match=r"none\.toml: the config cannot be read"):
        read_config(tmp_path / "none.toml")


def test_a_config_that_is_not_text_is_named(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are a mistake in the file, not a traceback."""
    path = tmp_path / "job.toml"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(UsageError, match="expected TOML"):
        read_config(path)


def changed(config: Config, table: str, **keys: Any) -> Config:
    return config.model_copy(update={table: getattr(config, table).model_copy(update=keys)})


def test_the_semantic_part_knows_no_paths_and_no_means(tmp_path: Path) -> None:
    """Where things lie, how many processes do it and on what does not name another run."""
    config = read_config(write(tmp_path, PLAIN))
    moved = read_config(
        write(tmp_path, PLAIN.replace("store", "elsewhere").replace("events.parquet", "other/*.parquet"))
    )
    cheaper = changed(config, "night", workers=2, threads=1, memory="1GB", device="auto", batch_users=8)

    assert semantic(moved) == semantic(config)
    assert semantic(cheaper) == semantic(config)
    assert str(tmp_path) not in str(semantic(config))


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        ("surface", {"timezone": "Europe/Berlin"}),
        ("night", {"shards": 2}),
        ("night", {"item_shards": 2}),
        ("history", {"popular_days": 7}),
        ("index", {"seed": 2}),
        ("retrieve", {"candidates": 99}),
        ("retrieve", {"popularity_weight": 0.5}),
        ("score", {"top_n": 49}),
    ],
)
def test_the_semantic_part_holds_what_changes_the_content(tmp_path: Path, table: str, keys: dict[str, Any]) -> None:
    """A key that the content depends on names another run."""
    config = read_config(write(tmp_path, PLAIN))

    assert semantic(changed(config, table, **keys)) != semantic(config)


def test_a_night_without_popularity_in_retrieval_is_named_as_before_there_was_any(tmp_path: Path) -> None:
    """The weight 0 is no part of a run's key: what was made before the key was there is found again."""
    config = read_config(write(tmp_path, PLAIN))

    assert "popularity_weight" not in semantic(config)["retrieve"]
    assert semantic(changed(config, "retrieve", popularity_weight=0.0)) == semantic(config)
