"""``nightrec fit``: what the networks are told, and that a checkpoint is fitted once."""

import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.bundle import FeatureSpec
from artifacts.errors import UsageError
from nightrec.config import read_config
from nightrec.fit import _asked, _told, networks_of, spec_of
from nightrec.main import execute

TRAIN = """
[train]
until = 2026-03-05
validate_days = 5
ranker_days = 10
history_length = 5
gap_edges_hours = [0.5, 24]
cross_features = ["retrieval_score"]
mind = { width = 8, epochs = 1, hidden = [8], interests = 2 }
bst = { width = 16, gap_width = 4, heads = 2, epochs = 1, mlp = [8], ffn_width = 8 }
"""


@pytest.fixture
def training(surface: Path) -> Path:
    """A surface with a table [train]."""
    surface.write_text(surface.read_text() + TRAIN)
    return surface


def test_the_spec_follows_from_inputs_and_train(training: Path) -> None:
    """Features are those of the inputs, the item's id first; gaps are told in hours and kept in seconds."""
    text = training.read_text().replace(
        "[bundles]", '[inputs.users]\npath = "users.parquet"\nfeatures = { country = "land" }\n[bundles]'
    )
    training.write_text(text.replace('title = "title"', 'features = { category = "class" }'))

    assert spec_of(read_config(training)) == FeatureSpec(
        item_features=("item_id", "category"),
        profile_features=("country",),
        history_length=5,
        gap_edges=(1800, 86_400),
        cross_features=("retrieval_score",),
    )


def test_without_a_table_train_nothing_is_fitted(surface: Path) -> None:
    """The message names the table and the key."""
    with pytest.raises(UsageError, match=r"\[train\] with the key until"):
        spec_of(read_config(surface))


def test_both_networks_are_fitted_once_with_the_same_vocabularies(training: Path, command: Any) -> None:
    """A second fit finds the first; another config or other inputs are refused, and nothing is overwritten."""
    models = training.parent / "models"
    for name in ("mind", "bst"):
        fitted = command("fit", name, "--config", training, "--json")
        assert fitted.returncode == 0, fitted.stderr
        assert json.loads(fitted.stdout)["trained_through"] == "2026-03-05"
        said = [line for line in fitted.stderr.splitlines() if line.startswith(f"nightrec: {name.upper()}")]
        assert said[0] == f"nightrec: {name.upper()}: reads the events through 2026-03-10"
        assert f"nightrec: {name.upper()}, epoch 1 of 1: loss " in said[-1]  # minutes of silence look like a hang
        assert ("nightrec: BST: finds its candidates, of the days through 2026-03-05" in said) == (name == "bst")
    weights = {path: path.read_bytes() for path in models.rglob("weights.npz")}
    words = [path.read_bytes() for path in sorted(models.rglob("item_id.arrow"))]

    again = command("fit", "mind", "--config", training, "--json")

    assert again.returncode == 0, again.stderr
    assert "fitted already" in again.stderr
    assert len(words) == 4  # the folder's own, and a copy in each of mind, retrieval and bst
    assert len(set(words)) == 1
    training.write_text(training.read_text().replace("epochs = 1", "epochs = 2"))
    changed = command("fit", "mind", "--config", training)
    assert changed.returncode == 2
    assert "was fitted from other [train]; move it away" in changed.stderr
    assert {path: path.read_bytes() for path in models.rglob("weights.npz")} == weights


def test_a_model_is_fitted_again_on_every_day(training: Path, command: Any) -> None:
    """With `refit` validation chooses the epochs, and the model that is exported has seen the validation days too."""
    text = training.read_text().replace("ranker_days", "refit = true\nranker_days")
    training.write_text(text.replace("mlp = [8]", "mlp = [8], in_sample = true"))
    models = training.parent / "models"

    for name in ("mind", "bst"):
        fitted = command("fit", name, "--config", training, "--json")

        assert fitted.returncode == 0, fitted.stderr
        assert json.loads(fitted.stdout)["trained_through"] == "2026-03-10"
        chosen = json.loads((models / f"{name}-chosen" / "model.json").read_text())
        worth = ", ".join(f"{key} {value:.4g}" for key, value in chosen["about"].items() if key.startswith("val_"))
        assert worth
        assert f"validation chose 1 epoch of {chosen['about']['epochs']} ({worth}); " in fitted.stderr
        assert chosen["trained_through"] == "2026-03-05"
    retrieved_through = json.loads((models / "bst" / "model.json").read_text())["about"]["retrieval_trained_through"]
    assert retrieved_through == "2026-03-10"


