"""Why an item is recommended or not: every reason, held against a night of a dozen items worked out by hand.

The vectors of the items and of two interests, as the models below make them of the clicks of user 1:

* clicks, newest first: item 1 an hour before the day's end, item 2 two days and three days before it
* interest 0 = 1.0 (1, 0) + 0.25 (0, 1) + 0.25 (0, 1) = (1, 0.5)
* interest 1 = 0.0 (1, 0) + 0.75 (0, 1) + 0.75 (0, 1) = (0, 1.5)
"""

import json
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper, numpy_helper

from artifacts import schemas
from artifacts.bundle import Bundle, FeatureSpec, Role, Tensor, bundle_id_of, record_files, write_bundle
from artifacts.canary import write_canary
from artifacts.layout import BundleLayout, sidecar_of
from artifacts.run import find_run
from artifacts.tables import finish_file, read_sidecar, writing_table
from nightrec.main import execute

DATE = "2026-03-10"
END = datetime(2026, 3, 11, tzinfo=UTC)
SPEC = FeatureSpec(item_features=("item_id",), history_length=4, gap_edges=(3600,))

# id: vector, share of a click that goes to interest 0, the ranker's score, brand
ITEMS: dict[int, tuple[tuple[float, float], float, float, str]] = {
    1: ((1, 0), 1.0, 0.1, "c"),
    2: ((0, 1), 0.25, 0.1, "c"),
    3: ((2, 0), 0.5, 0.8, "a"),
    4: ((0, 2), 0.5, 0.2, "d"),
    5: ((1, 1), 0.5, 0.7, "b"),
    6: ((3, 0), 0.5, 0.9, "a"),
    7: ((0, 1), 0.5, 0.6, "e"),
    8: ((0.5, 0), 0.5, 0.6, "f"),
    9: ((-1, -1), 0.5, 0.6, "g"),
    11: ((9, 9), 0.5, 0.99, "h"),  # not eligible
    12: ((0, 0), 0.5, 0.99, "i"),  # its vector is of no use
    13: ((9, 9), 0.5, 0.99, "j"),  # excluded
}
NEW = 10  # in the catalogue, but the model has never seen it

CONFIG = """
[surface]
name = "hand"
root = "store"
timezone = "UTC"

[inputs.interactions]
path = "data/events.parquet"

[inputs.items]
path = "data/items.parquet"
title = "title"
eligible = "eligible"
groups = { brand = "brand" }

[inputs.users]
path = "data/users.parquet"

[inputs.exclude_users]
path = "data/gone_users.parquet"

[inputs.exclude_items]
path = "data/gone_items.parquet"

[bundles]
item = "bundles/item"
user = "bundles/user"
ranker = "bundles/ranker"

[day]
min_share_of_median = 0

[night]
shards = 2
batch_users = 4
batch_items = 4
batch_lists = 4
faiss_threads = 1
threads = 1

[retrieve]
candidates = 4
overfetch = 1.0

[score]
top_n = 2
rules = [{ group = "brand", at_most = 1 }]

[index]
recall_k = 2

[gates]
items_unusable = 0.2  # item 12 is one of ten
"""


def table_of(column: int) -> np.ndarray:
    """One column of ITEMS by vocabulary row: padding and unknown before the first item."""
    rows = [ITEMS[item][column] for item in sorted(ITEMS)]
    nothing = [np.zeros_like(rows[0])] * 2
    return np.array([*nothing, *rows], np.float32)


