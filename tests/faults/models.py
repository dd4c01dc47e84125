"""Bad models: whole by their digests, but with wrong names, types, shapes, weights, vocabularies or contracts."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
from onnx import TensorProto, helper, numpy_helper

from artifacts import schemas
from artifacts.bundle import Bundle, bundle_id_of, read_bundle, record_files, write_bundle
from artifacts.canary import read_canary, write_canary
from artifacts.layout import BundleLayout, sidecar_of
from artifacts.tables import writing_table
from tests.faults.ground import Case, Counted, Ground, Refused

Graph = Callable[[onnx.ModelProto], None]


def cases() -> Iterator[Case]:
    """Every case of bad models."""
    yield from graph_cases()
    yield from canary_cases()
    yield from vocabulary_cases()
    yield from contract_cases()


def folder_of(ground: Ground, role: str) -> Path:
    """Where the bundle of *role* lies."""
    return ground.folder / "bundles" / role


def sealed_anew(folder: Path, change: Callable[[Bundle], Bundle] = lambda bundle: bundle) -> None:
    """Let the contract in *folder* speak of the files as they are now: the digests are no help against what follows."""
    document = read_bundle_loosely(folder)
    files = record_files(folder)
    write_bundle(change(replace(document, files=files, bundle_id=bundle_id_of(files, document.spec))))


def read_bundle_loosely(folder: Path) -> Bundle:
    """Read a contract whose files were changed since: the copy that was kept beside it."""
    kept = folder.with_name(f"{folder.name}-as-it-was")
    return replace(read_bundle(kept), folder=folder)


def keep(folder: Path) -> None:
    """Keep a whole copy of the bundle in *folder*."""
    shutil.copytree(folder, folder.with_name(f"{folder.name}-as-it-was"))


def graph_changed(role: str, change: Graph, ground: Ground) -> None:
    """Change a graph, and seal its contract anew."""
    folder = folder_of(ground, role)
    keep(folder)
    model = onnx.load(BundleLayout(folder).graph)
    change(model)
    onnx.save(model, BundleLayout(folder).graph)
    sealed_anew(folder)


def contract_changed(role: str, change: Callable[[Bundle], Bundle], ground: Ground) -> None:
    """Change what a contract says, and seal it anew."""
    folder = folder_of(ground, role)
    keep(folder)
    sealed_anew(folder, change)


def _input_renamed(model: onnx.ModelProto) -> None:
    old, new = model.graph.input[0].name, "itemid"
    model.graph.input[0].name = new
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def _output_renamed(model: onnx.ModelProto) -> None:
    old = model.graph.output[0].name
    model.graph.node.append(helper.make_node("Identity", [old], ["vec"]))
    model.graph.output[0].name = "vec"


def _input_more(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("age", TensorProto.INT32, ["items"]))


def _input_retyped(model: onnx.ModelProto) -> None:
    first = model.graph.input[0]
    old, first.name = first.name, first.name
    first.type.tensor_type.elem_type = TensorProto.FLOAT
    cast = helper.make_node("Cast", [old], [f"{old}_whole"], to=TensorProto.INT32)
    for node in model.graph.node:
        node.input[:] = [f"{old}_whole" if name == old else name for name in node.input]
    model.graph.node.insert(0, cast)


def _ended(nodes: Callable[[str, str], list[onnx.NodeProto]], model: onnx.ModelProto) -> None:
    """Put *nodes* between the graph and its first output."""
    name = model.graph.output[0].name
    inner = f"{name}_inner"
    for node in model.graph.node:
        node.output[:] = [inner if output == name else output for output in node.output]
        node.input[:] = [inner if one == name else one for one in node.input]
    model.graph.node.extend(nodes(inner, name))


def _random(inner: str, name: str) -> list[onnx.NodeProto]:
    noise = helper.make_node("RandomNormalLike", [inner], ["noise"], dtype=TensorProto.FLOAT)
    return [noise, helper.make_node("Add", [inner, "noise"], [name])]


def _doubled(inner: str, name: str) -> list[onnx.NodeProto]:
    return [helper.make_node("Concat", [inner, inner], [name], axis=-1)]


def _double_precision(model: onnx.ModelProto) -> None:
    _ended(lambda inner, name: [helper.make_node("Cast", [inner], [name], to=TensorProto.DOUBLE)], model)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def _batch_baked(model: onnx.ModelProto) -> None:
    for tensor in [*model.graph.input, *model.graph.output]:
        tensor.type.tensor_type.shape.dim[0].ClearField("dim_param")
        tensor.type.tensor_type.shape.dim[0].dim_value = 3
    del model.graph.value_info[:]


def _weights(rows: Any, value: float, model: onnx.ModelProto) -> None:
    """Put *value* into some rows of the first table."""
    table = model.graph.initializer[0]
    values = numpy_helper.to_array(table).copy()
    values[rows] = value
    table.CopyFrom(numpy_helper.from_array(values, table.name))


def _too_new(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def _foreign_operator(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    _ended(lambda inner, name: [helper.make_node("Mystery", [inner], [name], domain="com.example")], model)


def graph_cases() -> Iterator[Case]:
    """Graphs that are not what their contract says, or compute what cannot be used."""
    graph = ["item", "model.onnx"]
    changes: dict[str, tuple[Graph, Any]] = {
        "an input of another name": (_input_renamed, Refused([4], [*graph, "item_id", "itemid"])),
        "an output of another name": (_output_renamed, Refused([4], [*graph, "vector", "vec"])),
        "an input too many": (_input_more, Refused([4], [*graph, "age"])),
        "an input of another type": (_input_retyped, Refused([4], [*graph, "int32"])),
        "a random operator": (partial(_ended, _random), Refused([1], ["item", "canary row", "vector"])),
        "vectors twice as wide": (partial(_ended, _doubled), Refused([1, 4], ["item", "vector", "16", "32"])),
        "vectors in double precision": (_double_precision, Refused([4], ["item", "vector", "float32", "float64"])),
        "a baked batch size": (_batch_baked, Refused([4], graph)),
        "NaN in all weights": (partial(_weights, slice(None), np.nan), Refused([1], ["item", "canary row", "nan"])),
        "Inf in all weights": (partial(_weights, slice(None), np.inf), Refused([1], ["item", "canary row", "nan"])),
        "an opset that is too new": (_too_new, Refused([4], [*graph, "999"])),
        "an operator that nobody knows": (_foreign_operator, Refused([4], [*graph, "Mystery"])),
    }
    for name, (change, expects) in changes.items():
        yield Case(f"item model: {name}", partial(graph_changed, "item", change), expects, "run")
    yield Case("item model: NaN in one item's weights", _one_nan, Counted({"nan_vectors": 1}), "run")
    for role in ("user", "ranker"):
        damage = partial(graph_changed, role, partial(_weights, slice(None), np.nan))
        yield Case(f"{role} model: NaN weights", damage, Refused([1], [role, "canary row", "nan"]), "run")
        damage = partial(graph_changed, role, _output_renamed)
        yield Case(f"{role} model: an output of another name", damage, Refused([4], [role, "vec"]), "run")
        damage = partial(graph_changed, role, partial(_ended, _doubled))
        yield Case(f"{role} model: an output twice as wide", damage, Refused([1, 4], [role, "shape"]), "run")
    for name, content in {"text": b"no graph\n" * 20, "of zero bytes": b"", "cut short": None}.items():
        yield Case(f"item model: {name}", partial(_overwritten, content), Refused([4], graph), "run")


def _overwritten(content: bytes | None, ground: Ground) -> None:
    folder = folder_of(ground, "item")
    keep(folder)
    path = BundleLayout(folder).graph
    path.write_bytes(path.read_bytes()[:-300] if content is None else content)
    sealed_anew(folder)


def _one_nan(ground: Ground) -> None:
    """Spoil the weights of one item that no canary row asks for."""
    asked = set(read_canary(BundleLayout(folder_of(ground, "item")).canary)["item_id"].tolist())
    row = next(row for row in range(10, 150) if row not in asked and (row - 2) % 20 != 19)
    graph_changed("item", partial(_weights, row, np.nan), ground)


def _canary(change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], ground: Ground) -> None:
    folder = folder_of(ground, "item")
    keep(folder)
    path = BundleLayout(folder).canary
    tensors = change(read_canary(path))
    path.unlink()
    write_canary(path, tensors)
    sealed_anew(folder)


def canary_cases() -> Iterator[Case]:
    """Canary rows that are missing, empty or of another graph."""

    def without(name: str) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
        return lambda tensors: {key: value for key, value in tensors.items() if key != name}

    for name in ("vector", "category"):
        expects = Refused([4], ["item", "canary.arrow", name])
        yield Case(f"canary rows without {name}", partial(_canary, without(name)), expects, "run")
    moved = partial(_canary, lambda tensors: {**tensors, "vector": tensors["vector"] + 1})
    yield Case("canary rows of another model", moved, Refused([1], ["item", "canary row", "vector"]), "run")
    none = partial(_canary, lambda tensors: {key: value[:0] for key, value in tensors.items()})
    yield Case("canary rows: none", none, Refused([4], ["item", "canary.arrow", "no rows"]), "run")
    beyond = partial(_canary, lambda tensors: {**tensors, "item_id": tensors["item_id"] + 9_999})
    yield Case(
        "canary rows beyond the vocabulary", beyond, Refused([4], ["item", "item_id", "expected rows 0 to"]), "run"
    )


def _vocabulary(values: pa.Array, ground: Ground) -> None:
    """Give all bundles another vocabulary of the categories."""
    for role in ("item", "user", "ranker"):
        folder = folder_of(ground, role)
        keep(folder)
        path = BundleLayout(folder).vocabulary("category")
        schema = schemas.vocabulary(values.type)
        with writing_table(path, schema, metadata={}, inputs="") as writer:
            writer.write(pa.table([values], schema=schema))
        sidecar_of(path).unlink()
        sealed_anew(folder)


def vocabulary_cases() -> Iterator[Case]:
    """Vocabularies that are missing, unsorted, of another type or longer than the model's table."""
    path = ["category.arrow"]
    unsorted = pa.array(["books", "games", "garden", "music", "kitchen", "shoes"])
    yield Case("a vocabulary that is unsorted", partial(_vocabulary, unsorted), Refused([4], [*path, "ascending"]))
    doubled = pa.array(["books", "books", "garden", "kitchen", "music", "shoes"])
    yield Case("a vocabulary with a value twice", partial(_vocabulary, doubled), Refused([4], [*path, "each once"]))
    numbers = pa.array(range(6), pa.int64())
    yield Case(
        "a vocabulary of numbers",
        partial(_vocabulary, numbers),
        Refused([4], ["category", "expected int64 as in its vocabulary, found string"]),
    )
    longer = pa.array(sorted([f"a{number:05d}" for number in range(500)] + ["books", "games"]))
    yield Case("a vocabulary beyond the table", partial(_vocabulary, longer), Refused([1, 4], ["item"]), "run")

    def missing(ground: Ground) -> None:
        folder = folder_of(ground, "item")
        keep(folder)
        BundleLayout(folder).vocabulary("category").unlink()
        sealed_anew(folder)

    yield Case("a vocabulary that is missing", missing, Refused([4], ["item", *path]))


