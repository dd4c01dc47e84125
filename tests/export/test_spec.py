"""A TOML file that describes a team's own model: how its network is called, and what is said of a mistake."""

import re
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from artifacts.bundle import FeatureSpec, Role, read_bundle
from artifacts.errors import ParityError, UsageError
from export.parity import open_graph
from export.rows import Rows
from export.source import READERS, Source, run_source
from export.spec import sources_from_spec
from export.wired import Wired
from export.write import export
from features.vocabulary import Vocabulary

SPEC = FeatureSpec(item_features=("item_id", "kind"), history_length=3)
ROWS = {
    "item_id": Rows(Vocabulary("item_id", pa.array(["a", "b"])), np.array([9, 8, 5, 4])),
    "kind": Rows(Vocabulary("kind", pa.array(["x"])), np.array([0, 1, 2])),
}
TOML = """\
item = "item.onnx"
user = "user.onnx"
item_features = ["item_id", "kind"]
history_length = 3
oldest_first = true
[inputs.item]
sku = "item_id"
type = "kind"
[inputs.user]
recent = "history_item_id"
[vocabularies]
item_id = { file = "skus.txt", first = 0, padding = 2, unknown = 3 }
kind = "kinds.txt"
"""
TABLE = np.array([[1, 0], [0, 1], [0, 0], [2, 2]], np.float32)  # b, a, padding, unknown
KINDS = np.array([[0, 0], [0, 0], [10, 0]], np.float32)
WEIGHTS = np.array([[1.0], [10.0], [100.0]], np.float32)  # of the oldest, ... the newest behaviour