def graph_of(nodes: Sequence[Any], inputs: dict[str, Any], outputs: dict[str, Any], constants: dict[str, Any]) -> Any:
    def info(tensors: dict[str, Any]) -> list[Any]:
        kinds = {"int32": TensorProto.INT32, "float32": TensorProto.FLOAT}
        return [helper.make_tensor_value_info(name, kinds[kind], shape) for name, (kind, *shape) in tensors.items()]

    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "hand", info(inputs), info(outputs), tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def save_bundle(
    folder: Path, role: Role, model: Any, inputs: dict[str, Any], outputs: dict[str, Any], canary: dict[str, Any]
) -> None:
    layout = BundleLayout(folder)
    folder.mkdir(parents=True)
    onnx.checker.check_model(model)
    onnx.save(model, str(layout.graph))
    write_canary(layout.canary, {name: np.asarray(array) for name, array in canary.items()})
    vocabulary = layout.vocabulary("item_id")
    with writing_table(vocabulary, schemas.vocabulary(pa.int64()), metadata={}, inputs="") as writer:
        writer.write(pa.table({"value": pa.array(sorted(ITEMS), pa.int64())}))
    sidecar_of(vocabulary).unlink()
    files = record_files(folder)
    tensors = [
        tuple(Tensor(name, kind, tuple(shape)) for name, (kind, *shape) in of.items()) for of in (inputs, outputs)
    ]
    bundle = Bundle(
        folder=folder,
        role=role,
        model_id="hand",
        bundle_id=bundle_id_of(files, SPEC),
        inputs=tensors[0],
        outputs=tensors[1],
        spec=SPEC,
        metric="inner_product",
        width=0 if role is Role.RANKER else 2,
        interests=2 if role is Role.USER else 0,
        trained_through="2026-03-01",
        files=files,
    )
    write_bundle(bundle)


def write_bundles(folder: Path, *, weights: bool = True) -> None:
    """Item: a row of the table. User: each click gives its shares to two interests. Ranker: a score for each item."""
    node, length = helper.make_node, SPEC.history_length
    vectors, score = table_of(0), table_of(2)
    shares = np.stack([table_of(1), 1 - table_of(1)], axis=1)
    shares[:2] = 0
    ids = np.arange(64, dtype=np.int32) % len(vectors)
    inputs: dict[str, Any] = {"item_id": ("int32", "items")}
    outputs: dict[str, Any] = {"vector": ("float32", "items", 2)}
    model = graph_of([node("Gather", ["E", "item_id"], ["vector"])], inputs, outputs, {"E": vectors})
    save_bundle(folder / "item", Role.ITEM, model, inputs, outputs, {"item_id": ids, "vector": vectors[ids]})

    history = np.stack([np.roll(ids, place) for place in range(length)], axis=1)
    inputs = {"history_item_id": ("int32", "users", length)}
    outputs = {"interests": ("float32", "users", 2, 2), "count": ("int32", "users")}
    outputs |= {"weights": ("float32", "users", 2, length)} if weights else {}
    nodes = [
        node("Gather", ["E", "history_item_id"], ["rows"]),
        node("Gather", ["S", "history_item_id"], ["shares"]),
        node("Transpose", ["shares"], ["weights"], perm=[0, 2, 1]),
        node("MatMul", ["weights", "rows"], ["interests"]),
        node("Greater", ["history_item_id", "zero"], ["there"]),
        node("Cast", ["there"], ["numbers"], to=TensorProto.INT32),
        node("ReduceSum", ["numbers", "second"], ["length"], keepdims=0),
        node("Clip", ["length", "one", "two"], ["count"]),
    ]
    whole = {name: np.array(value, np.int32) for name, value in (("zero", 0), ("one", 1), ("two", 2))}
    constants = {"E": vectors, "S": shares, "second": np.array([1], np.int64), **whole}
    given = shares[history].transpose(0, 2, 1)
    canary = {
        "history_item_id": history,
        "interests": given @ vectors[history],
        "count": np.clip((history > 0).sum(axis=1), 1, 2).astype(np.int32),
    }
    save_bundle(folder / "user", Role.USER, graph_of(nodes, inputs, outputs, constants), inputs, outputs, canary)

    inputs = {
        "history_item_id": ("int32", "users", length),
        "gap": ("int32", "users", length),
        "candidate_item_id": ("int32", "users", "candidates"),
    }
    outputs = {"score": ("float32", "users", "candidates")}
    model = graph_of([node("Gather", ["R", "candidate_item_id"], ["score"])], inputs, outputs, {"R": score})
    gaps = np.minimum(history, 2).astype(np.int32)
    canary = {"history_item_id": history, "gap": gaps, "candidate_item_id": history, "score": score[history]}
    save_bundle(folder / "ranker", Role.RANKER, model, inputs, outputs, canary)


