"""Narrower arithmetic: the wide layers of a ranker's graph in int8 or fp16, where real lists keep their order by it.

fp16 is for GPUs, int8 for CPUs. The scales of int8 are those of real lists, fixed at export (static quantization, one
scale a column of a matrix): what a row gives depends on that row alone, as in fp32. Scales taken from the batch at hand
would make it depend on its neighbours.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from artifacts.errors import ParityError
from export.half import put_in_half, rounding
from export.parity import Figures, check_alone, open_graph
from export.source import Arrays, Source
from models.evaluate import auc

LABEL = "label"  # of a real list's candidates: 1 came true, 0 did not, -1 is no candidate
LEAST_LISTS = 50
OVERLAP, AUC = 0.99, 0.0005  # the least share of the best k that stays; the most by which AUC may differ
BEST = 10
_NARROWEST = 64  # rows and columns of a matrix that is worth it
_SMALLEST = 64 * 256  # numbers of it
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What a precision changed on real lists that its scales were not taken from.

    Attributes:
        precision: ``"int8"`` or ``"fp16"``.
        layers: How many matrix products are narrow.
        lists: How many lists were compared.
        overlap: Mean share of the best k by fp32 that are among the best k.
        auc: Of fp32 and of the precision, over all candidates; NaN without candidates of both kinds.
        off: The largest difference of two scores.
    """

    precision: str
    layers: int
    lists: int
    overlap: float
    auc: tuple[float, float]
    off: float

    def document(self) -> dict[str, Any]:
        """What the contract tells of it."""
        return {
            "layers": self.layers,
            "lists": self.lists,
            f"overlap_of_{BEST}": self.overlap,
            "auc_fp32": self.auc[0],
            f"auc_{self.precision}": self.auc[1],
            "worst_absolute": self.off,
        }


def narrow(source: Source, graph: Path, precision: str = "int8") -> Narrowed:
    """Put the graph's wide layers into a precision, in place, if real lists keep their order.

    Every second list of ``source.lists`` gives the scales of int8, the others judge. fp16 is judged on the CPU too,
    by a graph in fp32 that rounds as a GPU does.

    Args:
        source: A ranker's.
        graph: Its fp32 graph, which has passed the gate; as it was unless this returns.
        precision: ``"int8"`` or ``"fp16"``.

    Raises:
        ParityError: If there is nothing to judge by, no layer is wide, a row would depend on others, or real lists
            would change by more than ``OVERLAP`` and ``AUC`` allow: the message says which, and by how much.
    """
    lists = len(source.lists.get(LABEL, ()))
    if lists < LEAST_LISTS:
        raise ParityError(
            f"{source.role} graph in {precision}: expected at least {LEAST_LISTS} real lists to take scales from and "
            f"to judge by, found {lists}; `nightrec fit` keeps some in a checkpoint"
        )
    scales, judges = ({name: array[start::2] for name, array in source.lists.items()} for start in (0, 1))
    narrowed = graph.with_name("narrowed.onnx")
    judged = graph.with_name("rounding.onnx") if precision == "fp16" else narrowed
    try:
        layers = write_narrow(source, graph, narrowed, scales, precision)
        check_alone(source, open_graph(narrowed), narrowed, Figures())
        if precision == "fp16":
            model = onnx.load(narrowed)
            rounding(model)
            onnx.save(model, judged)
        found = judge(source, graph, judged, judges, layers=layers, precision=precision)
        narrowed.replace(graph)
        return found
    finally:
        for path in {narrowed, judged}:
            path.unlink(missing_ok=True)


def write_narrow(source: Source, graph: Path, narrowed: Path, lists: Arrays, precision: str = "int8") -> int:
    """Write *graph* with narrow wide layers under *narrowed*, int8 with the scales of *lists*; gives how many they are.

    Raises:
        ParityError: If no layer is wide, or one holds what fp16 cannot.
    """
    folded = narrowed.with_name("folded.onnx")
    try:
        model = _fold(graph, folded)
        layers = _wide_layers(model)
        if not layers:
            raise ParityError(f"{source.role} graph in {precision}: no layer is wide enough to be worth it")
        if precision == "int8":
            _quantize(folded, narrowed, layers, lists, source)
            model = onnx.load(narrowed)
        else:
            put_in_half(model, layers)
        _save(model, narrowed)
    except OverflowError as error:
        raise ParityError(f"{source.role} graph in {precision}: {error}, where 65504 is the most") from error
    finally:
        folded.unlink(missing_ok=True)
    return len(layers)


