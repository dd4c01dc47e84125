"""From a torch module to an ONNX file with nothing in it but the computation, and the reasons to refuse one."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from artifacts.bundle import Role, Tensor
from artifacts.errors import ParityError
from artifacts.layout import BundleLayout
from export.finished import FinishedFile, graph_of
from export.sample import ANY, KINDS, draw_rows
from export.source import Arrays, Source, input_shape, output_shape, run_source
from export.wired import Wired

# The newest opset that torch.onnx translates to without a conversion of its own, and for whose operators every ONNX
# Runtime that we pin has a CUDA kernel; with a newer one, single operators fall back to the CPU without a word.
OPSET = 18

# A protobuf message ends at 2 GiB; the rest of the graph needs room too.
EXTERNAL_OVER = 1_800_000_000

# Sizes of the traced example: primes, so that no size of the network is taken for one of them.
_TRACED_ROWS, _TRACED_CANDIDATES = 11, 13

_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
_OWN_DOMAINS = frozenset({"", "ai.onnx"})


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a graph, in order, and the opset of its operators."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    opset: int


class _Starred(torch.nn.Module):
    """Gives any module one ``forward(*inputs)``, whose dynamic shapes have one spelling."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.module(*inputs)


def to_onnx(source: Source, path: Path) -> Signature:
    """Write the graph of *source* under *path*, its weights beside it if they are too big for one file.

    The same source gives the same bytes, in any process: of names, stack traces, file paths and versions nothing stays.

    Raises:
        ParityError: If it cannot be a graph, holds a random operator, or has a fixed size where an axis is dynamic.
        UsageError: If it gives other outputs than its role has.
    """
    kinds = [ANY if source.role is not Role.ITEM else KINDS[Role.ITEM][-1]] * _TRACED_ROWS
    example = draw_rows(source, kinds, candidates=_TRACED_CANDIDATES)
    outputs = _traced_outputs(source, example)
    wired = source.module
    if isinstance(wired, Wired) and isinstance(wired.inside, FinishedFile):
        _save(graph_of(source, wired, wired.inside, outputs), path)
    else:
        program = _trace(source, example, list(outputs))
        weights = program.model.graph.initializers.values()
        program.save(
            path, external_data=sum(one.const_value.nbytes for one in weights if one.const_value) > EXTERNAL_OVER
        )
        del program
    model = onnx.load(str(path), load_external_data=False)
    clean(model)
    signature = require_sound(model, source)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return signature


def _save(model: ModelProto, path: Path) -> None:
    """Write a graph, its weights beside it if they are too big for one file."""
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    beside = BundleLayout(Path()).external_data.name
    onnx.save_model(model, str(path), save_as_external_data=weights > EXTERNAL_OVER, location=beside)


def _traced_outputs(source: Source, example: Arrays) -> Arrays:
    try:
        return run_source(source, example)
    except (TypeError, IndexError, RuntimeError, ValueError) as error:
        raise ParityError(
            f"{source.role} source: it failed on {_TRACED_ROWS} rows of the inputs {', '.join(source.inputs)}: "
            f"{_first_line(error)}"
        ) from error