def write_pair(folder: Path, *, rows: int | str = "batch") -> None:
    """Write two files whose results are worked out by hand: a table looked up, and a weighted sum of its rows."""
    opset = [helper.make_opsetid("", 17)]
    wide = helper.make_tensor_value_info
    item = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "sku"], ["a"]),
            helper.make_node("Gather", ["kinds", "type"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["out"]),
        ],
        "item",
        [wide("sku", TensorProto.INT64, [rows]), wide("type", TensorProto.INT32, [rows])],
        [wide("out", TensorProto.FLOAT, [rows, 2])],
        [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(KINDS, "kinds")],
    )
    user = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "recent"], ["a"]),
            helper.make_node("Mul", ["a", "weights"], ["b"]),
            helper.make_node("ReduceSum", ["b", "axis"], ["out"], keepdims=0),
        ],
        "user",
        [wide("recent", TensorProto.INT64, [rows, 3])],
        [wide("out", TensorProto.FLOAT, [rows, 2])],
        [
            numpy_helper.from_array(TABLE, "table"),
            numpy_helper.from_array(WEIGHTS, "weights"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    for graph in (item, user):
        model = helper.make_model(graph, opset_imports=opset, ir_version=9)
        onnx.save_model(model, str(folder / f"{graph.name}.onnx"))
    (folder / "skus.txt").write_text("b\na\n")
    (folder / "kinds.txt").write_text("x\n")
    (folder / "model.toml").write_text(TOML)


def test_a_finished_pair_computes_with_the_rows_of_its_own(tmp_path: Path) -> None:
    """Inputs, rows, order of the history and shape of the output are made ours; the numbers are worked out by hand."""
    write_pair(tmp_path)

    item, user = export(READERS["spec"](str(tmp_path / "model.toml")), tmp_path / "bundles")

    vector = open_graph(item.layout.graph)(
        {"item_id": np.array([0, 1, 2, 3], np.int32), "kind": np.array([0, 1, 2, 2], np.int32)}
    )["vector"]
    assert vector.tolist() == [[0, 0], [2, 2], [10, 1], [11, 0]]  # padding, unknown, a of kind x, b of kind x
    found = open_graph(user.layout.graph)(
        {
            "history_item_id": np.array([[3, 2, 0], [0, 0, 0], [2, 1, 3]], np.int32),  # newest first
            "history_kind": np.zeros((3, 3), np.int32),
        }
    )
    assert found["interests"].tolist() == [[[100, 10]], [[0, 0]], [[21, 120]]]
    assert found["count"].tolist() == [1, 1, 1]
    assert item.model_id == user.model_id
    assert (item.about["opset"], user.interests, user.width) == (17, 1, 2)
    assert [bundle.about["parity"]["idle_inputs"] for bundle in (item, user)] == [[], ["history_kind"]]
    assert read_bundle(user.folder) == user


def test_equal_files_give_equal_bundles(tmp_path: Path) -> None:
    """Wherever they lie; other weights are another model."""
    made = []
    for name in ("one", "two", "other"):
        (tmp_path / name).mkdir()
        write_pair(tmp_path / name)
        if name == "other":
            model = onnx.load(str(tmp_path / name / "user.onnx"))
            model.graph.initializer[1].CopyFrom(numpy_helper.from_array(2 * WEIGHTS, "weights"))
            onnx.save_model(model, str(tmp_path / name / "user.onnx"))
        made.append(export(sources_from_spec(tmp_path / name / "model.toml"), tmp_path / name / "bundles"))
    one, two, other = made

    assert [bundle.bundle_id for bundle in one] == [bundle.bundle_id for bundle in two]
    assert one[0].model_id == two[0].model_id != other[0].model_id


def test_weights_beside_a_file_are_taken_into_the_graph(tmp_path: Path) -> None:
    """Exporters put them there; the bundle is whole without them."""
    graphs = []
    for name in ("inside", "beside"):
        (tmp_path / name).mkdir()
        write_pair(tmp_path / name)
        if name == "beside":
            path = tmp_path / name / "item.onnx"
            onnx.save_model(
                onnx.load(str(path)), str(path), save_as_external_data=True, location="item.data", size_threshold=0
            )
        bundles = export(sources_from_spec(tmp_path / name / "model.toml"), tmp_path / name / "bundles")
        graphs.append(bundles[0].layout.graph.read_bytes())

    assert (tmp_path / "beside" / "item.data").stat().st_size > 0
    assert graphs[0] == graphs[1]


def test_a_finished_ranker_is_told_cross_features(tmp_path: Path) -> None:
    """It takes what it wants of the inputs: here the candidate, and one number for each pair."""
    wide, pairs = helper.make_tensor_value_info, ["users", "pairs"]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["bias", "target"], ["a"]),
            helper.make_node("ReduceSum", ["numbers", "axis"], ["b"], keepdims=0),
            helper.make_node("Add", ["a", "b"], ["out"]),
        ],
        "ranker",
        [wide("numbers", TensorProto.FLOAT, [*pairs, 2]), wide("target", TensorProto.INT32, pairs)],
        [wide("out", TensorProto.FLOAT, pairs)],
        [
            numpy_helper.from_array(np.array([1, 2, 3, 4], np.float32), "bias"),
            numpy_helper.from_array(np.array([2], np.int64), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save_model(model, str(tmp_path / "ranker.onnx"))
    (tmp_path / "skus.txt").write_text("b\na\n")
    (tmp_path / "model.toml").write_text(
        'ranker = "ranker.onnx"\nitem_features = ["item_id"]\nhistory_length = 3\n'
        'cross_features = ["times_had", "popularity"]\n[vocabularies]\nitem_id = "skus.txt"\n'
        '[inputs.ranker]\nnumbers = "cross"\ntarget = "candidate_item_id"\n'
    )

    (ranker,) = export(sources_from_spec(tmp_path / "model.toml"), tmp_path / "bundles")

    score = open_graph(ranker.layout.graph)(
        {
            "history_item_id": np.zeros((1, 3), np.int32),
            "gap": np.zeros((1, 3), np.int32),
            "candidate_item_id": np.array([[0, 1, 2, 3]], np.int32),
            "cross": np.array([[[10, 0], [0, 20], [1, 1], [0, 0]]], np.float32),
        }
    )["score"]
    assert score.tolist() == [[11, 22, 6, 3]]  # a is the second line: row 3 of theirs, and row 2 of ours


def test_a_file_for_one_batch_size_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, rows=11)

    with pytest.raises(ParityError, match="case no baked batch size: item_id has 11 items for ever"):
        export(sources_from_spec(tmp_path / "model.toml"), tmp_path / "bundles")
    assert not (tmp_path / "bundles").exists()


def test_a_vocabulary_that_is_longer_than_the_table_is_refused(tmp_path: Path) -> None:
    """ONNX Runtime says so, and we name the file."""
    write_pair(tmp_path)
    (tmp_path / "kinds.txt").write_text("x\ny\n")

    with pytest.raises(ParityError, match=r"item source: it failed on 11 rows .*: item\.onnx: .*out of data bounds"):
        export(sources_from_spec(tmp_path / "model.toml"), tmp_path / "bundles")


class Pair(nn.Module):
    """Says which user, candidate and behaviours it was given, in one number."""

    def forward(self, target: Tensor, recent: Tensor) -> Tensor:
        return target * 100.0 + (recent * torch.tensor([1.0, 10.0, 0.0])).sum(dim=1)


def test_pairs_are_scored_one_by_one_and_put_together_again() -> None:
    """Rows are theirs: a is 5, b is 4; the oldest of [b, a, padding] comes last for them."""
    taken = ("candidate_item_id", "history_item_id")
    module = Wired(Pair(), Role.RANKER, SPEC, ROWS, taken=taken, pairwise=True, oldest_first=True)
    vocabularies = {name: rows.vocabulary for name, rows in ROWS.items()}
    source = Source(role=Role.RANKER, module=module, spec=SPEC, vocabularies=vocabularies)
    inputs = {name: np.zeros((2, 3), np.int32) for name in source.inputs}
    inputs["history_item_id"] = np.array([[3, 2, 0], [0, 0, 0]], np.int32)
    inputs["candidate_item_id"] = np.array([[2, 3, 1], [3, 2, 2]], np.int32)

    score = run_source(source, inputs)["score"]

    first, second = 9 + 10 * 5, 9 + 10 * 9  # padding is 9
    assert score.tolist() == [[500 + first, 400 + first, 800 + first], [400 + second, 500 + second, 500 + second]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("history_length", "histroy_length"), "expected the keys item, user, ranker, "),
        (('"item_id", "kind"]', '"kind"]'), "item_features: expected item_id first, found kind"),
        (("oldest_first = true", "oldest_first = 1.5"), "oldest_first: expected true or false, found 1.5"),
        (('"history_item_id"', '"history_sku"'), "found recent = 'history_sku'"),
        (('recent = "', 'recents = "'), "inputs.user: expected names out of recent, found recents"),
        (('kind = "kinds.txt"', ""), "vocabularies: expected a file for every feature, found none for kind"),
        (("first = 0", "start = 0"), "vocabularies, item_id: expected the keys file, type, padding, unknown, first"),
        (('"item.onnx"', '"gone.onnx"'), "gone.onnx: expected an ONNX file, found none"),
        (('"item.onnx"', '"nowhere:item"'), "nowhere:item: no module nowhere; is its folder on PYTHONPATH?"),
        (('"item.onnx"', '"platform:system"'), "expected it to return a torch module, found a str"),
        (("item = ", "item "), "model.toml: "),
        (("history_length = 3", 'similarity = "dot"'), "similarity: expected inner_product or cosine, found dot"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    write_pair(tmp_path)
    (tmp_path / "model.toml").write_text(TOML.replace(*change, 1))

    with pytest.raises(UsageError, match=re.escape(message)) as error:
        sources_from_spec(tmp_path / "model.toml")
    assert error.value.exit_code == 2


def test_a_file_of_an_old_opset_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path)
    model = onnx.load(str(tmp_path / "item.onnx"))
    model.opset_import[0].version = 11
    onnx.save_model(model, str(tmp_path / "item.onnx"))

    with pytest.raises(UsageError, match="expected opset 13 or newer, found 11; export it anew"):
        sources_from_spec(tmp_path / "model.toml")


def test_without_a_spec_there_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a TOML file that describes a model"):
        sources_from_spec(tmp_path / "model.toml")
    (tmp_path / "model.toml").write_text('item_features = ["item_id"]\nvocabularies = {item_id = "skus.txt"}\n')
    (tmp_path / "skus.txt").write_text("a\n")
    with pytest.raises(UsageError, match="expected a network for one of item, user, ranker, found none"):
        sources_from_spec(tmp_path / "model.toml")
