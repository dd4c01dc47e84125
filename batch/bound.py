"""A graph with buffers that stay, for a GPU: a batch is copied there from pinned memory, and its results into such.

Left to itself ONNX Runtime takes memory on the device anew for each batch, and copies to and from memory that the
system may move, which the driver must copy once more. On a CPU this gives the same bits as a plain run, but copies for
nothing, so it is not used there.
"""

import ctypes
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

DEVICE = "cuda"  # ONNX Runtime's name of where the inputs of a GPU lie; a process uses the first GPU that it sees
_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every context of the process

Form = tuple[tuple[int, ...], np.dtype[Any]]  # shape and type


class Bound:
    """The buffers of a graph for batches of one shape. One thread at a time may use them."""

    def __init__(self, runtime: Any, inputs: Mapping[str, Form], outputs: Mapping[str, Form], device: str) -> None:
        """Make them.

        Args:
            runtime: An ``InferenceSession``.
            inputs: Shape and type of every input of a batch.
            outputs: Shape and type of every output that is fetched.
            device: ``DEVICE`` or ``cpu``: where the inputs lie.
        """
        self._runtime, self._binding = runtime, runtime.io_binding()
        self._sent = {name: pinned(*form) for name, form in inputs.items()}
        self._there = {
            name: ort.OrtValue.ortvalue_from_shape_and_type(shape, kind.type, device, 0)
            for name, (shape, kind) in inputs.items()
        }
        self._results = {name: pinned(*form) for name, form in outputs.items()}
        for name, value in self._there.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, array in self._results.items():
            self._binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))

    def fits(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> bool:
        """Whether these buffers are of the shapes of *inputs*, and for the outputs that are asked for."""
        shapes = {name: array.shape for name, array in self._sent.items()}
        return shapes == {name: array.shape for name, array in inputs.items()} and list(self._results) == list(outputs)

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Run one batch; gives arrays of their own, which the next batch does not touch."""
        for name, array in inputs.items():
            np.copyto(self._sent[name], array, casting="no")
            self._there[name].update_inplace(self._sent[name])
        self._runtime.run_with_iobinding(self._binding)
        return [array.copy() for array in self._results.values()]


def pinned(shape: tuple[int, ...], kind: np.dtype[Any]) -> np.ndarray:
    """Make an array that the system does not move, so that a GPU reads and writes it by itself.

    Where there is no CUDA, or it may not pin as much, it is an array as any other: that is slower, and nothing else.
    """
    array = np.zeros(shape, kind)
    try:
        cuda = ctypes.CDLL("libcudart.so.12")
    except OSError:
        return array
    start = ctypes.c_void_p(array.ctypes.data)
    if cuda.cudaHostRegister(start, ctypes.c_size_t(array.nbytes), _PORTABLE) == 0:
        weakref.finalize(array, cuda.cudaHostUnregister, start).atexit = False  # the process takes all with it
    return array
