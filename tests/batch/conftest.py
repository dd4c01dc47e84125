"""Tiny bundles and runs made by hand: graphs whose outputs NumPy computes as well."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper

from artifacts import schemas
from artifacts.bundle import Bundle, FeatureSpec, Role, Tensor, bundle_id_of, record_files, write_bundle
from artifacts.canary import write_canary
from artifacts.layout import BundleLayout, sidecar_of
from artifacts.run import Run, run_key_of
from artifacts.tables import writing_table
from batch.profile import resolve_profile

WIDTH, INTERESTS, LENGTH = 8, 3, 6
ITEMS, CATEGORIES, GENDERS = 40, 4, 2  # known values of each vocabulary
SPEC = FeatureSpec(
    item_features=("item_id", "category"),
    profile_features=("gender",),
    history_length=LENGTH,
    gap_edges=(3600, 86400),
)
VALUES = {
    "item_id": pa.array(range(100, 100 + ITEMS), pa.int64()),
    "category": pa.array([f"c{i}" for i in range(CATEGORIES)]),
    "gender": pa.array(["f", "m"]),
}


@dataclass(frozen=True)
class Weights:
    """The numbers of the tiny model, shared by its item and user graph."""

    item: np.ndarray
    category: np.ndarray
    gender: np.ndarray
    heads: np.ndarray  # [d, K * d]

    def vectors(self, item: np.ndarray, category: np.ndarray) -> np.ndarray:
        """Item vectors by NumPy: [items, d]."""
        return self.item[item] + self.category[category]

    def interests(self, item: np.ndarray, category: np.ndarray, gender: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Interests [users, K, d] and counts [users] by NumPy."""
        real = item > 0
        total = (self.vectors(item, category) * real[:, :, None]).sum(axis=1)
        mixed = np.tanh(total) @ self.heads
        interests = mixed.reshape(-1, INTERESTS, WIDTH) + self.gender[gender][:, None, :]
        count = np.clip(real.sum(axis=1) // 2, 1, INTERESTS).astype(np.int32)
        return interests * (np.arange(INTERESTS) < count[:, None])[:, :, None], count


def make_weights(seed: int = 0) -> Weights:
    random = np.random.default_rng(seed)

    def table(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    return Weights(
        table(ITEMS + 2, WIDTH),
        table(CATEGORIES + 2, WIDTH),
        table(GENDERS + 2, WIDTH),
        table(WIDTH, INTERESTS * WIDTH),
    )


def _int(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT32, shape)


def _float(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _save(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, np.ndarray]
) -> None:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _item_graph(path: Path, weights: Weights) -> None:
    nodes = [
        helper.make_node("Gather", ["E", "item_id"], ["e"]),
        helper.make_node("Gather", ["C", "category"], ["c"]),
        helper.make_node("Add", ["e", "c"], ["vector"]),
    ]
    inputs = [_int("item_id", "items"), _int("category", "items")]
    constants = {"E": weights.item, "C": weights.category}
    _save(path, nodes, inputs, [_float("vector", "items", WIDTH)], constants)


def _user_graph(path: Path, weights: Weights) -> None:
    node = helper.make_node
    nodes = [
        node("Gather", ["E", "history_item_id"], ["e"]),
        node("Gather", ["C", "history_category"], ["c"]),
        node("Add", ["e", "c"], ["x"]),
        node("Greater", ["history_item_id", "zero"], ["real"]),
        node("Cast", ["real"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "last"], ["mask3"]),
        node("Mul", ["x", "mask3"], ["masked"]),
        node("ReduceSum", ["masked", "one"], ["total"], keepdims=0),
        node("Tanh", ["total"], ["bent"]),
        node("MatMul", ["bent", "H"], ["flat"]),
        node("Reshape", ["flat", "shape"], ["mixed"]),
        node("Gather", ["G", "profile_gender"], ["g"]),
        node("Unsqueeze", ["g", "one"], ["g3"]),
        node("Add", ["mixed", "g3"], ["raw"]),
        node("Cast", ["real"], ["real_int"], to=TensorProto.INT32),
        node("ReduceSum", ["real_int", "one"], ["n"], keepdims=0),
        node("Div", ["n", "two"], ["half"]),
        node("Clip", ["half", "low", "high"], ["count"]),
        node("Unsqueeze", ["count", "one"], ["count2"]),
        node("Less", ["places", "count2"], ["active"]),
        node("Unsqueeze", ["active", "last"], ["active3"]),
        node("Where", ["active3", "raw", "nought"], ["interests"]),
    ]
    int32 = np.int32
    constants = {
        "E": weights.item,
        "C": weights.category,
        "G": weights.gender,
        "H": weights.heads,
        "zero": np.array(0, int32),
        "two": np.array(2, int32),
        "low": np.array(1, int32),
        "high": np.array(INTERESTS, int32),
        "one": np.array([1], np.int64),
        "last": np.array([-1], np.int64),
        "shape": np.array([-1, INTERESTS, WIDTH], np.int64),
        "places": np.arange(INTERESTS, dtype=int32)[None, :],
        "nought": np.array(0, np.float32),
    }
    inputs = [
        _int("history_item_id", "users", LENGTH),
        _int("history_category", "users", LENGTH),
        _int("profile_gender", "users"),
    ]
    outputs = [_float("interests", "users", INTERESTS, WIDTH), _int("count", "users")]
    _save(path, nodes, inputs, outputs, constants)


def random_histories(users: int, seed: int) -> dict[str, np.ndarray]:
    """Inputs of the user graph, histories of every length, newest first, padded with 0."""
    random = np.random.default_rng(seed)
    real = np.arange(LENGTH) < random.integers(0, LENGTH + 1, size=users)[:, None]
    return {
        "history_item_id": (random.integers(1, ITEMS + 2, size=(users, LENGTH)) * real).astype(np.int32),
        "history_category": (random.integers(1, CATEGORIES + 2, size=(users, LENGTH)) * real).astype(np.int32),
        "profile_gender": random.integers(1, GENDERS + 2, size=users).astype(np.int32),
    }


def finish_bundle(
    folder: Path,
    role: Role,
    *,
    model_id: str = "model",
    trained_through: str = "2026-01-31",
    bits_depend_on: Sequence[str] = (),
) -> Bundle:
    """Write the contract of the graph, vocabularies and canary rows that lie in *folder*."""
    graph = onnx.load(str(BundleLayout(folder).graph)).graph
    names = {TensorProto.INT32: "int32", TensorProto.INT64: "int64", TensorProto.FLOAT: "float32"}

    def tensors(values: Sequence[onnx.ValueInfoProto]) -> tuple[Tensor, ...]:
        return tuple(
            Tensor(
                value.name,
                names[value.type.tensor_type.elem_type],
                tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim),
            )
            for value in values
        )

    files = record_files(folder)
    bundle = Bundle(
        folder=folder,
        role=role,
        model_id=model_id,
        bundle_id=bundle_id_of(files, SPEC),
        inputs=tensors(graph.input),
        outputs=tensors(graph.output),
        spec=SPEC,
        metric="inner_product",
        width=WIDTH,
        interests=INTERESTS if role is Role.USER else 0,
        trained_through=trained_through,
        files=files,
        about={"parity": {"bits_depend_on": list(bits_depend_on)}},
    )
    write_bundle(bundle)
    return bundle


def write_vocabularies(folder: Path) -> None:
    for name, values in VALUES.items():
        path = BundleLayout(folder).vocabulary(name)
        with writing_table(path, schemas.vocabulary(values.type), metadata={}, inputs="") as writer:
            writer.write(pa.table({"value": values}))
        sidecar_of(path).unlink()


def make_bundle(folder: Path, role: Role, weights: Weights, **said: Any) -> Bundle:
    """Write a tiny item or user bundle under *folder*; its canary rows hold what NumPy computes."""
    folder.mkdir(parents=True)
    write_vocabularies(folder)
    if role is Role.ITEM:
        _item_graph(BundleLayout(folder).graph, weights)
        random = np.random.default_rng(9)
        inputs = {
            "item_id": random.integers(0, ITEMS + 2, 64).astype(np.int32),
            "category": random.integers(0, CATEGORIES + 2, 64).astype(np.int32),
        }
        outputs = {"vector": weights.vectors(inputs["item_id"], inputs["category"])}
    else:
        _user_graph(BundleLayout(folder).graph, weights)
        inputs = random_histories(64, seed=9)
        interests, count = weights.interests(*inputs.values())
        outputs = {"interests": interests, "count": count}
    write_canary(BundleLayout(folder).canary, {**inputs, **outputs})
    return finish_bundle(folder, role, **said)


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """This module: a test cannot import its conftest."""
    return sys.modules[__name__]


@pytest.fixture(scope="session")
def weights() -> Weights:
    return make_weights()


@pytest.fixture(scope="session")
def item_bundle(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "item", Role.ITEM, weights)


@pytest.fixture(scope="session")
def user_bundle(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "user", Role.USER, weights)


def lists_of(padded: np.ndarray, lengths: np.ndarray) -> pa.Array:
    """Cut rows padded at their end into lists."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    real = np.arange(padded.shape[1]) < lengths[:, None]
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(padded[real].astype(np.int32)), type=schemas.rows_of(pa.int32())
    )


def history_rows(inputs: dict[str, np.ndarray], user_ids: np.ndarray) -> pa.RecordBatch:
    """Rows of ``prepare/histories`` that encode to *inputs*."""
    lengths = (inputs["history_item_id"] > 0).sum(axis=1)
    gaps = (inputs["history_item_id"] > 0).astype(np.int32)
    columns = [
        pa.array(user_ids),
        lists_of(inputs["history_item_id"], lengths),
        lists_of(inputs["history_category"], lengths),
        lists_of(gaps, lengths),
        pa.array(inputs["profile_gender"]),
        pa.array(lengths.astype(np.int32)),
    ]
    schema = schemas.histories(pa.int64(), SPEC.item_features, SPEC.profile_features)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def shard_users(users: int, shard: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """User ids and inputs of one shard of :func:`make_run`."""
    return np.arange(users) * 10 + shard, random_histories(users, seed=100 + shard)


def catalogue_of(items: int) -> pa.Table:
    """Rows of ``prepare/catalogue``: *items* items, the last of them unknown to the model where there are many."""
    rows = np.arange(items)
    return pa.table(
        {
            "item_id": pa.array(100 + rows),
            "feature_item_id": pa.array(np.where(rows < ITEMS, rows + 2, 1).astype(np.int32)),
            "feature_category": pa.array((rows % CATEGORIES + 2).astype(np.int32)),
            "eligible": pa.array(rows % 7 != 0),
            "signal": pa.array(np.ones(items, dtype=bool)),
            "title": pa.array([f"item {row}" for row in rows]),
        }
    )


MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(tmp_path: Path, item_bundle: Bundle, user_bundle: Bundle) -> MakeRun:
    """Make a prepared run by hand, without ``prepare``."""

    def make(
        *,
        users: int = 30,
        items: int = 45,
        shards: int = 1,
        item_shards: int = 1,
        batch_users: int = 16,
        batch_items: int = 8,
        name: str = "run",
        date: str = "2026-02-01",
        index_type: str = "Flat",
    ) -> Run:
        batches = {"batch_users": batch_users, "batch_items": batch_items, "batch_lists": batch_users}
        profile = resolve_profile("cpu", **batches, faiss_threads=1, index_type=index_type)
        bundles = {
            str(bundle.role): {"model_id": bundle.model_id, "bundle_id": bundle.bundle_id}
            for bundle in (item_bundle, user_bundle)
        }
        run = Run(
            folder=tmp_path / name,
            run_key="",
            date=date,
            now=1_769_990_400,
            inputs="0" * 64,
            user_id="int64",
            item_id="int64",
            shards=shards,
            item_shards=item_shards,
            bundles=bundles,
            semantic={},
            profile=profile,
            counts={},
        )
        run = replace(run, run_key=run_key_of(run.inputs, bundles, {}, profile))
        schema = schemas.catalogue(pa.int64(), SPEC.item_features)
        with writing_table(run.layout.catalogue, schema, metadata={}, inputs="") as writer:
            writer.write(catalogue_of(items))
        for shard in range(shards):
            user_ids, inputs = shard_users(users, shard)
            rows = history_rows(inputs, user_ids)
            path = run.layout.histories(shard, shards)
            with writing_table(path, rows.schema, metadata={}, inputs="") as writer:
                writer.write(rows)
        run.write()
        return run

    return make
