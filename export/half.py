"""Wide layers in fp16, for the tensor cores of a GPU: a product takes numbers rounded to it, and gives such.

Only the matrix products change. What stands between them, such as softmax and norms, stays in fp32.
"""

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


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
            helper.make_node("Cast", [rows], [taken], f"{node.name}/to", to=TensorProto.FLOAT16),
            short,
            helper.make_node("Cast", [given], list(node.output), f"{node.name}/from", to=TensorProto.FLOAT),
        ]
    used = {name for node in nodes for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(one for name, one in constants.items() if name in used)


def _half(name: str) -> str:
    return f"{name}/fp16"


def _rounded(tensor: TensorProto) -> TensorProto:
    numbers = numpy_helper.to_array(tensor)
    if np.abs(numbers).max(initial=0.0) > np.finfo(np.float16).max:
        raise OverflowError(f"{tensor.name} holds {np.abs(numbers).max():g}")
    return numpy_helper.from_array(numbers.astype(np.float16), _half(tensor.name))