def _trace(source: Source, example: Arrays, outputs: list[str]) -> torch.onnx.ONNXProgram:
    axes = {name: torch.export.Dim(name) for name in ("users", "items", "candidates", "length")}
    shapes = tuple(
        {place: axes[axis] for place, axis in enumerate(input_shape(source, name)) if isinstance(axis, str)}
        for name in source.inputs
    )
    try:
        # Not optimised: onnxscript takes every constant below 1e-8 for 0, and so drops the epsilon of a normalised
        # vector, whose padded row becomes NaN. ONNX Runtime folds what can be folded when it loads the graph.
        with _quiet():
            program = torch.onnx.export(
                _Starred(source.served or source.module).eval(),
                tuple(torch.from_numpy(example[name]) for name in source.inputs),
                input_names=list(source.inputs),
                output_names=outputs,
                opset_version=OPSET,
                dynamic_shapes={"inputs": shapes},
                dynamo=True,
                optimize=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ParityError(
            f"{source.role} source: torch cannot make an ONNX graph of it: {_first_line(error.__cause__ or error)}"
        ) from error
    if program is None:
        raise ParityError(f"{source.role} source: torch gave no graph")
    return program


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what torch says of its own inner life; what it says of ours comes as errors."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def clean(model: ModelProto) -> None:
    """Take out all that does not compute: it names source files of this machine, or changes with a version."""
    model.producer_name, model.producer_version, model.doc_string, model.domain = "nightrec", "", "", ""
    model.ClearField("metadata_props")
    for function in model.functions:
        function.doc_string = ""
        function.ClearField("metadata_props")
        function.ClearField("value_info")
    for graph in _graphs(model.graph):
        graph.doc_string = ""
        for field in ("metadata_props", "value_info", "quantization_annotation"):
            graph.ClearField(field)
        for entry in (*graph.input, *graph.output, *graph.initializer):
            entry.doc_string = ""
            entry.ClearField("metadata_props")
        for tensor in graph.initializer:
            if tensor.data_location != TensorProto.EXTERNAL:
                tensor.ClearField("data_location")  # it says in so many bytes that there is nothing to say
    for node in _nodes(model):
        node.doc_string = ""
        node.ClearField("metadata_props")
        for attribute in node.attribute:
            attribute.doc_string = ""


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        yield from _subgraphs(node)


def _subgraphs(node: NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield from _graphs(attribute.g)
        for graph in attribute.graphs:
            yield from _graphs(graph)


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Go through every node: of the graph, of the bodies of its branches and loops, and of its functions."""
    for graph in _graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        for node in function.node:
            yield node
            for graph in _subgraphs(node):
                yield from graph.node


def require_sound(model: ModelProto, source: Source) -> Signature:
    """Refuse a graph that cannot give the same row the same result, or was made for one batch size.

    Raises:
        ParityError: Naming the operator, the axis or the weights file.
    """
    local = {(function.domain, function.name) for function in model.functions}
    for node in _nodes(model):
        if node.op_type in _RANDOM or _drops(node):
            raise ParityError(
                f"{source.role} graph, case no random operator: found {node.op_type} (node {node.name}); "
                "the same row must give the same result, so draw nothing in forward() once it is in evaluation mode"
            )
        if node.domain not in _OWN_DOMAINS and (node.domain, node.op_type) not in local:
            raise ParityError(f"{source.role} graph: expected operators of ONNX, found {node.domain}.{node.op_type}")
    for tensor in _external(model):
        places = [entry.value for entry in tensor.external_data if entry.key == "location"]
        if places != [BundleLayout(Path()).external_data.name]:
            raise ParityError(
                f"{source.role} graph: expected weights in {BundleLayout(Path()).external_data.name} beside it, "
                f"found {tensor.name} in {', '.join(places) or 'no file'}"
            )
    outputs = [value.name for value in model.graph.output]
    return Signature(
        tuple(_tensor(source, v, input_shape(source, v.name)) for v in model.graph.input),
        tuple(
            _tensor(source, v, output_shape(source, name)) for v, name in zip(model.graph.output, outputs, strict=True)
        ),
        max(entry.version for entry in model.opset_import if entry.domain in _OWN_DOMAINS),
    )


def _drops(node: NodeProto) -> bool:
    """Whether a node is a Dropout that may be in training mode: that is its third input."""
    return node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] != ""


def _external(model: ModelProto) -> Iterator[TensorProto]:
    for graph in _graphs(model.graph):
        yield from (tensor for tensor in graph.initializer if tensor.data_location == TensorProto.EXTERNAL)
    for node in _nodes(model):
        for attribute in node.attribute:
            tensors = [attribute.t, *attribute.tensors]
            yield from (tensor for tensor in tensors if tensor.data_location == TensorProto.EXTERNAL)


def _tensor(source: Source, value: ValueInfoProto, expected: tuple[int | str | None, ...]) -> Tensor:
    """Read a tensor's contract, and give its dynamic axes our names where torch made up others."""
    kind = value.type.tensor_type
    found: list[int | str] = []
    for place, (axis, wanted) in enumerate(zip(kind.shape.dim, expected, strict=True)):
        fixed = axis.dim_value if axis.HasField("dim_value") else None
        if isinstance(wanted, str):
            if fixed is not None:
                raise ParityError(
                    f"{source.role} graph, case no baked batch size: {value.name} has {fixed} {wanted} for ever (axis "
                    f"{place}), expected any number; take sizes from the inputs' shapes in forward()"
                )
            axis.dim_param = wanted
        elif fixed is None or (wanted is not None and fixed != wanted):
            raise ParityError(
                f"{source.role} graph: {value.name}, axis {place}: expected {wanted or 'a fixed size'}, "
                f"found {fixed or axis.dim_param or 'no size'}"
            )
        found.append(wanted if isinstance(wanted, str) else axis.dim_value)
    return Tensor(value.name, str(helper.tensor_dtype_to_np_dtype(kind.elem_type)), tuple(found))