def test_in_sample_needs_the_nights_own_mind(training: Path, command: Any) -> None:
    """BST cannot learn from candidates of a model that is not fitted yet; the message says what to do."""
    training.write_text(training.read_text().replace("mlp = [8]", "mlp = [8], in_sample = true"))

    refused = command("fit", "bst", "--config", training)

    assert refused.returncode == 2
    assert "run `nightrec fit mind` first" in refused.stderr


def test_a_misspelt_option_of_a_network_is_named(training: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The networks' own keys are checked in the words of the rest of the config."""
    training.write_text(training.read_text().replace("epochs = 1", "epoks = 1"))

    assert execute(["fit", "mind", "--config", str(training)]) == 2

    assert "[train.mind] no key 'epoks' is known here; did you mean 'epochs'?" in capsys.readouterr().err


def test_the_unknown_are_not_in_the_vocabulary(training: Path) -> None:
    """An item without an event through `until`, or with `refit` through the last validation day, is not known."""
    events = pq.read_table(training.parent / "data" / "events.parquet")
    text = training.read_text()
    for refit, last in (("false", date(2026, 3, 5)), ("true", date(2026, 3, 10))):
        folder = training.parent / refit
        training.write_text(text.replace("validate_days", f'folder = "{refit}"\nrefit = {refit}\nvalidate_days'))
        folder.mkdir()
        past = [time.as_py().date() <= last for time in events["time"]]
        happened = sorted(set(events["item_id"].filter(pa.array(past)).to_pylist()))
        assert len(happened) < 30

        told = _told(read_config(training))

        assert told["vocabularies"]["item_id"].values.to_pylist() == happened


def test_weights_are_read_where_train_asks_for_them(training: Path) -> None:
    """The column alone changes nothing; asked for, every event has its own weight, and another fit is asked."""
    path = training.parent / "data" / "events.parquet"
    events = pq.read_table(path)
    pq.write_table(events.append_column("stars", pa.array([2.0] * len(events))), path)
    text = training.read_text().replace("[inputs.items]", 'weight = "stars"\n[inputs.items]')
    training.write_text(text)
    (training.parent / "models").mkdir()

    assert _told(read_config(training))["sequences"].weights is None
    plain = _asked(read_config(training), "mind")
    training.write_text(text.replace("[train]", "[train]\nsample_weight = true"))
    weights = _told(read_config(training))["sequences"].weights

    assert weights is not None
    assert set(weights.tolist()) == {2.0}
    assert _asked(read_config(training), "mind").items() ^ plain.items() == {
        ("[train]", digest) for digest in (plain["[train]"], _asked(read_config(training), "mind")["[train]"])
    }


def test_vocabularies_of_other_inputs_are_refused(training: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who moves the checkpoints away and forgets the vocabularies is told what they were fitted from."""
    (training.parent / "models").mkdir()
    _told(read_config(training))
    events = training.parent / "data" / "events.parquet"
    pq.write_table(pq.read_table(events).slice(1), events)
    training.write_text(training.read_text().replace("until = 2026-03-05", "until = 2026-03-04"))

    assert execute(["fit", "mind", "--config", str(training)]) == 2

    said = "models/vocabularies: was fitted from other inputs and [train] until, validate_days or refit; move it away"
    assert said in capsys.readouterr().err


def test_what_only_bst_is_told_makes_no_mind_stale(training: Path, command: Any) -> None:
    """An edit of [train.bst], or of the retrieval, costs a new BST alone; its MIND of earlier days is kept."""
    models = training.parent / "models"
    assert command("fit", "mind", "--config", training).returncode == 0
    assert command("fit", "bst", "--config", training).returncode == 0
    kept = {name: (models / name / "weights.npz").stat().st_mtime_ns for name in ("mind", "retrieval")}
    (models / "bst").rename(models / "bst-before")
    text = training.read_text().replace("heads = 2", "heads = 1")
    training.write_text(text.replace("[retrieve]", "[retrieve]\nexclude_days = 7"))

    for name in ("mind", "bst"):
        fitted = command("fit", name, "--config", training)
        assert fitted.returncode == 0, fitted.stderr

    assert {name: (models / name / "weights.npz").stat().st_mtime_ns for name in kept} == kept
    assert (models / "bst" / "weights.npz").exists()


def test_days_of_popularity_make_a_mind_stale_that_counts_them(training: Path) -> None:
    """A MIND whose loss counts recent events is one of these days; another does not depend on them."""
    text = training.read_text()
    days = "\n[history]\npopular_days = 7\n"
    asked = []
    for counts in (text, text.replace("mind = { ", "mind = { popularity_weight = 1.0, ")):
        for history in ("", days):
            training.write_text(counts + history)
            asked.append(_asked(read_config(training), "mind"))

    assert asked[0] == asked[1]
    assert {key for key, _ in asked[2].items() ^ asked[3].items()} == {"[history]"}
    assert asked[0]["[train]"] != asked[2]["[train]"]


def test_mind_is_asked_by_days_and_scored_as_served_or_as_it_is_told(training: Path) -> None:
    """The defaults of a fit are not those of every other loop; TOML's inf is a power."""
    text = training.read_text()
    for keys, expected in (("", (math.inf, "day", 12)), ('asks = "events", power = inf, ', (math.inf, "events", 12))):
        training.write_text(text.replace("mind = { ", "mind = { " + keys))
        train = read_config(training).train
        assert train is not None
        (config, options), _ = networks_of(train)
        assert (config.power, options.asks, options.targets) == expected


def test_in_sample_takes_no_mind_of_another_config(training: Path, command: Any) -> None:
    """BST learns from the candidates of the MIND that the config asks for, or says that there is another."""
    assert command("fit", "mind", "--config", training).returncode == 0
    text = training.read_text().replace("mlp = [8]", "mlp = [8], in_sample = true")
    training.write_text(text.replace("interests = 2", "interests = 3"))

    refused = command("fit", "bst", "--config", training)

    assert refused.returncode == 2
    assert "models/mind: was fitted from other [train]; move it away" in refused.stderr


def test_options_that_cannot_be_are_code_2(training: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A number that no fit can take is named before any data is read."""
    training.write_text(training.read_text().replace("epochs = 1", "epochs = 0", 1))

    assert execute(["fit", "mind", "--config", str(training)]) == 2

    assert "train.epochs: expected 1 or more, found 0" in capsys.readouterr().err


def test_fit_makes_both_networks_and_their_bundles_and_run_finds_the_day(
    training: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commands lead from a config to a release: everything that they need stands in it, and in the data."""
    text = training.read_text().replace('user = "bundles/user"', 'user = "made/user"\nranker = "made/ranker"')
    training.write_text(text.replace('"bundles/item"', '"made/item"'))
    monkeypatch.chdir(training.parent)

    assert execute(["fit", "--export", "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert [one["model"] for one in told["fitted"]] == ["mind", "bst"]
    assert [one["folder"] for one in told["bundles"]] == ["made/item", "made/user", "made/ranker"]
    assert execute(["run", "--json"]) == 0
    made = capsys.readouterr()
    assert "the data date is 2026-03-10, the newest whole day of the data" in made.err
    assert json.loads(made.out)["release"].startswith("2026-03-10-")


@pytest.mark.parametrize(
    ("bundles", "arguments", "said"),
    [
        ("", ["--export"], "--export needs a table [bundles]"),
        ('[bundles]\nitem = "a/item"\nuser = "b/user"\n', ["--export"], "[bundles] user: expected"),
        ('[bundles]\nitem = "a/item"\nuser = "a/user"\n', ["mind", "--export"], "leave the name of the one away"),
    ],
)
def test_bundles_that_cannot_be_made_are_refused_before_training(
    training: Path, capsys: pytest.CaptureFixture[str], bundles: str, arguments: list[str], said: str
) -> None:
    """Nobody waits for a network to learn that its bundle has no place."""
    before, _, after = training.read_text().partition('[bundles]\nitem = "bundles/item"\nuser = "bundles/user"\n')
    training.write_text(before + bundles + after)

    assert execute(["fit", *arguments, "--config", str(training)]) == 2

    assert said in capsys.readouterr().err
    assert not (training.parent / "models").exists()