def _fold(graph: Path, folded: Path) -> ModelProto:
    """Write the graph with its constants computed, so that weights are plain matrices."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    options.log_severity_level = 4
    ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return onnx.load(folded)


def _wide_layers(model: ModelProto) -> list[str]:
    """Name the products with a constant matrix that is wide enough for int8 to be quicker."""
    constants = {one.name: tuple(one.dims) for one in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in {"MatMul", "Gemm"}
        and len(shape := constants.get(node.input[1], ())) == 2
        and min(shape) >= _NARROWEST
        and shape[0] * shape[1] >= _SMALLEST
    ]


class _Lists(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Real lists, batch after batch."""

    def __init__(self, source: Source, lists: Arrays) -> None:
        self._batches = _batches(source, lists)

    def get_next(self) -> Arrays | None:
        return next(self._batches, None)


def _batches(source: Source, lists: Arrays) -> Iterator[Arrays]:
    for start in range(0, len(lists[source.inputs[0]]), _BATCH):
        yield {name: np.ascontiguousarray(lists[name][start : start + _BATCH]) for name in source.inputs}


def _quantize(folded: Path, narrowed: Path, layers: list[str], lists: Arrays, source: Source) -> None:
    with _quiet():
        quantize_static(
            folded,
            narrowed,
            _Lists(source, lists),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,  # 7 bits of a weight: without VNNI, a sum of two products of 8 bits overflows
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=layers,
            calibrate_method=CalibrationMethod.MinMax,
        )


def _save(model: ModelProto, narrowed: Path) -> None:
    used = {node.domain for node in model.graph.node}
    kept = [opset for opset in model.opset_import if opset.domain in used]  # ONNX Runtime lists all that it knows
    del model.opset_import[:]
    model.opset_import.extend(kept)
    narrowed.write_bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's advice from the terminal; what goes wrong is raised."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def judge(
    source: Source, graph: Path, narrowed: Path, lists: Arrays, *, layers: int, precision: str = "int8"
) -> Narrowed:
    """Compare two graphs of a ranker on real lists.

    Raises:
        ParityError: If the narrow one changes more than ``OVERLAP`` and ``AUC`` allow.
    """
    used = lists[LABEL] >= 0
    scores = [
        np.concatenate([run(batch)["score"] for batch in _batches(source, lists)])
        for run in map(open_graph, (graph, narrowed))
    ]
    if lost := int((~np.isfinite(scores[1][used])).sum()):
        raise ParityError(
            f"{source.role} graph in {precision}: {lost} of {used.sum()} scores of real lists are NaN or Inf; "
            "fp16 ends at 65504"
        )
    wide, short = (np.where(used, one, -np.inf) for one in scores)
    labels = lists[LABEL][used] == 1
    found = Narrowed(
        precision=precision,
        layers=layers,
        lists=len(used),
        overlap=float(np.mean([_overlap(a, b) for a, b in zip(wide, short, strict=True)])),
        auc=(auc(wide[used], labels), auc(short[used], labels)),
        off=float(np.abs(scores[0] - scores[1])[used].max()),
    )
    if found.overlap < OVERLAP:
        raise ParityError(
            f"{source.role} graph in {precision}: of the best {BEST} of {found.lists} real lists {found.overlap:.4f} "
            f"stay, expected at least {OVERLAP}"
        )
    if abs(found.auc[1] - found.auc[0]) > AUC:
        raise ParityError(
            f"{source.role} graph in {precision}: its AUC on {found.lists} real lists is {found.auc[1]:.5f}, in fp32 "
            f"{found.auc[0]:.5f}; expected at most {AUC} between them"
        )
    return found


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the best of *one* that are among the best of *other*; the first of equals is the better."""
    best = max(1, min(BEST, int(np.isfinite(one).sum())))
    first, second = (np.argsort(-scores, kind="stable")[:best] for scores in (one, other))
    return len(np.intersect1d(first, second)) / best
