"""A bundle's graph on the device asked for: checked before use, fed in batches of one fixed shape."""

import ctypes
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from artifacts.bundle import OUTPUT_NAMES, Bundle, Role, Tensor, feature_of, input_names
from artifacts.canary import ABSOLUTE, NARROW_ABSOLUTE, RELATIVE, read_canary
from artifacts.errors import CorruptError, DeviceError, InputError, ParityError, UsageError
from artifacts.tables import opening_arrow
from batch.bound import DEVICE, Bound, Form
from batch.machine import usable_cores
from batch.profile import GPU_PROVIDER, Device, choose_device
from batch.stages import stage

# ONNX Runtime's errors have no common base.
_RUNTIME_ERRORS = tuple(
    kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)
)

# ONNX Runtime's names of the types that a contract may name.
_TYPES = {
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
}

# What ONNX Runtime and CUDA say when a batch, or the graph itself, does not fit.
_NO_MEMORY = re.compile(r"out of memory|failed to allocate memory|bad_alloc|ALLOC_FAILED", re.IGNORECASE)
_BATCH = {Role.ITEM: "batch_items", Role.USER: "batch_users", Role.RANKER: "batch_lists"}

Arrays = dict[str, np.ndarray]


class Session:
    """A loaded graph; made by :func:`open_session`.

    Attributes:
        bundle: What was loaded.
        rows: Rows of every batch the graph is given; a smaller one is padded with zeros.
        device: Where it runs.
        workers: How many threads may call :meth:`run` at once: on a CPU one operator runs in one thread, and batches
            side by side. That is quicker than one batch in many threads, and no bit depends on the number. A GPU
            computes one batch after the other, through buffers that stay (:mod:`batch.bound`), while other threads
            make the next ones ready.
    """

    def __init__(self, bundle: Bundle, runtime: Any, *, rows: int, device: Device, workers: int) -> None:
        """Feed *runtime* in batches of *rows*."""
        self.bundle = bundle
        self.rows = rows
        self.device = device
        self.workers = workers
        self._runtime = runtime
        self._types = {tensor.name: np.dtype(tensor.type) for tensor in bundle.inputs}
        self._limits = _limits(bundle)
        self._bound: Bound | None = None
        self._turn = Lock() if device.name == "gpu" else nullcontext()

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> Arrays:
        """Run one batch.

        Args:
            inputs: Every input by name, rows first, at most ``rows`` of them; ids and gap buckets of any integer type.
            outputs: Names to fetch; by default those that the role must have.

        Returns:
            Outputs by name, with as many rows as *inputs*.

        Raises:
            InputError: If an id lies outside its vocabulary, or a gap bucket outside the buckets.
            DeviceError: If memory does not suffice; the message has the batch size to use.
            ValueError: If an input is missing, or has more than ``rows`` rows.
        """
        names = list(outputs or OUTPUT_NAMES[self.bundle.role])
        feed = {name: self._ready(name, inputs[name]) for name in self._types}
        try:
            with self._turn, stage("run"):
                results = self._computed(names, feed)
        except _RUNTIME_ERRORS as error:
            if _NO_MEMORY.search(str(error)):
                raise DeviceError(self._too_large()) from error
            raise InputError(f"{self.bundle.layout.graph}: the graph failed on a batch: {_words(error)}") from error
        used = len(next(iter(inputs.values())))
        return {name: result[:used] for name, result in zip(names, results, strict=True)}

    def _computed(self, names: list[str], feed: Arrays) -> Sequence[np.ndarray]:
        if self.device.name == "cpu":
            results: Sequence[np.ndarray] = self._runtime.run(names, feed)
            return results
        if self._bound is None or not self._bound.fits(feed, names):
            self._bound = None  # its memory first
            inputs = {name: (array.shape, array.dtype) for name, array in feed.items()}
            self._bound = Bound(self._runtime, inputs, self._output_forms(names, feed), DEVICE)
        return self._bound.run(feed)

    def _output_forms(self, names: list[str], feed: Arrays) -> dict[str, Form]:
        """Shape and type of outputs, by the sizes that the free axes have in *feed*."""
        sizes = {
            axis: size
            for tensor in self.bundle.inputs
            for axis, size in zip(tensor.shape, feed[tensor.name].shape, strict=True)
        }
        outputs = {tensor.name: tensor for tensor in self.bundle.outputs}
        return {
            name: (
                tuple(int(sizes[axis] if isinstance(axis, str) else axis) for axis in outputs[name].shape),
                np.dtype(outputs[name].type),
            )
            for name in names
        }

    def _too_large(self) -> str:
        key = _BATCH[self.bundle.role]
        advice = f"set [night] {key} = {self.rows // 2}" if self.rows > 1 else "take a smaller model"
        return (
            f"{self.bundle.layout.graph}: out of memory on {self.device.hardware} by a batch of {self.rows} rows; "
            f"{advice} or have fewer night.workers share the device, and run `nightrec prepare` anew, which fixes the "
            "batch"
        )

    def _ready(self, name: str, array: np.ndarray) -> np.ndarray:
        if len(array) > self.rows:
            raise ValueError(f"input {name}: expected at most {self.rows} rows, found {len(array)}")
        limit = self._limits.get(name)
        if limit is not None and array.size and (array.min() < 0 or array.max() >= limit):
            self._out_of_range(name, array, limit)
        array = np.ascontiguousarray(array, dtype=self._types[name])
        if len(array) == self.rows:
            return array
        padded = np.zeros((self.rows, *array.shape[1:]), dtype=array.dtype)
        padded[: len(array)] = array
        return padded

    def _out_of_range(self, name: str, array: np.ndarray, limit: int) -> None:
        place = tuple(int(axis) for axis in np.argwhere((array < 0) | (array >= limit))[0])
        raise InputError(
            f"{self.bundle.role} bundle {self.bundle.folder}, input {name}: expected rows 0 to {limit - 1}, found "
            f"{array[place]} at {list(place)} of a batch; was the table prepared with other vocabularies?"
        )