def write_data(folder: Path) -> None:
    """User 1 and 3 have clicks, user 2 has none, and user 4 is excluded with hers."""
    folder.mkdir(parents=True)
    hour, day = timedelta(hours=1), timedelta(days=1)
    events = [(1, 1, hour), (1, 2, 2 * day), (1, 2, 3 * day), (3, 2, 4 * day), (3, 5, 5 * day), (4, 9, day)]
    items = sorted([*ITEMS, NEW])
    brands = {item: ITEMS[item][3] for item in ITEMS} | {NEW: "k"}
    tables: dict[str, dict[str, Any]] = {
        "events": {
            "user_id": [user for user, _, _ in events],
            "item_id": [item for _, item, _ in events],
            "time": pa.array([END - ago for _, _, ago in events], pa.timestamp("us", tz="UTC")),
        },
        "items": {
            "item_id": items,
            "title": [f"Thing {item}" for item in items],
            "eligible": [item != 11 for item in items],
            "brand": [brands[item] for item in items],
        },
        "users": {"user_id": [1, 2, 3]},
        "gone_users": {"id": [4]},
        "gone_items": {"id": [13]},
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of the night, which is published; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("hand")
    write_data(folder / "data")
    write_bundles(folder / "bundles")
    (folder / "job.toml").write_text(CONFIG)
    assert execute(["run", "--config", str(folder / "job.toml"), "--date", DATE]) == 0
    return folder / "job.toml"


@pytest.fixture
def copied(night: Path, tmp_path: Path) -> Path:
    """A night of one's own, to change."""
    shutil.copytree(night.parent, tmp_path / "copy")
    return tmp_path / "copy" / "job.toml"


def ask(config: Path, capsys: pytest.CaptureFixture[str], user: int, item: int, *more: str) -> tuple[Any, str]:
    """What machines and people are told."""
    capsys.readouterr()
    code = execute(["why", str(user), str(item), "--config", str(config), "--json", *more])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out), err


@pytest.mark.parametrize(
    ("user", "item", "fate", "reason"),
    [
        (1, 6, "ranked", "recommended, rank 1 of 2"),
        (1, 5, "ranked", "recommended, rank 2 of 2"),
        (1, 3, "rule", "the shop's rule, at most 1 of one brand: before it stand 6"),
        (1, 4, "below", "the list was full: rank 4 of 4 by score (0.2), and 2 are given, the list ends at 0.7"),
        (1, 7, "too_far", "place 5 by exact score (1.5), and 4 became candidates, the last with 1.5, 0 more"),
        (1, 9, "too_far", "place 7 by exact score (-1.5), and 4 became candidates, the last with 1.5, 3 more"),
        (1, 1, "had", "the user had it once, on 2026-03-10 23:00; nothing that a user ever had is given again"),
        (1, 2, "had", "the user had it 2 times, last on 2026-03-09 00:00"),
        (1, 10, "no_signal", "the model knows neither its id nor any of its side features"),
        (1, 11, "not_eligible", "the item is not eligible"),
        (1, 12, "no_vector", "its vector holds NaN, Inf or nothing but zeros"),
        (1, 13, "excluded", "the item is taken out by [inputs.exclude_items]"),
        (4, 6, "excluded", "the user is taken out by [inputs.exclude_users]"),
        (2, 2, "fallback", "recommended, rank 1 of 2, as a popular item: the user is cold"),
        (2, 5, "fallback", "recommended, rank 2 of 2, as a popular item: the user is cold"),
        (2, 1, "rule", "the shop's rule, at most 1 of one brand: before it stand 2"),
        (
            2,
            3,
            "cold",
            "the user is cold and is given what is popular: the item is place 4, the list ends with place 3",
        ),
    ],
)
def test_every_reason_is_the_one_that_is_worked_out_by_hand(
    night: Path, capsys: pytest.CaptureFixture[str], user: int, item: int, fate: str, reason: str
) -> None:
    """People and machines are told the same reason, with its numbers."""
    said, err = ask(night, capsys, user, item)

    assert said["fate"] == fate
    assert reason in said["reason"]
    assert said["reason"][1:] in err
    assert said["recommended"] == (fate in {"ranked", "fallback"})
    assert said["same"] in {True, None}


