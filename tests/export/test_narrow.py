"""int8 and fp16: judged on real lists; a row depends on itself alone, and what changes too much stays in fp32."""

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch

from artifacts.bundle import Bundle, FeatureSpec, Role, read_bundle
from artifacts.errors import ParityError, UsageError
from batch.session import open_session
from export import narrow as module
from export.narrow import narrow
from export.parity import open_graph
from export.sample import ANY, draw_rows
from export.source import Source, run_source
from export.write import export
from features.vocabulary import Vocabulary
from models.bst import Bst, BstConfig

SPEC = FeatureSpec(("item_id",), (), 5, (60, 3600), ("retrieval_score",))
VOCABULARIES = {"item_id": Vocabulary("item_id", pa.array(range(100, 140), pa.int64()))}
LISTS, CANDIDATES = 120, 20


def make_ranker(*, residual: bool = True) -> Source:
    """A BST whose layers are wide enough, with lists that came true by its own scores, more or less."""
    bst = Bst(BstConfig(width=64, heads=4, mlp=(256, 64), residual=residual), SPEC, VOCABULARIES)
    with torch.no_grad():
        torch.nn.init.normal_(bst.head.last.weight, std=0.3, generator=torch.Generator().manual_seed(4))
    source = Source(Role.RANKER, bst.eval(), SPEC, VOCABULARIES, trained_through="2026-01-31")
    inputs = draw_rows(source, [ANY] * LISTS, candidates=CANDIDATES, seed=11)
    chance = np.random.default_rng(2).random((LISTS, CANDIDATES))
    label = (chance < run_source(source, inputs)["score"]).astype(np.int8)
    label[:, -2:] = -1
    return replace(source, lists={**inputs, "label": label})


@pytest.fixture(scope="module")
def ranker() -> Source:
    """The logit starts from the retrieval score, and the network adds to it."""
    return make_ranker()


@pytest.fixture(scope="module")
def wide(ranker: Source, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export([ranker], tmp_path_factory.mktemp("wide"))[0]


@pytest.fixture(scope="module")
def short(ranker: Source, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export([ranker], tmp_path_factory.mktemp("short"), precision="int8")[0]


@pytest.fixture
def graph(wide: Bundle, tmp_path: Path) -> Path:
    """A copy of the fp32 graph."""
    return Path(shutil.copy(wide.layout.graph, tmp_path / "model.onnx"))


def test_wide_layers_are_narrow_and_the_rest_is_not(wide: Bundle, short: Bundle) -> None:
    """Of the products with a constant matrix those of 64 x 256 numbers and more are int8, and it is told."""
    model = onnx.load(short.layout.graph)
    shapes = [tuple(one.dims) for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT8]
    # d -> 256 -> d of the block, then candidate, cross feature and F (64 + 1 + 64) -> 256 -> 64.
    assert sorted(shape for shape in shapes if len(shape) == 2) == [(64, 256), (129, 256), (256, 64), (256, 64)]
    assert [opset.domain for opset in model.opset_import] == [""]
    assert read_bundle(short.folder).about["precision"] == "int8"
    assert read_bundle(short.folder).about["narrow"]["layers"] == 4
    assert short.about["narrow"]["lists"] == LISTS // 2
    assert wide.about["precision"] == "fp32"
    assert "narrow" not in wide.about
    assert [path.name for path in sorted(short.folder.iterdir())] == [p.name for p in sorted(wide.folder.iterdir())]
    assert short.model_id == wide.model_id
    assert short.bundle_id != wide.bundle_id


def test_what_is_told_of_it_is_what_a_count_gives(ranker: Source, wide: Bundle, short: Bundle) -> None:
    """Overlap and AUC of the lists that gave no scales, counted one by one."""
    judges = {name: array[1::2] for name, array in ranker.lists.items()}
    label = judges.pop("label")
    one, other = (open_graph(bundle.layout.graph)(judges)["score"] for bundle in (wide, short))

    kept = []
    for row in range(len(label)):
        there = [int(place) for place in np.flatnonzero(label[row] >= 0)]
        best = [set(sorted(there, key=lambda place: (-scores[row, place], place))[:10]) for scores in (one, other)]
        kept.append(len(best[0] & best[1]) / 10)

    def auc(scores: np.ndarray) -> float:
        pairs = itertools.product(scores[label == 1], scores[label == 0])
        return float(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]))

    told = short.about["narrow"]
    assert told["overlap_of_10"] == pytest.approx(np.mean(kept))
    assert told["auc_fp32"] == pytest.approx(auc(one))
    assert told["auc_int8"] == pytest.approx(auc(other))
    assert 0 < told["worst_absolute"] < 0.02
    assert told["worst_absolute"] == pytest.approx(np.abs(one - other)[label >= 0].max())


def test_the_night_takes_it_and_a_row_stays_alone(ranker: Source, short: Bundle) -> None:
    """The canary rows replay in a session, and a row keeps its bits among other rows, in other places."""
    session = open_session(read_bundle(short.folder), rows=16, threads=1)
    inputs = {name: array[:16] for name, array in ranker.lists.items() if name != "label"}
    expected = session.run(inputs)["score"]

    order = np.random.default_rng(3).permutation(16)
    moved = session.run({name: array[order] for name, array in inputs.items()})["score"]
    np.testing.assert_array_equal(moved, expected[order])
    np.testing.assert_array_equal(session.run({n: array[:3] for n, array in inputs.items()})["score"], expected[:3])


