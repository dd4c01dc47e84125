"""A night of a dozen items, worked out by hand: its data, its models, its config.

The vectors of two interests, as the user model makes them of the clicks of user 1:

* clicks, newest first: item 1 an hour before the day's end, item 2 two days and three days before it
* interest 0 = 1.0 (1, 0) + 0.25 (0, 1) + 0.25 (0, 1) = (1, 0.5)
* interest 1 = 0.0 (1, 0) + 0.75 (0, 1) + 0.75 (0, 1) = (0, 1.5)
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from artifacts import schemas
from artifacts.bundle import Bundle, FeatureSpec, Role, Tensor, bundle_id_of, record_files, write_bundle
from artifacts.canary import write_canary
from artifacts.layout import BundleLayout, sidecar_of
from artifacts.tables import writing_table

DATE = "2026-03-10"
END = datetime(2026, 3, 11, tzinfo=UTC)
SPEC = FeatureSpec(item_features=("item_id",), history_length=4, gap_edges=(3600,))

# id: vector, share of a click that goes to interest 0, the ranker's score, brand
Items = Mapping[int, tuple[tuple[float, float], float, float, str]]
ITEMS: Items = {
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


def table_of(items: Items, column: int) -> np.ndarray:
    """One column of *items* by vocabulary row: padding and unknown before the first item."""
    rows = [items[item][column] for item in sorted(items)]
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
    folder: Path, items: Items, model: Any, tensors: tuple[dict[str, Any], dict[str, Any]], canary: dict[str, Any]
) -> None:
    """Write the bundle of the role that the folder is named after."""
    layout, role = BundleLayout(folder), Role(folder.name)
    folder.mkdir(parents=True)
    onnx.checker.check_model(model)
    onnx.save(model, str(layout.graph))
    write_canary(layout.canary, {name: np.asarray(array) for name, array in canary.items()})
    vocabulary = layout.vocabulary("item_id")
    with writing_table(vocabulary, schemas.vocabulary(pa.int64()), metadata={}, inputs="") as writer:
        writer.write(pa.table({"value": pa.array(sorted(items), pa.int64())}))
    sidecar_of(vocabulary).unlink()
    files = record_files(folder)
    inputs, outputs = (tuple(Tensor(name, kind, tuple(shape)) for name, (kind, *shape) in of.items()) for of in tensors)
    bundle = Bundle(
        folder=folder,
        role=role,
        model_id="hand",
        bundle_id=bundle_id_of(files, SPEC),
        inputs=inputs,
        outputs=outputs,
        spec=SPEC,
        metric="inner_product",
        width=0 if role is Role.RANKER else 2,
        interests=2 if role is Role.USER else 0,
        trained_through="2026-03-01",
        files=files,
    )
    write_bundle(bundle)


def write_bundles(folder: Path, *, items: Items = ITEMS, weights: bool = True) -> None:
    """Item: a row of the table. User: each click gives its shares to two interests. Ranker: a score for each item."""
    vectors, score = table_of(items, 0), table_of(items, 2)
    ids = np.arange(64, dtype=np.int32) % len(vectors)
    history = np.stack([np.roll(ids, place) for place in range(SPEC.history_length)], axis=1)
    look_up = helper.make_node("Gather", ["E", "item_id"], ["vector"])
    tensors: tuple[dict[str, Any], dict[str, Any]]
    tensors = {"item_id": ("int32", "items")}, {"vector": ("float32", "items", 2)}
    model = graph_of([look_up], *tensors, {"E": vectors})
    save_bundle(folder / "item", items, model, tensors, {"item_id": ids, "vector": vectors[ids]})

    _write_user(folder / "user", items, history, weights=weights)

    look_up = helper.make_node("Gather", ["R", "candidate_item_id"], ["score"])
    length = SPEC.history_length
    inputs = {
        "history_item_id": ("int32", "users", length),
        "gap": ("int32", "users", length),
        "candidate_item_id": ("int32", "users", "candidates"),
    }
    tensors = inputs, {"score": ("float32", "users", "candidates")}
    gaps = np.minimum(history, 2).astype(np.int32)
    canary = {"history_item_id": history, "gap": gaps, "candidate_item_id": history, "score": score[history]}
    save_bundle(folder / "ranker", items, graph_of([look_up], *tensors, {"R": score}), tensors, canary)


def _write_user(folder: Path, items: Items, history: np.ndarray, *, weights: bool) -> None:
    node, length = helper.make_node, SPEC.history_length
    vectors, first = table_of(items, 0), table_of(items, 1)
    shares = np.stack([first, 1 - first], axis=1)
    shares[:2] = 0
    inputs = {"history_item_id": ("int32", "users", length)}
    outputs: dict[str, Any] = {"interests": ("float32", "users", 2, 2), "count": ("int32", "users")}
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
    canary = {
        "history_item_id": history,
        "interests": shares[history].transpose(0, 2, 1) @ vectors[history],
        "count": np.clip((history > 0).sum(axis=1), 1, 2).astype(np.int32),
    }
    save_bundle(folder, items, graph_of(nodes, inputs, outputs, constants), (inputs, outputs), canary)


def write_data(folder: Path, items: Items = ITEMS) -> None:
    """User 1 and 3 have clicks, user 2 has none, and user 4 is excluded with hers."""
    folder.mkdir(parents=True)
    hour, day = timedelta(hours=1), timedelta(days=1)
    events = [(1, 1, hour), (1, 2, 2 * day), (1, 2, 3 * day), (3, 2, 4 * day), (3, 5, 5 * day), (4, 9, day)]
    catalogue = sorted([*items, NEW])
    brands = {item: items[item][3] for item in items} | {NEW: "k"}
    tables: dict[str, dict[str, Any]] = {
        "events": {
            "user_id": [user for user, _, _ in events],
            "item_id": [item for _, item, _ in events],
            "time": pa.array([END - ago for _, _, ago in events], pa.timestamp("us", tz="UTC")),
        },
        "items": {
            "item_id": catalogue,
            "title": [f"Thing {item}" for item in catalogue],
            "eligible": [item != 11 for item in catalogue],
            "brand": [brands[item] for item in catalogue],
        },
        "users": {"user_id": [1, 2, 3]},
        "gone_users": {"id": [4]},
        "gone_items": {"id": [13]},
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