def test_an_item_is_followed_from_the_click_to_the_list(night: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Interest, clicks with their weights and times, both ranks, and the exact score beside the index's."""
    said, err = ask(night, capsys, 1, 6)

    assert (said["user"], said["item"], said["title"], said["date"]) == (1, 6, "Thing 6", DATE)
    found = said["retrieval"]
    assert (found["interest"], found["interests"]) == (0, 2)
    assert (found["exact"], found["stored"]) == (3.0, 3.0)
    assert (found["rank"], found["exact_rank"], found["candidates"], found["least"]) == (2, 2, 4, 1.5)  # item 4 ties
    assert said["ranking"] == {"rank": 1, "score": pytest.approx(0.9)}
    assert said["listed"] == {
        "rank": 1,
        "score": pytest.approx(0.9),
        "retrieval_score": 3.0,
        "interest": 0,
    }
    assert said["clicks"] == [
        {"item_id": 1, "title": "Thing 1", "time": "2026-03-10 23:00:00+00:00", "weights": [1.0, 0.0]},
        {"item_id": 2, "title": "Thing 2", "time": "2026-03-09 00:00:00+00:00", "weights": [0.25, 0.75]},
        {"item_id": 2, "title": "Thing 2", "time": None, "weights": [0.25, 0.75]},
    ]
    assert said["untold"] == []
    for words in ("Clicks that made interest 0; 3 of 3", "found by", "rank 2 of 4 candidates; place 2 by exact search"):
        assert words in err


def test_the_first_interest_of_those_that_tie_has_found_it(night: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Item 5 has 1.5 with both; item 4 is nearest to interest 1, whose clicks are told first by their weight."""
    five, _ = ask(night, capsys, 1, 5)
    four, err = ask(night, capsys, 1, 4, "--top", "1")

    assert (five["retrieval"]["interest"], five["retrieval"]["exact"]) == (0, 1.5)
    assert (four["retrieval"]["interest"], four["retrieval"]["exact"]) == (1, 3.0)
    (click,) = [line for line in err.splitlines() if "Thing" in line and "0.75" in line]
    assert "2026-03-09 00:00" in click


def test_who_is_unknown_is_told_who_is_near(night: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt id is a mistake of one line, whichever of the two it is."""
    for user, item, said in (
        (5, 6, "user 5: the night does not know this user, and nothing excludes it; the nearest are 3"),
        (1, 99, "item 99: the night does not know this item, and nothing excludes it; the nearest are 12"),
        ("one", 6, "user 'one': the ids of users are int64, expected such a number"),
    ):
        assert execute(["why", str(user), str(item), "--config", str(night)]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1


def test_a_release_whose_run_is_gone_tells_what_it_knows(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Place and exact score are in the release; what cannot be told is named, and how to have it again."""
    shutil.rmtree(copied.parent / "store" / "runs")

    given, err = ask(copied, capsys, 1, 6)
    left_out, _ = ask(copied, capsys, 1, 3)
    not_indexed, _ = ask(copied, capsys, 1, 11)
    popular, _ = ask(copied, capsys, 2, 2)
    excluded, _ = ask(copied, capsys, 4, 6)

    assert (given["fate"], given["title"], given["reason"]) == ("ranked", "Thing 6", "recommended, rank 1 of 2")
    assert given["listed"] == {"rank": 1, "score": pytest.approx(0.9), "retrieval_score": 3.0, "interest": 0}
    assert "3, from the item's vector" in err
    (untold,) = given["untold"]
    assert untold.startswith("the clicks, their routing weights, what the user had")
    assert f"run {given['run_key']} is gone; `nightrec run` for {DATE} makes it again" in untold
    assert f"not told: {untold}" in err
    assert (left_out["fate"], left_out["recommended"]) == ("untold", False)
    assert left_out["reason"] == "the item is not in the list; more is not known without the run"
    assert "not indexed: not eligible, or without a signal" in not_indexed["reason"]
    assert popular["reason"] == "recommended, rank 1 of 2, as a popular item: the user is cold"
    assert (excluded["fate"], excluded["reason"]) == ("excluded", "the user is taken out by [inputs.exclude_users]")
    assert execute(["why", "1", "99", "--config", str(copied)]) == 2
    assert "item 99: the night does not know this item" in capsys.readouterr().err


def test_a_refused_night_is_explained_too(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its date: the gates that refused it are named, and the item's way is told like any other's."""
    shutil.rmtree(copied.parent / "store")
    copied.write_text(CONFIG.replace("items_unusable = 0.2", "items_unusable = 0.05"))
    night = ["--config", str(copied), "--date", DATE]
    for verb in ("prepare", "items", "index", "interests"):
        assert execute([verb, *night]) == 0
    assert execute(["why", "1", "6", *night]) == 1
    assert "scores/00000-of-00002.arrow is not finished" in capsys.readouterr().err  # which step is to be done first
    assert execute(["score", *night]) == 0

    before, _ = ask(copied, capsys, 1, 6, "--date", DATE)
    assert execute(["check", *night]) == 3
    after, err = ask(copied, capsys, 1, 6, "--date", DATE, "--run", before["run_key"])

    assert before["night"] == "This night has not been judged yet: it is no release."
    assert after["night"].startswith("This night was refused by items_unusable: 0.1, expected at most 0.05")
    assert after["night"] in err
    assert (after["release"], after["fate"], after["ranking"]["rank"]) == (None, "ranked", 1)
    assert execute(["why", "1", "6", "--config", str(copied)]) == 2  # nothing is published
    assert "LATEST" in capsys.readouterr().err


def test_what_was_taken_out_since_is_no_fault_of_the_night(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A revision is named with who asked for it and why, and who stood behind has moved up."""
    (copied.parent / "gone.txt").write_text("6\n")
    revise = ["releases", "revise", "--config", str(copied), "--reason", "a recall", "--who", "Ann", "--at-most", "0.5"]
    assert execute([*revise, "--drop-items", str(copied.parent / "gone.txt")]) == 0

    gone, _ = ask(copied, capsys, 1, 6)
    moved, _ = ask(copied, capsys, 1, 5)

    assert (gone["fate"], gone["recommended"], gone["listed"]) == ("revised", False, None)
    assert gone["reason"] == "the night recommended it; it was taken out of the release since (Ann: a recall)"
    assert (moved["listed"]["rank"], moved["length"]) == (1, 1)


def test_other_bundles_than_the_runs_explain_nothing_wrong(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights and ranks are told by the models that made the night, or not at all, and why is said."""
    shutil.rmtree(copied.parent / "bundles")
    write_bundles(copied.parent / "bundles", weights=False)
    (copied.parent / "bundles" / "ranker").rename(copied.parent / "elsewhere")

    given, err = ask(copied, capsys, 1, 6)
    left_out, _ = ask(copied, capsys, 1, 3)

    assert (given["fate"], given["listed"]["rank"], given["ranking"]) == ("ranked", 1, None)
    assert [click["weights"] for click in given["clicks"]] == [None] * 3
    assert [click["item_id"] for click in given["clicks"]] == [1, 2, 2]
    assert (left_out["fate"], left_out["retrieval"]["rank"]) == ("untold", 3)
    weights, rank = given["untold"]
    assert weights.startswith("the routing weights: ")
    assert "prepared for the user bundle" in weights
    assert rank.startswith("the rank by score of a candidate that is not in the list: ")
    assert "expected a bundle" in rank
    assert err.count("not told: ") == 2


def test_a_bundle_without_weights_explains_the_rest(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output is optional: all else is told, and that it is missing."""
    shutil.rmtree(copied.parent / "bundles")
    shutil.rmtree(copied.parent / "store")
    write_bundles(copied.parent / "bundles", weights=False)
    assert execute(["run", "--config", str(copied), "--date", DATE]) == 0

    said, err = ask(copied, capsys, 1, 6)

    assert (said["fate"], said["retrieval"]["exact"], said["same"]) == ("ranked", 3.0, True)
    assert [click["weights"] for click in said["clicks"]] == [None] * 3
    (untold,) = said["untold"]
    assert "has no output `weights`; export a model that gives it" in untold
    assert "The user's clicks, newest first; 3 of 3" in err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--date", DATE, "--release", "x"], "--date and --release: give one of them"),
        (["--run", "0" * 16], "--run names a run of a date: give --date too"),
        (["--date", "2026-03-09"], "no run of 2026-03-09 is prepared"),
        (["--release", "2026-03-10-000000000000"], "there is none of that name"),
    ],
)
def test_what_cannot_be_asked(night: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str) -> None:
    """One line that says what to ask instead."""
    assert execute(["why", "1", "6", "--config", str(night), *more]) in {1, 2}

    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_what_the_index_missed_is_no_candidate_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lists, along (1, 0) and (0, 1), and a search that looks into one: the best item lies in the other.

    Interest 0 is (1, 0.9): 10.0 to 10.39 with the items of the first list, and 10.8 with the one at (0, 12).
    """
    east = {100 + n: ((10 + n / 100, 0), 0.5, 0.5, f"e{n}") for n in range(40)}
    north = {200 + n: ((0, 10 + n / 100), 0.5, 0.5, f"n{n}") for n in range(40)}
    far = {1: ((1, 0.9), 1.0, 0.5, "c"), 2: ((0, 0), 0.5, 0.5, "d"), 300: ((0, 12), 0.5, 0.5, "x")}
    monkeypatch.setattr(sys.modules[__name__], "ITEMS", {**far, **east, **north})
    write_data(tmp_path / "data")
    write_bundles(tmp_path / "bundles")
    config = tmp_path / "job.toml"
    config.write_text(CONFIG.replace("[index]", "[index]\nlists = 2"))
    for verb in ("prepare", "items", "index", "interests"):
        assert execute([verb, "--config", str(config), "--date", DATE]) == 0
    run = find_run(tmp_path / "store", DATE)
    place = run.layout.index.ivf
    ivf, inputs = faiss.read_index(str(place)), read_sidecar(place).inputs
    ivf.nprobe = 1  # one user is too few for the step to choose it
    faiss.write_index(ivf, str(place))
    finish_file(place, inputs=inputs, run_key=run.run_key)
    assert execute(["score", "--config", str(config), "--date", DATE]) == 0

    missed, _ = ask(config, capsys, 1, 300, "--date", DATE)
    found, _ = ask(config, capsys, 1, 139, "--date", DATE)

    assert (missed["fate"], missed["retrieval"]["rank"], missed["retrieval"]["exact_rank"]) == ("missed", None, 1)
    assert missed["retrieval"]["exact"] == pytest.approx(10.8)
    assert missed["reason"] == (
        "the index missed it: place 1 by exact score, of 4 candidates; 1 of its lists lies nearer to the interest than "
        "the item's, and a search looks into 1"
    )
    assert (found["retrieval"]["rank"], found["retrieval"]["exact_rank"]) == (1, 2)
