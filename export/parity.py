"""The gate: a graph must do what its source does, for every row alone and whatever stands beside it.

Two kinds of comparison. A row at one place of one batch shape must keep its *bits*, whatever its neighbours are and
however often it runs: nothing but a dependence could change them. Source against graph, other places and other batch
shapes may differ by ``RELATIVE`` or ``ABSOLUTE``: some kernels of ONNX Runtime (Log, Sin, a sum over a width that is no
multiple of the vector registers) round the last bit by where in the array a number lies. The figures say whether rows
kept their bits there as well; those of our networks at their default widths do.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from artifacts.bundle import Role
from artifacts.canary import ABSOLUTE, RELATIVE
from artifacts.errors import ParityError
from export.sample import ALL_PADDING, KINDS, draw_rows
from export.source import Arrays, Source, axis_sizes, input_shape, output_shape, run_source

CANARY_ROWS = 64
ODD = 7
LARGE = {Role.ITEM: 1025, Role.USER: 257, Role.RANKER: 257}
MANY_CANDIDATES = 101
CANARY_CANDIDATES = 16
_UNIT = 1e-3  # what a length may be off 1

# ONNX Runtime's errors have no common base.
RUNTIME_ERRORS = tuple(kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception))

# What usually helps.
_DRAWS = (
    "the same row must give the same result, so draw nothing in forward(): start a routing from numbers that belong to "
    "the item"
)
_ALONE = (
    "a row's result must depend on that row only, so take means, norms and softmax over a row's own axes, and batch "
    "norm in evaluation mode"
)
_PADDING = "a history's padding must not count, so leave row 0 out of means, sums and softmax"
_EMPTY = "where an empty history is divided by the number of its items, divide by at least 1"
_COSINE = (
    "the index compares by inner product, which is the cosine for vectors of length 1 alone, so divide by the length "
    "in forward(), in both towers"
)

Run = Callable[[Arrays], Arrays]


@dataclass(slots=True)
class Figures:
    """What the gate saw.

    Attributes:
        cases: Names of the cases that passed, in order.
        absolute: Largest difference of source and graph, by output.
        used: Largest share of what a number may be off that one was, by output.
        moved: What a row may not keep its bits in: ``"positions"``, ``"batch sizes"``, ``"padding"``.
        idle: Inputs that changed nothing: they may be none of the network's, or be lost on the way to it.
    """

    cases: list[str] = field(default_factory=list)
    absolute: dict[str, float] = field(default_factory=dict)
    used: dict[str, float] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    idle: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """What the contract tells of it."""
        return {
            "cases": self.cases,
            "relative": RELATIVE,
            "absolute": ABSOLUTE,
            "worst_absolute": self.absolute,
            "share_of_tolerance": self.used,
            "bits_depend_on": sorted(self.moved),
            "idle_inputs": self.idle,
        }


def open_graph(path: Path) -> Run:
    """Load a graph into ONNX Runtime on the CPU, set as the night sets it.

    Raises:
        ParityError: If it cannot be loaded.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except RUNTIME_ERRORS as error:
        raise ParityError(f"{path.name}: ONNX Runtime cannot load the graph: {error}") from error
    names = [output.name for output in session.get_outputs()]
    used = [node.name for node in session.get_inputs()]
    return lambda inputs: dict(zip(names, session.run(names, {name: inputs[name] for name in used}), strict=True))


def canary_rows(source: Source) -> Arrays:
    """Draw the 64 input rows of the canary: every kind of row in turn."""
    return draw_rows(source, _kinds(source, CANARY_ROWS), candidates=CANARY_CANDIDATES, seed=64)


def check_parity(source: Source, path: Path) -> dict[str, Any]:
    """Compare the graph at *path* with *source* over the whole matrix of cases.

    Returns:
        The cases and the largest differences, for the contract.

    Raises:
        ParityError: At the first case that fails, naming it, where, and how far off.
    """
    graph, figures = open_graph(path), Figures()
    for case, inputs in _comparisons(source):
        expected = _run_source(source, case, inputs)
        found = _run_graph(source, graph, case, inputs)
        if expected.keys() != found.keys():
            raise _failure(source, case, f"expected the outputs {sorted(expected)}, found {sorted(found)}")
        for name, array in found.items():
            _require_shape(source, case, name, array, inputs)
            _require_close(source, case, name, expected[name], array, figures=figures)
        if source.role is Role.USER:
            _require_interests(source, case, found)
        figures.cases.append(case)
    check_alone(source, graph, path, figures)
    if source.dynamic_length:
        _check_lengths(source, graph, figures)
    figures.idle = _idle_inputs(source, graph)
    if source.similarity == "cosine":
        _check_unit_length(source, graph, figures)
    return figures.document()


