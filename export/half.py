"""Wide layers in fp16, for the tensor cores of a GPU: a product takes numbers rounded to it, and gives such.

Only the matrix products change. What stands between them, such as softmax and norms, stays in fp32.
"""

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

_TO, _FROM = "/to-fp16", "/from-fp16"  # ends of the names of casts
_SPLIT, _BEYOND, _INFINITE = "split-at-11-bits", "beyond-fp16", "infinite"
_LEAST_BEYOND = 65_520  # halfway to what would follow 65,504, the largest number of fp16


def put_in_half(model: ModelProto, layers: Sequence[str]) -> None:
    """Let the products named *layers*, each of some rows with a constant matrix, take and give fp16.

    Raises:
        OverflowError: If a weight is beyond fp16.
    """
    graph = model.graph
    constants = {one.name: one for one in graph.initializer}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.name not in layers:
            nodes.append(node)
            continue
        rows, *weights = node.input
        for weight in weights:
            if (name := _half(weight)) not in constants:
                constants[name] = _rounded(constants[weight])
        taken, given = f"{node.name}/taken", f"{node.name}/given"
        short = helper.make_node(node.op_type, [taken, *map(_half, weights)], [given], node.name)
        short.attribute.extend(node.attribute)
        nodes += [
            helper.make_node("Cast", [rows], [taken], node.name + _TO, to=TensorProto.FLOAT16),
            short,
            helper.make_node("Cast", [given], list(node.output), node.name + _FROM, to=TensorProto.FLOAT),
        ]
    used = {name for node in nodes for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(one for name, one in constants.items() if name in used)


def rounding(model: ModelProto) -> None:
    """Make of a graph of :func:`put_in_half` one in fp32 that rounds where a GPU does, to judge it on a CPU.

    A CPU has no product in fp16, and ONNX Runtime leaves out the roundings there. These are Veltkamp's: of a number in
    24 bits, ``c - (c - x)`` with ``c = (2^13 + 1) x`` are the first 11. Numbers below 6e-5, where fp16 has fewer, keep
    11; those beyond fp16 become infinite.
    """
    graph = model.graph
    numbers = {_SPLIT: 2**13 + 1, _BEYOND: _LEAST_BEYOND, _INFINITE: np.inf}
    constants = [numpy_helper.from_array(np.array(number, np.float32), name) for name, number in numbers.items()]
    for one in graph.initializer:
        half = one.data_type == TensorProto.FLOAT16
        constants.append(
            numpy_helper.from_array(numpy_helper.to_array(one).astype(np.float32), one.name) if half else one
        )
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == "Cast" and node.name.endswith((_TO, _FROM)):
            (x,), (rounded,) = node.input, node.output
            c, rest, eleven, size, beyond, infinite = (
                f"{node.name}/{part}" for part in ("c", "rest", "eleven", "size", "beyond", "infinite")
            )
            nodes += [
                helper.make_node("Mul", [x, _SPLIT], [c], c),
                helper.make_node("Sub", [c, x], [rest], rest),
                helper.make_node("Sub", [c, rest], [eleven], eleven),
                helper.make_node("Abs", [x], [size], size),
                helper.make_node("GreaterOrEqual", [size, _BEYOND], [beyond], beyond),
                helper.make_node("Mul", [x, _INFINITE], [infinite], infinite),
                helper.make_node("Where", [beyond, infinite, eleven], [rounded], node.name),
            ]
        else:
            nodes.append(node)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)


def _half(name: str) -> str:
    return f"{name}/fp16"


def _rounded(tensor: TensorProto) -> TensorProto:
    numbers = numpy_helper.to_array(tensor)
    if np.abs(numbers).max(initial=0.0) > np.finfo(np.float16).max:
        raise OverflowError(f"{tensor.name} holds {np.abs(numbers).max():g}")
    return numpy_helper.from_array(numbers.astype(np.float16), _half(tensor.name))
