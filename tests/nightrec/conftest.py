"""A surface as small as it can be: two hand-made graphs, 40 users, 30 items, and the command that serves it."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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
from artifacts.tables import writing_table

WIDTH, LENGTH, ITEMS, USERS = 4, 5, 30, 40
DATE = "2026-03-10"
SPEC = FeatureSpec(item_features=("item_id",), history_length=LENGTH, gap_edges=(3600,))
Command = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = """
[surface]
name = "tiny"
root = "store"

[inputs.interactions]
path = "data/events.parquet"

[inputs.items]
path = "data/items.parquet"
title = "title"

[bundles]
item = "bundles/item"
user = "bundles/user"

[night]
shards = 2
batch_users = 16
batch_items = 16
faiss_threads = 1
threads = 1

[retrieve]
candidates = 10

[score]
top_n = 5

[index]
recall_k = 5
"""


def _graphs(folder: Path, table: np.ndarray) -> None:
    """Item: a row of the table. User: the mean of the rows of the history, one interest."""
    integer, real, node = TensorProto.INT32, TensorProto.FLOAT, helper.make_node
    info = helper.make_tensor_value_info
    constants = {
        "E": table,
        "zero": np.array(0, np.int32),
        "one": np.array(1, np.int32),
        "second": np.array([1], np.int64),
    }
    graphs = {
        "item": (
            [node("Gather", ["E", "item_id"], ["vector"])],
            [info("item_id", integer, ["items"])],
            [info("vector", real, ["items", WIDTH])],
        ),
        "user": (
            [
                node("Gather", ["E", "history_item_id"], ["rows"]),
                node("ReduceSum", ["rows", "second"], ["interests"], keepdims=1),
                node("Greater", ["history_item_id", "zero"], ["there"]),
                node("Cast", ["there"], ["numbers"], to=integer),
                node("ReduceSum", ["numbers", "second"], ["length"], keepdims=0),
                node("Clip", ["length", "one", "one"], ["count"]),
            ],
            [info("history_item_id", integer, ["users", LENGTH])],
            [info("interests", real, ["users", 1, WIDTH]), info("count", integer, ["users"])],
        ),
    }
    for name, (nodes, inputs, outputs) in graphs.items():
        used = {edge for made in nodes for edge in made.input}
        tensors = [numpy_helper.from_array(value, key) for key, value in constants.items() if key in used]
        graph = helper.make_graph(nodes, name, inputs, outputs, tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.checker.check_model(model)
        (folder / name).mkdir(parents=True)
        onnx.save(model, str(BundleLayout(folder / name).graph))


def write_bundles(folder: Path, *, trained_through: str = "2026-03-01", seed: int = 5) -> None:
    random = np.random.default_rng(seed)
    table = random.normal(size=(ITEMS + 2, WIDTH)).astype(np.float32)
    table[0] = 0
    _graphs(folder, table)
    ids = random.integers(0, ITEMS + 2, 64).astype(np.int32)
    history = random.integers(0, ITEMS + 2, (64, LENGTH)).astype(np.int32)
    canaries: dict[Role, dict[str, np.ndarray]] = {
        Role.ITEM: {"item_id": ids, "vector": table[ids]},
        Role.USER: {
            "history_item_id": history,
            "interests": table[history].sum(axis=1, keepdims=True),
            "count": np.ones(64, np.int32),
        },
    }
    tensors = {
        Role.ITEM: ((Tensor("item_id", "int32", ("items",)),), (Tensor("vector", "float32", ("items", WIDTH)),)),
        Role.USER: (
            (Tensor("history_item_id", "int32", ("users", LENGTH)),),
            (Tensor("interests", "float32", ("users", 1, WIDTH)), Tensor("count", "int32", ("users",))),
        ),
    }
    for role, canary in canaries.items():
        layout = BundleLayout(folder / str(role))
        write_canary(layout.canary, canary)
        vocabulary = layout.vocabulary("item_id")
        with writing_table(vocabulary, schemas.vocabulary(pa.int64()), metadata={}, inputs="") as writer:
            writer.write(pa.table({"value": pa.array(range(ITEMS), pa.int64())}))
        sidecar_of(vocabulary).unlink()
        files = record_files(layout.folder)
        bundle = Bundle(
            folder=layout.folder,
            role=role,
            model_id="tiny",
            bundle_id=bundle_id_of(files, SPEC),
            inputs=tensors[role][0],
            outputs=tensors[role][1],
            spec=SPEC,
            metric="inner_product",
            width=WIDTH,
            interests=1 if role is Role.USER else 0,
            trained_through=trained_through,
            files=files,
        )
        write_bundle(bundle)


def write_data(folder: Path, *, last: str = DATE) -> None:
    """Events of 28 days, whose last one lies an hour before the end of the day *last*; user 40 has none."""
    random = np.random.default_rng(6)
    folder.mkdir(parents=True)
    users = np.repeat(np.arange(USERS - 1), random.integers(1, 9, USERS - 1))
    end = datetime.fromisoformat(last).replace(tzinfo=UTC) + timedelta(days=1)
    ages = random.integers(3600, 28 * 86_400, len(users))
    ages[0] = 3600
    events = {
        "user_id": pa.array(users, pa.int64()),
        "item_id": pa.array(random.integers(0, ITEMS, len(users)), pa.int64()),
        "time": pa.array([end - timedelta(seconds=int(age)) for age in ages], pa.timestamp("us", tz="UTC")),
    }
    items = {"item_id": pa.array(range(ITEMS), pa.int64()), "title": [f"Thing {item}" for item in range(ITEMS)]}
    pq.write_table(pa.table(events), folder / "events.parquet")
    pq.write_table(pa.table(items), folder / "items.parquet")


@pytest.fixture(scope="session")
def command() -> Command:
    """Run ``nightrec`` in a process of its own."""

    def run(*arguments: object, environment: Mapping[str, str] | None = None, **options: Any) -> Any:
        return subprocess.run(
            [Path(sys.executable).with_name("nightrec"), *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, **(environment or {})},
            **options,
        )

    return run


@pytest.fixture
def write_others() -> Callable[..., None]:
    """Write bundles into a folder, of weights that follow from a seed."""
    return write_bundles


@pytest.fixture
def surface(tmp_path: Path) -> Path:
    """The config of a surface that no night was made of."""
    write_data(tmp_path / "data")
    write_bundles(tmp_path / "bundles")
    (tmp_path / "job.toml").write_text(CONFIG)
    return tmp_path / "job.toml"


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, command: Command) -> tuple[Path, Any]:
    """The config of a surface with one night, and what ``nightrec run --json`` said of it; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("published")
    write_data(folder / "data")
    write_bundles(folder / "bundles")
    (folder / "job.toml").write_text(CONFIG)
    finished = command("run", "--config", folder / "job.toml", "--date", DATE, "--json")
    assert finished.returncode == 0, finished.stderr
    return folder / "job.toml", finished