def check_alone(source: Source, graph: Run, path: Path, figures: Figures) -> None:
    """Hold *graph*, loaded from *path*, against itself: neighbours change no row. Raises as the whole gate does."""
    _check_rows(source, graph, figures)
    _check_processes(source, graph, open_graph(path), figures)
    if source.role is Role.RANKER:
        _check_candidates(source, graph, figures)


def _kinds(source: Source, rows: int) -> list[str]:
    words = KINDS[source.role]
    return [words[row % len(words)] for row in range(rows)]


def _comparisons(source: Source) -> Iterator[tuple[str, Arrays]]:
    """Give the cases in which source and graph are compared, simple ones first."""
    for kind in KINDS[source.role]:
        yield kind, draw_rows(source, [kind] * ODD, seed=1)
    for rows in (1, ODD, LARGE[source.role]):
        kinds = _kinds(source, rows)[::-1] if rows > 1 else [KINDS[source.role][-1]]
        yield f"batch of {rows}", draw_rows(source, kinds, seed=2)
    if source.role is Role.RANKER:
        for candidates in (1, MANY_CANDIDATES):
            yield f"{candidates} candidates", draw_rows(source, _kinds(source, ODD), candidates=candidates, seed=3)
    if source.dynamic_length:
        for length in _lengths(source):
            yield f"padded to {length}", draw_rows(source, _kinds(source, 2 * ODD), length=length, seed=4)
    yield f"canary of {CANARY_ROWS}", canary_rows(source)


