"""Graphs made by hand: what hides in branches, in functions and in names of weight files."""

from types import ModuleType

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from artifacts.bundle import FeatureSpec, Role
from artifacts.errors import ParityError
from export.graph import clean, require_sound
from export.source import Source


@pytest.fixture
def source(small: ModuleType) -> Source:
    spec = FeatureSpec(item_features=("item_id",), history_length=5)
    made: Source = small.make_source(Role.ITEM, spec=spec)
    return made


def model_of(
    nodes: list[NodeProto],
    *,
    rows: int | str = "items",
    given: int | str = "items",
    functions: tuple[onnx.FunctionProto, ...] = (),
    domains: tuple[str, ...] = ("",),
) -> ModelProto:
    table = numpy_helper.from_array(np.ones((22, 4), np.float32), "E")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["E", "item_id"], ["e"], name="look_up"), *nodes],
        "g",
        [helper.make_tensor_value_info("item_id", TensorProto.INT32, [rows])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [given, 4])],
        [table],
    )
    imports = [helper.make_opsetid(domain, 18 if not domain else 1) for domain in domains]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions))


IDENTITY = helper.make_node("Identity", ["e"], ["vector"])


def branch(op: str) -> onnx.GraphProto:
    node = helper.make_node(op, ["e"], ["b"], name=f"hidden_{op}")
    return helper.make_graph([node], op, [], [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)])


def test_sound(source: Source) -> None:
    """A graph of plain operators is taken, and its contract read."""
    signature = require_sound(model_of([IDENTITY]), source)
    assert [(t.name, t.type, t.shape) for t in signature.inputs] == [("item_id", "int32", ("items",))]
    assert [(t.name, t.type, t.shape) for t in signature.outputs] == [("vector", "float32", ("items", 4))]


@pytest.mark.parametrize(
    "op", ["RandomNormalLike", "RandomUniformLike", "RandomNormal", "RandomUniform", "Multinomial", "Bernoulli"]
)
def test_random(source: Source, op: str) -> None:
    """A random operator is found wherever it is: in the graph, in a branch of a branch, in a function's body."""
    plain = helper.make_node(op, ["e"], ["vector"], name="noise")
    inner = helper.make_node("If", ["c"], ["b"], then_branch=branch(op), else_branch=branch("Identity"))
    outer = helper.make_graph([inner], "outer", [], [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)])
    nested = helper.make_node("If", ["c"], ["vector"], then_branch=branch("Identity"), else_branch=outer)
    body = [helper.make_node(op, ["x"], ["y"], name="noise")]
    function = helper.make_function("ours", "Noise", ["x"], ["y"], body, [helper.make_opsetid("", 18)])
    called = model_of(
        [helper.make_node("Noise", ["e"], ["vector"], domain="ours")], functions=(function,), domains=("", "ours")
    )
    for model in (model_of([plain]), model_of([nested]), called):
        with pytest.raises(ParityError, match=f"no random operator: found {op}"):
            require_sound(model, source)


def test_dropout(source: Source) -> None:
    """A Dropout that may be in training mode is random; one that may not is none."""
    require_sound(model_of([helper.make_node("Dropout", ["e"], ["vector"])]), source)
    with pytest.raises(ParityError, match="found Dropout"):
        require_sound(model_of([helper.make_node("Dropout", ["e", "ratio", "training"], ["vector"])]), source)


def test_foreign_operators(source: Source) -> None:
    """An operator that only one runtime knows is refused by name."""
    node = helper.make_node("FusedGelu", ["e"], ["vector"], domain="com.example")
    with pytest.raises(ParityError, match=r"found com\.example\.FusedGelu"):
        require_sound(model_of([node], domains=("", "com.example")), source)


def test_shapes(source: Source) -> None:
    """A fixed size on a dynamic axis is refused on either side; another name for it becomes ours."""
    with pytest.raises(ParityError, match="item_id has 8 items for ever"):
        require_sound(model_of([IDENTITY], rows=8), source)
    with pytest.raises(ParityError, match="vector has 8 items for ever"):
        require_sound(model_of([IDENTITY], given=8), source)
    model = model_of([IDENTITY], given="s77")
    assert require_sound(model, source).outputs[0].shape == ("items", 4)
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "items"


@pytest.mark.parametrize("place", ["../other/model.onnx.data", "/tmp/model.onnx.data", "weights.bin"])
def test_weights_lie_in_the_folder(source: Source, place: str) -> None:
    """Weights outside the graph lie in the bundle's own file, never elsewhere on a machine."""
    model = model_of([IDENTITY])
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], place)
    with pytest.raises(ParityError, match=r"expected weights in model\.onnx\.data beside it, found E in"):
        require_sound(model, source)


def test_clean_leaves_the_computation(source: Source) -> None:
    """What is taken out of a graph changes no result; what names a machine is gone, in branches too."""
    condition = numpy_helper.from_array(np.array(True), "c")
    node = helper.make_node("If", ["c"], ["vector"], then_branch=branch("Exp"), else_branch=branch("Identity"))
    model = model_of([node])
    model.graph.initializer.append(condition)
    model.doc_string = model.graph.doc_string = model.producer_version = "/home/secret/1"
    for entry in (model, model.graph, node, model.graph.node[1].attribute[0].g.node[0], model.graph.output[0]):
        entry.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/secret/file.py")
    model.graph.node[1].attribute[0].g.doc_string = "/home/secret"
    before = onnx.reference.ReferenceEvaluator(model).run(None, {"item_id": np.array([1, 2])})[0]
    clean(model)
    assert "secret" not in str(model)
    assert np.array_equal(onnx.reference.ReferenceEvaluator(model).run(None, {"item_id": np.array([1, 2])})[0], before)