def _limits(bundle: Bundle) -> dict[str, int]:
    """How many values each integer input may take: its vocabulary's rows, or the gap buckets."""
    spec, limits = bundle.spec, {}
    for name in input_names(bundle.role, spec):
        if feature := feature_of(bundle.role, name):
            limits[name] = _rows_of(bundle.layout.vocabulary(feature)) + 2
        elif name == "gap":
            limits[name] = len(spec.gap_edges) + 2
    return limits


def _rows_of(vocabulary: Path) -> int:
    with opening_arrow(vocabulary) as reader:
        return sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))


def open_session(bundle: Bundle, *, rows: int, device: str = "cpu", threads: int = 0) -> Session:
    """Load a verified bundle's graph and replay its canary rows.

    Args:
        bundle: From :func:`artifacts.bundle.read_bundle`, which has checked every byte.
        rows: Rows of every batch; part of the execution profile.
        device: ``cpu``, ``gpu`` or ``auto``. ``gpu`` is a GPU or an error.
        threads: Batches in work side by side; 0 takes as many as there are cores that this process may use. The bytes
            don't depend on it.

    Raises:
        DeviceError: If the device is not there, or the runtime silently chose another.
        CorruptError: If the graph cannot be loaded, or lacks an input or output of the contract.
        ParityError: If a canary row comes out otherwise than the exporter saw it.
    """
    if rows < 1:
        raise UsageError(f"rows of a batch: expected at least 1, found {rows}")
    chosen = choose_device(device)
    runtime = _load(bundle, chosen)
    _require_tensors(bundle, "inputs", bundle.inputs, runtime.get_inputs())
    needed = [tensor for tensor in bundle.outputs if tensor.name in OUTPUT_NAMES[bundle.role]]
    _require_tensors(bundle, "outputs", needed, runtime.get_outputs())
    session = Session(bundle, runtime, rows=rows, device=chosen, workers=threads or usable_cores())
    _replay_canary(session)
    return session