def _lengths(source: Source) -> tuple[int, ...]:
    full = source.spec.history_length
    return (1, full // 2 + 1, full + 3)


def _failure(source: Source, case: str, what: str) -> ParityError:
    return ParityError(f"{source.role} graph, case {case}: {what}; no bundle was written")


def _run_source(source: Source, case: str, inputs: Arrays) -> Arrays:
    try:
        first, second = run_source(source, inputs), run_source(source, inputs)
    except (TypeError, IndexError, RuntimeError, ValueError) as error:
        raise _failure(source, case, f"the source itself failed: {str(error).splitlines()[0]}") from error
    for name, array in first.items():
        bad = ~np.isclose(array, second[name], rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
        if bad.any():
            place = tuple(int(axis) for axis in np.argwhere(bad)[0])
            raise _failure(
                source,
                case,
                f"the source itself gave {name}{list(place)} = {array[place]}, then {second[name][place]}; {_DRAWS}",
            )
    return first


def _run_graph(source: Source, graph: Run, case: str, inputs: Arrays) -> Arrays:
    try:
        return graph(inputs)
    except RUNTIME_ERRORS as error:
        raise _failure(
            source, case, f"ONNX Runtime failed; is a size baked in? ({str(error).splitlines()[0]})"
        ) from error


def _require_shape(source: Source, case: str, name: str, array: np.ndarray, inputs: Arrays) -> None:
    sizes = axis_sizes(inputs, source)
    expected = [sizes[axis] if isinstance(axis, str) else axis for axis in output_shape(source, name)]
    if array.ndim != len(expected) or any(e not in {None, f} for e, f in zip(expected, array.shape, strict=True)):
        raise _failure(source, case, f"{name}: expected the shape {expected}, found {list(array.shape)}")


def _require_close(
    source: Source,
    case: str,
    name: str,
    expected: np.ndarray,
    found: np.ndarray,
    *,
    figures: Figures | None = None,
    said: str = "the source gives",
    remedy: str = "",
) -> None:
    if expected.shape != found.shape:
        raise _failure(source, case, f"{name}: {said} the shape {list(expected.shape)}, found {list(found.shape)}")
    for array, who in ((expected, said), (found, "the graph gives")):
        if not (fine := np.isfinite(array)).all():
            place = tuple(int(axis) for axis in np.argwhere(~fine)[0])
            raise _failure(
                source, case, f"{name}{list(place)}: {who} {array[place]}, expected a finite number; {_EMPTY}"
            )
    true = np.abs(expected.astype(np.float64))
    off = np.abs(found.astype(np.float64) - expected)
    used = off / np.maximum(ABSOLUTE, RELATIVE * true)
    if found.size and used.max() > 1:
        place = tuple(int(axis) for axis in np.unravel_index(used.argmax(), used.shape))
        share = off[place] / true[place] if true[place] else np.inf
        raise _failure(
            source,
            case,
            f"{name}{list(place)}: {said} {expected[place]}, the graph {found[place]}: off by {off[place]:.3g}, "
            f"relative {share:.3g}, where {ABSOLUTE:g} or {RELATIVE:g} is allowed{remedy and f'; {remedy}'}",
        )
    if figures is not None:
        figures.absolute[name] = max(figures.absolute.get(name, 0.0), float(off.max(initial=0)))
        figures.used[name] = max(figures.used.get(name, 0.0), float(used.max(initial=0)))


def _require_bits(source: Source, case: str, expected: Arrays, found: Arrays) -> None:
    for name, array in expected.items():
        other = found[name]
        if array.shape == other.shape and array.tobytes() == other.tobytes():
            continue
        if array.shape != other.shape:
            raise _failure(source, case, f"{name}: expected the shape {list(array.shape)}, found {list(other.shape)}")
        place = tuple(int(axis) for axis in np.argwhere((array != other) | (np.signbit(array) != np.signbit(other)))[0])
        off = abs(float(array[place]) - float(other[place]))
        raise _failure(
            source,
            case,
            f"{name}{list(place)}: expected {array[place]} bit for bit, found {other[place]}, off by {off:.3g}; "
            f"{_ALONE}",
        )


def _require_interests(source: Source, case: str, found: Arrays) -> None:
    interests, count = found["interests"], found["count"]
    most = interests.shape[1]
    if (bad := (count < 1) | (count > most)).any():
        row = int(bad.argmax())
        raise _failure(source, case, f"count[{row}]: expected 1 to {most}, found {count[row]}")
    beyond = (np.arange(most) >= count[:, None])[:, :, None] & (interests != 0)
    if beyond.any():
        place = tuple(int(axis) for axis in np.argwhere(beyond)[0])
        raise _failure(source, case, f"interests{list(place)}: expected 0 beyond count, found {interests[place]}")


def _take(arrays: Arrays, rows: np.ndarray | slice) -> Arrays:
    return {name: array[rows] for name, array in arrays.items()}


def _blend(one: Arrays, other: Arrays, keep: np.ndarray) -> Arrays:
    """Rows of *one* where *keep*, else those of *other*."""
    return {
        name: np.where(keep.reshape(-1, *[1] * (array.ndim - 1)), array, other[name]) for name, array in one.items()
    }


def _check_rows(source: Source, graph: Run, figures: Figures) -> None:
    """Hold a row's result against its neighbours, its position and the size of its batch."""
    inputs = canary_rows(source)
    expected = graph(inputs)
    others = draw_rows(source, _kinds(source, CANARY_ROWS)[::-1], candidates=CANARY_CANDIDATES, seed=6)
    empty = draw_rows(source, [ALL_PADDING] * CANARY_ROWS, candidates=CANARY_CANDIDATES)
    places = np.arange(CANARY_ROWS)
    halves, single = [places % 2 == half for half in (0, 1)], [places == row for row in range(0, CANARY_ROWS, ODD)]
    for case, company, parts in (("other neighbours", others, halves), ("alone among padding", empty, single)):
        for keep in parts:
            found = graph(_blend(inputs, company, keep))
            _require_bits(source, case, _take(expected, keep), _take(found, keep))
        figures.cases.append(case)
    for case, order in (
        ("shuffled rows", np.random.default_rng(5).permutation(CANARY_ROWS)),
        ("other positions", np.roll(places, 17)),
    ):
        _compare(source, case, _take(expected, order), graph(_take(inputs, order)), figures, "positions")
    alone = [graph(_take(inputs, slice(row, row + 1))) for row in range(CANARY_ROWS)]
    together = {name: np.concatenate([row[name] for row in alone]) for name in expected}
    _compare(source, "alone in a batch of 1", expected, together, figures, "batch sizes")
    large = draw_rows(source, _kinds(source, LARGE[source.role]), candidates=CANARY_CANDIDATES, seed=7)
    place = slice(101, 101 + CANARY_ROWS)
    for name, array in large.items():
        array[place] = inputs[name]
    case = f"within a batch of {LARGE[source.role]}"
    _compare(source, case, expected, _take(graph(large), place), figures, "batch sizes")


def _compare(source: Source, case: str, expected: Arrays, found: Arrays, figures: Figures, what: str) -> None:
    """Compare the same rows of two runs that differ in *what*."""
    for name, array in expected.items():
        remedy = _PADDING if what == "padding" else _ALONE
        _require_close(source, case, name, array, found[name], said="its canary batch gives", remedy=remedy)
        if not np.array_equal(array, found[name]):
            figures.moved.add(what)
    figures.cases.append(case)


def _check_processes(source: Source, graph: Run, again: Run, figures: Figures) -> None:
    inputs = canary_rows(source)
    expected = graph(inputs)
    _require_bits(source, "run twice", expected, graph(inputs))
    _require_bits(source, "loaded twice", expected, again(inputs))
    figures.cases += ["run twice", "loaded twice"]


def _check_candidates(source: Source, graph: Run, figures: Figures) -> None:
    """Hold a candidate's score against the other candidates of its user: the night pads their number."""
    inputs = canary_rows(source)
    score = graph(inputs)["score"]
    others = draw_rows(source, _kinds(source, CANARY_ROWS), candidates=CANARY_CANDIDATES, seed=9)
    per_pair = [name for name in source.inputs if "candidates" in input_shape(source, name)]
    places = np.arange(CANARY_CANDIDATES)

    def run(change: Callable[[str], np.ndarray]) -> np.ndarray:
        return graph({**inputs, **{name: change(name) for name in per_pair}})["score"]

    for half in (0, 1):
        mixed = {name: inputs[name].copy() for name in per_pair}
        for name, array in mixed.items():
            array[:, places % 2 != half] = others[name][:, places % 2 != half]
        found = run(mixed.__getitem__)[:, half::2]
        _require_bits(source, "other candidates", {"score": score[:, half::2]}, {"score": found})
    figures.cases.append("other candidates")
    order = np.random.default_rng(8).permutation(CANARY_CANDIDATES)
    found = run(lambda name: inputs[name][:, order])
    _compare(source, "shuffled candidates", {"score": score[:, order]}, {"score": found}, figures, "positions")
    found = run(lambda name: inputs[name][:, :1])
    _compare(source, "one candidate alone", {"score": score[:, :1]}, {"score": found}, figures, "batch sizes")


def _check_lengths(source: Source, graph: Run, figures: Figures) -> None:
    """Hold a row's result against the padding behind its history."""
    inputs = canary_rows(source)
    expected = {name: array for name, array in graph(inputs).items() if "length" not in output_shape(source, name)}
    histories = [name for name in source.inputs if "length" in input_shape(source, name)]
    for more in (1, ODD):
        longer = {name: np.pad(inputs[name], ((0, 0), (0, more))) for name in histories}
        found = graph({**inputs, **longer})
        kept = {name: found[name] for name in expected}
        _compare(source, f"{more} more of padding", expected, kept, figures, "padding")


def _idle_inputs(source: Source, graph: Run) -> list[str]:
    """Name the inputs of which other values give the same result."""
    inputs = canary_rows(source)
    others = draw_rows(source, [KINDS[source.role][-1]] * CANARY_ROWS, candidates=CANARY_CANDIDATES, seed=10)
    expected = graph(inputs)

    def idle(name: str) -> bool:
        found = graph({**inputs, name: others[name]})
        return all(np.array_equal(array, found[output]) for output, array in expected.items())

    return [name for name in source.inputs if idle(name)]


def _check_unit_length(source: Source, graph: Run, figures: Figures) -> None:
    """Hold vectors that were compared by their cosine against length 1; a vector of zeros has no direction."""
    case, inputs = "unit length", canary_rows(source)
    outputs = graph(inputs)
    for name in ("vector", "interests"):
        if name in outputs:
            length = np.linalg.norm(outputs[name].astype(np.float64), axis=-1)
            if (bad := (np.abs(length - 1) > _UNIT) & (length > 0)).any():
                place = [int(axis) for axis in np.argwhere(bad)[0]]
                raise _failure(
                    source, case, f"{name}{place} has the length {length[tuple(place)]:.4g}, expected 1; {_COSINE}"
                )
    figures.cases.append(case)
