from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as native

from artifacts.bundle import Role
from artifacts.errors import DeviceError
from batch.bound import Bound, pinned
from batch.profile import Device, choose_device
from batch.session import Session, open_session

GPU = Device("gpu", "CUDAExecutionProvider", "NVIDIA H100", "asked for")


class Full:
    """A runtime whose device has no memory left."""

    def __init__(self, said: str) -> None:
        """*said* is what ONNX Runtime says of it."""
        self.said = said

    def run(self, _names: object, _feed: object) -> list[np.ndarray]:
        raise native.RuntimeException(self.said)


def test_buffers_that_stay_give_the_bits_of_a_plain_run(tiny, user_bundle):
    """Batch after batch, whatever the buffers held before, and no later batch touches a result."""
    runtime = ort.InferenceSession(str(user_bundle.layout.graph), providers=["CPUExecutionProvider"])
    batches = [tiny.random_histories(9, seed=seed) for seed in range(3)]
    names = ["count", "interests"]
    plain = [runtime.run(names, batch) for batch in batches]
    forms = {name: (array.shape, array.dtype) for name, array in batches[0].items()}
    outputs = {name: (array.shape, array.dtype) for name, array in zip(names, plain[0], strict=True)}
    bound = Bound(runtime, forms, outputs, "cpu")
    found = [bound.run(batch) for batch in batches]
    for one, other in zip(plain, found, strict=True):
        for expected, array in zip(one, other, strict=True):
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected)


def test_buffers_fit_one_shape_and_one_choice_of_outputs(tiny, user_bundle):
    """Other rows, or other outputs, need buffers of their own."""
    runtime = ort.InferenceSession(str(user_bundle.layout.graph), providers=["CPUExecutionProvider"])
    batch, other = tiny.random_histories(9, seed=1), tiny.random_histories(8, seed=1)
    forms = {name: (array.shape, array.dtype) for name, array in batch.items()}
    bound = Bound(runtime, forms, {"count": ((9,), np.dtype(np.int32))}, "cpu")
    assert bound.fits(batch, ["count"])
    assert not bound.fits(other, ["count"])
    assert not bound.fits(batch, ["count", "interests"])


def test_a_session_of_a_gpu_goes_through_buffers_that_stay(tiny, user_bundle, monkeypatch):
    """The way of a GPU, with the buffers of a CPU: one set of them for each shape, and the rows of a CPU's session."""
    monkeypatch.setattr("batch.session.DEVICE", "cpu")
    runtime = ort.InferenceSession(str(user_bundle.layout.graph), providers=["CPUExecutionProvider"])
    session = Session(user_bundle, runtime, rows=8, device=GPU, workers=1)
    expected = open_session(user_bundle, rows=8)
    first, second = tiny.random_histories(8, seed=3), tiny.random_histories(5, seed=4)  # the second is padded
    made = []
    for inputs, outputs in ((first, None), (second, None), (first, ["count"]), (second, None)):
        one, other = expected.run(inputs, outputs), session.run(inputs, outputs)
        made.append(session._bound)
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(other[name], array)
    assert made[0] is made[1]
    assert made[1] is not made[2]


def test_pinned_memory_is_an_array_of_zeros():
    """With CUDA or without it has the shape and type that were asked for."""
    array = pinned((3, 2), np.dtype(np.float32))
    assert array.dtype == np.float32
    assert array.tolist() == [[0.0, 0.0]] * 3


@pytest.mark.parametrize(
    ("role", "rows", "advice"),
    [
        (Role.USER, 4096, r"batch of 4096 rows; set \[night\] batch_users = 2048 or have fewer night\.workers"),
        (Role.RANKER, 65, r"batch of 65 rows; set \[night\] batch_lists = 32 or"),
        (Role.ITEM, 1, r"batch of 1 rows; take a smaller model or"),
    ],
)
@pytest.mark.parametrize(
    "said",
    [
        "Failed to allocate memory for requested buffer of size 8589934592",
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=node",
        "std::bad_alloc",
    ],
)
def test_a_batch_that_memory_does_not_hold_says_which_would_fit(tiny, user_bundle, role, rows, advice, said):
    """It is the device's fault and not the data's, so it may be tried again; and no batch is halved in silence."""
    bundle = replace(user_bundle, role=role, inputs=())
    session = Session(bundle, Full(said), rows=rows, device=choose_device("cpu"), workers=1)
    with pytest.raises(DeviceError, match=advice) as caught:
        session.run({"anything": np.zeros((1, 1))}, ["count"])
    assert caught.value.exit_code == 1


def test_a_graph_that_memory_does_not_hold_is_no_broken_graph(user_bundle, monkeypatch):
    """What ONNX Runtime says when the weights do not fit is told as what it is."""

    def full(*_args: object, **_options: object) -> None:
        raise native.RuntimeException("Failed to allocate memory for requested buffer of size 99")

    monkeypatch.setattr("batch.session.ort.InferenceSession", full)
    with pytest.raises(
        DeviceError, match=r"model\.onnx: out of memory on .* when it was loaded; have fewer night\.workers"
    ):
        open_session(user_bundle, rows=4)