def _require_tensors(bundle: Bundle, side: str, tensors: Sequence[Tensor], nodes: Sequence[Any]) -> None:
    """Compare the graph's own names and types with the contract's; a graph may have outputs that nobody fetches."""
    expected = {tensor.name: tensor.type for tensor in tensors}
    found = {node.name: _TYPES.get(node.type, node.type) for node in nodes}
    same = expected == found if side == "inputs" else expected.items() <= found.items()
    if not same:
        one, other = (", ".join(f"{name} ({kind})" for name, kind in sorted(of.items())) for of in (expected, found))
        raise CorruptError(
            f"{bundle.layout.graph}: expected the {side} {one} of {bundle.layout.contract.name}, found {other}; "
            "export it anew"
        )


# What stands before ONNX Runtime's own words: its code, the file that we have named already, a place in its source.
_PREAMBLE = re.compile(
    r"^(?:\[ONNXRuntimeError\] : \d+ : \w+ : )?(?:Load model from .*? failed:)?(?:/\S+:\d+ .*?\) (?=[A-Z]))?"
)


def _words(error: Exception) -> str:
    return _PREAMBLE.sub("", " ".join(str(error).split()))[:500]


def _load(bundle: Bundle, device: Device) -> Any:
    ort.disable_telemetry_events()  # a night tells nobody of itself
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what goes wrong is raised, and said once
    providers: list[Any] = [device.provider]
    if device.provider not in ort.get_available_providers():
        raise DeviceError(f"this ONNX Runtime has no {device.provider}, only {ort.get_available_providers()}")
    if device.name == "gpu":
        ort.preload_dlls()
        # Memory is taken as it is needed, and not doubled each time: FAISS has its index on the same GPU.
        about = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
        providers = [(device.provider, about), "CPUExecutionProvider"]
    try:
        runtime = ort.InferenceSession(str(bundle.layout.graph), options, providers=providers)
    except _RUNTIME_ERRORS as error:
        if _NO_MEMORY.search(str(error)):
            raise DeviceError(
                f"{bundle.layout.graph}: out of memory on {device.hardware} when it was loaded; have fewer "
                "night.workers share the device, or take one with more memory"
            ) from error
        raise CorruptError(f"{bundle.layout.graph}: ONNX Runtime cannot load it: {_words(error)}") from error
    if (found := runtime.get_providers()[0]) != device.provider:
        raise DeviceError(f"asked ONNX Runtime for {device.provider}, but got {found}: {_why_no_gpu()}")
    return runtime


def _why_no_gpu() -> str:
    """Load the library of the GPU provider by hand, since ONNX Runtime says only on stderr what it lacks."""
    library = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{GPU_PROVIDER[:4].lower()}.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return "its libraries load, but the GPU was refused; see `nightrec doctor`"


def _replay_canary(session: Session) -> None:
    bundle = session.bundle
    tensors = read_canary(bundle.layout.canary)
    names = [name for name in OUTPUT_NAMES[bundle.role] if name in tensors]
    inputs = {tensor.name for tensor in bundle.inputs}
    if missing := sorted((inputs | set(OUTPUT_NAMES[bundle.role])) - tensors.keys()):
        raise CorruptError(f"{bundle.layout.canary}: expected the tensors of the graph, found none named {missing[0]}")
    for start in range(0, len(tensors[names[0]]), session.rows):
        part = {name: tensor[start : start + session.rows] for name, tensor in tensors.items()}
        found = session.run({name: part[name] for name in inputs}, names)
        for name in names:
            _require_close(session, name, part[name], found[name], start)


def _require_close(session: Session, name: str, expected: np.ndarray, found: np.ndarray, start: int) -> None:
    bundle = session.bundle
    where = f"{bundle.role} bundle {bundle.folder} on {session.device.hardware}"
    if expected.shape != found.shape:
        raise ParityError(f"{where}: canary output {name}: expected the shape {expected.shape}, found {found.shape}")
    absolute = NARROW_ABSOLUTE if bundle.about.get("precision") in {"int8", "fp16"} else ABSOLUTE
    off = np.abs(found.astype(np.float64) - expected)
    bad = ~((off <= absolute) | (off <= RELATIVE * np.abs(expected.astype(np.float64))))  # NaN is bad
    if bad.any():
        worst = tuple(np.argwhere(bad)[0])
        raise ParityError(
            f"{where}: canary row {start + worst[0]}: {name} is {found[worst]}, the exporter saw {expected[worst]}; "
            "this machine or its libraries compute something else: run `nightrec doctor`"
        )