def _spec(**changes: Any) -> Callable[[Bundle], Bundle]:
    def change(bundle: Bundle) -> Bundle:
        spec = replace(bundle.spec, **changes)
        return replace(bundle, spec=spec, bundle_id=bundle_id_of(bundle.files, spec))

    return change


def contract_cases() -> Iterator[Case]:
    """Contracts that say what cannot be."""
    changes: dict[str, tuple[str, Callable[[Bundle], Bundle], Any]] = {
        "a metric that is none of ours": ("item", lambda b: replace(b, metric="cosine"), [2, 4]),
        "no width": ("item", lambda b: replace(b, width=0), [2, 4]),
        "a width below nothing": ("item", lambda b: replace(b, width=-16), [2, 4]),
        "a width that is text": ("item", lambda b: replace(b, width="16"), [2, 4]),
        "another width": ("item", lambda b: replace(b, width=8), [2, 4]),
        "no interests": ("user", lambda b: replace(b, interests=0), [4]),
        "more interests than have a number": ("user", lambda b: replace(b, interests=1000), [4]),
        "a last day that is no day": ("user", lambda b: replace(b, trained_through="soon"), [4]),
        "another model's id": ("user", lambda b: replace(b, model_id="0" * 64), [2]),
        "another bundle's id": ("user", lambda b: replace(b, bundle_id="0" * 64), [4]),
        "a history of nothing": ("user", _spec(history_length=0), [4]),
        "a history of text": ("user", _spec(history_length="8"), [4]),
        "edges that descend": ("ranker", _spec(gap_edges=(9, 5)), [4]),
        "a cross feature that is none": ("ranker", _spec(cross_features=("age",)), [4]),
        "features that are no ids": ("user", _spec(item_features=("category", "item_id")), [2, 4]),
        "no features": ("user", _spec(item_features=()), [2, 4]),
        "a feature twice": ("user", _spec(item_features=("item_id", "item_id")), [2, 4]),
        "a feature with a path in it": ("user", _spec(item_features=("item_id", "../../x")), [2, 4]),
    }
    for name, (role, change, codes) in changes.items():
        yield Case(f"contract: {name}", partial(contract_changed, role, change), Refused(codes, [role]), "run")
    future = partial(contract_changed, "ranker", lambda bundle: replace(bundle, trained_through="2026-04-02"))
    yield Case("contract: a model that has seen the future", future, Refused([3], ["2026-04-02", "seen the future"]))
    for name, text in {"no JSON": "{", "a list": "[]", "another document": "{}", "NaN": '{"format": NaN}'}.items():
        yield Case(f"contract: {name}", partial(_written, text), Refused([4], ["bundle.json"]))


def _written(text: str, ground: Ground) -> None:
    BundleLayout(folder_of(ground, "user")).contract.write_text(text)
