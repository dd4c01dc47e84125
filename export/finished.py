"""A finished ONNX file: run as it is for comparison, and made into a graph with the contract's names."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, compose, helper, numpy_helper
from torch import Tensor

from artifacts.bundle import Role
from artifacts.digest import file_digest
from artifacts.errors import UsageError
from export.parity import RUNTIME_ERRORS, open_graph
from export.source import Arrays, Source, input_shape, output_shape
from export.wired import Wired

OLDEST_OPSET = 13  # from which on a Squeeze or Unsqueeze takes its axes as an input, as ours do
_BACKWARDS = {"the last": -1, "before the first": np.iinfo(np.int64).min, "axis of the history": 1, "step back": -1}
_THEIRS = "given/"  # before every name of the file's graph, so that none of them is one of ours


class FinishedFile(torch.nn.Module):
    """The network that an ONNX file holds, as a module: ``forward(*inputs)`` in the order of the file's inputs.

    Its state is the digest of the file, and of the files that hold its weights.
    """

    def __init__(self, path: Path) -> None:
        """Load the file.

        Raises:
            UsageError: If it is none, or of an opset that is too old.
            ParityError: If ONNX Runtime cannot load it.
        """
        super().__init__()
        self.path = path
        if not path.is_file():
            raise UsageError(f"{path}: expected an ONNX file, found none")
        self._run = open_graph(path)
        model = onnx.load(str(path), load_external_data=False)
        opset = max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=0)
        if opset < OLDEST_OPSET:
            raise UsageError(f"{path}: expected opset {OLDEST_OPSET} or newer, found {opset}; export it anew")
        weights = {initializer.name for initializer in model.graph.initializer}
        self.inputs = [value for value in model.graph.input if value.name not in weights]
        self.outputs = [value.name for value in model.graph.output]
        self._types = [helper.tensor_dtype_to_np_dtype(one.type.tensor_type.elem_type) for one in self.inputs]
        beside = {
            entry.value for one in model.graph.initializer for entry in one.external_data if entry.key == "location"
        }
        digests = [file_digest(file) for file in (path, *(path.parent / name for name in sorted(beside)))]
        digest = hashlib.sha256("".join(digests).encode()).digest()
        self.register_buffer("digest", torch.from_numpy(np.frombuffer(digest, np.uint8).copy()))

    def axes(self, place: int) -> list[int | None]:
        """The sizes that the file says of an input's axes; None where it takes any."""
        dims = self.inputs[place].type.tensor_type.shape.dim
        return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the file in ONNX Runtime."""
        arrays: Arrays = {
            value.name: tensor.numpy().astype(kind)
            for value, tensor, kind in zip(self.inputs, inputs, self._types, strict=True)
        }
        try:
            results = self._run(arrays)
        except RUNTIME_ERRORS as error:
            raise RuntimeError(f"{self.path.name}: {str(error).splitlines()[0]}") from error
        outputs = tuple(torch.from_numpy(results[name]) for name in self.outputs)
        return outputs[0] if len(outputs) == 1 else outputs


def graph_of(source: Source, wired: Wired, file: FinishedFile, found: Arrays) -> ModelProto:
    """Put the contract's names and our rows around the graph of a file.

    Args:
        source: What is exported.
        wired: Its module.
        file: The file in it.
        found: Outputs of the source on some rows: what an axis that is not dynamic measures.
    """
    model = compose.add_prefix(onnx.load(str(file.path)), _THEIRS)
    graph = model.graph
    inputs, nodes = {}, []
    for place, (name, value) in enumerate(zip(wired.taken, file.inputs, strict=True)):
        inputs[name] = _input(source, name, file.axes(place))
        nodes += _before(wired, name, value)
    for name, table in wired.tables.items():
        graph.initializer.append(numpy_helper.from_array(table.numpy(), f"rows of {name}"))
    if wired.oldest_first:
        constants = [numpy_helper.from_array(np.array([one], np.int64), name) for name, one in _BACKWARDS.items()]
        graph.initializer.extend(constants)
    outputs = [_output(source, name, array) for name, array in found.items()]
    body = [*nodes, *graph.node, *_after(source, [f"{_THEIRS}{name}" for name in file.outputs], found, graph)]
    for field in ("node", "input", "output"):
        graph.ClearField(field)
    graph.node.extend(body)
    graph.input.extend([inputs.get(name) or _input(source, name, None) for name in source.inputs])
    graph.output.extend(outputs)
    return model


def _input(source: Source, name: str, axes: list[int | None] | None) -> ValueInfoProto:
    shape = input_shape(source, name)
    if axes is None:
        axes = [None if isinstance(axis, str) else axis for axis in shape]
    if len(axes) != len(shape):
        raise UsageError(f"{source.role} source: {name}: expected an input of {len(shape)} axes, found {len(axes)}")
    kind = TensorProto.FLOAT if name == "cross" else helper.np_dtype_to_tensor_dtype(np.dtype(source.integers))
    return helper.make_tensor_value_info(name, kind, axes)


def _output(source: Source, name: str, found: np.ndarray) -> ValueInfoProto:
    shape = output_shape(source, name)
    axes = [None if isinstance(axis, str) else size for axis, size in zip(shape, found.shape, strict=True)]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(found.dtype), axes)


def _before(wired: Wired, name: str, value: ValueInfoProto) -> list[NodeProto]:
    """From an input of ours to the one of the file."""
    theirs, kind = f"{_THEIRS}{value.name}", value.type.tensor_type.elem_type
    feature = name if wired.role is Role.ITEM else name.partition("_")[2]
    nodes, last = [], name
    if wired.table_of(name) is not None:
        nodes.append(helper.make_node("Gather", [f"rows of {feature}", last], [f"{theirs}, rows"]))
        last = f"{theirs}, rows"
    if wired.turned(name):
        nodes.append(helper.make_node("Slice", [last, *_BACKWARDS], [f"{theirs}, turned"]))
        last = f"{theirs}, turned"
    return [*nodes, helper.make_node("Cast", [last], [theirs], to=kind)]


def _after(source: Source, theirs: list[str], found: Arrays, graph: onnx.GraphProto) -> list[NodeProto]:
    """From the outputs of the file to ours."""
    if source.role is not Role.USER:
        return [helper.make_node("Identity", [theirs[0]], list(found))]
    most = found["interests"].shape[1]
    constants: Arrays = {
        "shape of interests": np.array([0, most, found["interests"].shape[2]], np.int64),
        "first axis": np.array([0], np.int64),
        "all interests": np.array([most], np.int32),
    }
    graph.initializer.extend([numpy_helper.from_array(value, name) for name, value in constants.items()])
    # Reshape takes the first axis as it is (0), and makes [users, d] the one interest of [users, 1, d].
    interests = helper.make_node("Reshape", [theirs[0], "shape of interests"], ["interests"])
    if len(theirs) > 1:
        return [interests, helper.make_node("Identity", [theirs[1]], ["count"])]
    return [
        interests,
        helper.make_node("Shape", ["interests"], ["sizes of interests"]),
        helper.make_node("Gather", ["sizes of interests", "first axis"], ["users"]),
        helper.make_node("Expand", ["all interests", "users"], ["count"]),
    ]