def test_the_same_source_gives_the_same_bytes(ranker: Source, short: Bundle, graph: Path) -> None:
    """Scales follow from the lists, and the graph from both; nothing else is left beside it."""
    narrow(ranker, graph)
    assert graph.read_bytes() == short.layout.graph.read_bytes()
    assert [path.name for path in graph.parent.iterdir()] == [graph.name]


@pytest.mark.parametrize(
    ("name", "bound", "words"),
    [
        ("OVERLAP", 1.1, r"of the best 10 of 60 real lists [01]\.\d{4} stay, expected at least 1.1"),
        ("AUC", -1.0, r"its AUC on 60 real lists is 0\.\d{5}, in fp32 0\.\d{5}; expected at most -1.0 between them"),
    ],
)
def test_what_changes_too_much_stays_as_it_was(
    ranker: Source, wide: Bundle, graph: Path, monkeypatch: pytest.MonkeyPatch, name: str, bound: float, words: str
) -> None:
    """What the bounds do not allow is refused with both numbers, and the graph is as it was."""
    monkeypatch.setattr(module, name, bound)
    with pytest.raises(ParityError, match=words):
        narrow(ranker, graph)
    assert graph.read_bytes() == wide.layout.graph.read_bytes()
    assert [path.name for path in graph.parent.iterdir()] == [graph.name]


def test_auto_says_why_it_stays_in_fp32(tmp_path: Path) -> None:
    """A network whose scores lie close together loses its order by less; `int8` would write no bundle."""
    source = make_ranker(residual=False)
    (bundle,) = export([source], tmp_path / "auto", precision="auto")
    assert bundle.about["precision"] == "fp32"
    why = bundle.about["narrow"]["refused"]
    assert why.startswith("ranker graph in int8: of the best 10 of 60 real lists 0.")
    with pytest.raises(ParityError) as refused:
        export([source], tmp_path / "int8", precision="int8")
    assert str(refused.value) == why
    assert not (tmp_path / "int8").exists()


def test_without_real_lists_there_is_nothing_to_judge_by(ranker: Source, graph: Path) -> None:
    """A ranker that brings no lists, or a handful, stays in fp32."""
    few = {name: array[:49] for name, array in ranker.lists.items()}
    for lists, found in (({}, 0), (few, 49)):
        with pytest.raises(ParityError, match=f"expected at least 50 real lists .*, found {found}; `nightrec fit`"):
            narrow(replace(ranker, lists=lists), graph)
    with pytest.raises(UsageError, match="--precision: expected fp32, int8, fp16 or auto, found fp8"):
        export([ranker], graph.parent, precision="fp8")


@pytest.fixture(scope="module")
def half(ranker: Source, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export([ranker], tmp_path_factory.mktemp("half"), precision="fp16")[0]


def test_in_fp16_the_wide_layers_compute_in_it_and_nothing_else(wide: Bundle, half: Bundle) -> None:
    """The same layers as in int8; their weights are rounded, their results are fp32 again, the rest is as it was."""
    model = onnx.load(half.layout.graph)
    short = {one.name: one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT16}
    shapes = [tuple(one.dims) for one in short.values()]
    assert sorted(shape for shape in shapes if len(shape) == 2) == [(64, 256), (129, 256), (256, 64), (256, 64)]
    takers = [node for node in model.graph.node if set(node.input) & short.keys()]
    assert {node.op_type for node in takers} <= {"MatMul", "Gemm"}
    assert len(takers) == 4
    assert {value.type.tensor_type.elem_type for value in model.graph.output} == {onnx.TensorProto.FLOAT}
    assert read_bundle(half.folder).about["precision"] == "fp16"
    assert half.about["narrow"]["layers"] == 4
    assert half.about["narrow"]["overlap_of_10"] >= 0.99
    assert half.about["narrow"]["auc_fp16"] == pytest.approx(half.about["narrow"]["auc_fp32"], abs=0.0005)
    assert 0 < half.about["narrow"]["worst_absolute"] < 0.01  # it is not the fp32 graph under another name
    assert half.model_id == wide.model_id
    assert half.bundle_id != wide.bundle_id


def test_the_night_takes_fp16_too(ranker: Source, half: Bundle) -> None:
    """The canary rows replay in a session on a CPU, which computes in fp32 from rounded weights."""
    session = open_session(read_bundle(half.folder), rows=16, threads=1)
    inputs = {name: array[:16] for name, array in ranker.lists.items() if name != "label"}
    expected = session.run(inputs)["score"]
    np.testing.assert_array_equal(session.run({n: array[:3] for n, array in inputs.items()})["score"], expected[:3])


def test_a_network_without_wide_layers_is_left_alone(small: ModuleType, tmp_path: Path) -> None:
    """Nothing is gained there."""
    source = small.make_source(Role.RANKER)
    lists = {**draw_rows(source, [ANY] * 60, candidates=4), "label": np.zeros((60, 4), np.int8)}
    with pytest.raises(ParityError, match="no layer is wide enough"):
        export([replace(source, lists=lists)], tmp_path, precision="int8")


def test_towers_keep_their_precision(small: ModuleType, tmp_path: Path) -> None:
    """Vectors are searched and compared: they stay as they are."""
    for bundle in export(small.make_towers(), tmp_path, precision="int8"):
        assert bundle.about["precision"] == "fp32"
