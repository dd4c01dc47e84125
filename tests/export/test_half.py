"""fp16 on graphs made by hand."""

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from artifacts.bundle import Role
from artifacts.errors import ParityError
from export.half import put_in_half, rounding
from export.narrow import write_narrow


def two_products(weight: np.ndarray) -> onnx.ModelProto:
    """``(x W) W2 + b`` as a MatMul and a Gemm, behind which a number is added."""
    bias = np.full(64, 0.1, np.float32)
    constants = {"W": weight, "W2": np.eye(256, 64, dtype=np.float32), "b": bias, "one": np.float32(1)}
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["hidden"], "first"),
        helper.make_node("Gemm", ["hidden", "W2", "b"], ["sum"], "second", beta=2.0),
        helper.make_node("Add", ["sum", "one"], ["y"], "third"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 64])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(["y"], {"x": x})[0]
    return result


def test_a_product_takes_numbers_rounded_to_fp16() -> None:
    """2049 is no fp16 and becomes 2048; what is not named, and what stands behind a product, is fp32 as before.

    A CPU has no product in fp16: ONNX Runtime computes it in fp32 there, from the rounded weights.
    """
    weight = np.zeros((64, 256), np.float32)
    weight[0, 0], weight[1, 1] = 2049.0, 0.5
    x = np.zeros((2, 64), np.float32)
    x[0, :2], x[1, :2] = (1.0, 1.0), (0.5, 3.0)
    whole, first, both = (two_products(weight) for _ in range(3))
    put_in_half(first, ["first"])
    put_in_half(both, ["first", "second"])
    for model in (first, both):
        onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(whole, x)[:, 0], [2049 + 1.2, 1024.5 + 1.2], rtol=1e-7)
    np.testing.assert_allclose(run(first, x)[:, :2], [[2048 + 1.2, 0.5 + 1.2], [1024 + 1.2, 1.5 + 1.2]], rtol=1e-7)
    np.testing.assert_allclose(run(both, x)[:, 0], [2048 + 1.2, 1024 + 1.2], rtol=1e-3)


def test_the_graph_that_judges_rounds_what_comes_in_and_out() -> None:
    """Each number is the nearest of fp16, as NumPy has it; and the sums between are as wide as a GPU's."""
    weight = np.zeros((64, 256), np.float32)
    weight[0, 0] = 2049.0
    model = two_products(weight)
    put_in_half(model, ["first", "second"])
    rounding(model)
    onnx.checker.check_model(model, full_check=True)
    assert {one.data_type for one in model.graph.initializer} == {TensorProto.FLOAT}
    x = np.zeros((3, 64), np.float32)
    x[:, 0] = 1.0, 0.333, 1.0005
    first = (x[:, 0].astype(np.float16).astype(np.float32) * np.float32(2048)).astype(np.float16).astype(np.float32)
    second = (first + 2 * np.float32(np.float16(0.1))).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(run(model, x)[:, 0], second + 1)


def test_what_is_beyond_fp16_is_infinite_where_it_is_judged() -> None:
    """65,519 is rounded to the largest number of fp16, 65,520 to what is no number of it; so it is after a product."""
    weight = np.zeros((64, 256), np.float32)
    weight[0, 0], weight[1, 1] = 1.0, -4.0
    model = two_products(weight)
    put_in_half(model, ["first", "second"])
    rounding(model)
    onnx.checker.check_model(model, full_check=True)
    x = np.zeros((3, 64), np.float32)
    x[0, 0], x[1, 0], x[2, 1] = 65_519.0, 65_520.0, 20_000.0

    y = run(model, x)

    assert y[0, 0] == 65_505
    assert not np.isfinite(y[1, 0])
    assert not np.isfinite(y[2, 1])


def test_the_weights_are_there_once() -> None:
    """Those in fp32 that nothing takes any more are gone, and the bytes with them."""
    model = two_products(np.ones((64, 256), np.float32))
    put_in_half(model, ["first", "second"])
    assert sorted(one.name for one in model.graph.initializer) == ["W/fp16", "W2/fp16", "b/fp16", "one"]


def test_a_weight_beyond_fp16_is_refused(small: ModuleType, tmp_path: Path) -> None:
    """It would be infinite, whatever real lists say of it."""
    weight = np.zeros((64, 256), np.float32)
    weight[3, 5] = -7e4
    graph, narrowed = tmp_path / "model.onnx", tmp_path / "narrowed.onnx"
    onnx.save(two_products(weight), graph)
    with pytest.raises(ParityError, match="ranker graph in fp16: W holds 70000, where 65504 is the most"):
        write_narrow(small.make_source(Role.RANKER), graph, narrowed, {}, "fp16")
    assert [path.name for path in tmp_path.iterdir()] == [graph.name]
