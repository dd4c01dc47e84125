import json
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.bundle import Role, Tensor, read_bundle
from artifacts.errors import CorruptError, DeviceError, InputError, ParityError, StaleRunError, UsageError
from artifacts.layout import BundleLayout
from batch import profile as profiles
from batch.overlap import working_side_by_side
from batch.profile import Device, choose_device, cpu_class, gpu_names, require_profile, resolve_profile, runtime_wheel
from batch.session import Session, open_session


def test_a_session_gives_what_numpy_computes_from_the_same_weights(tiny, user_bundle, item_bundle, weights):
    """A batch smaller than the fixed shape is padded and trimmed, and its rows are the model's."""
    inputs = tiny.random_histories(11, seed=1)
    found = open_session(user_bundle, rows=16).run(inputs)
    interests, count = weights.interests(*inputs.values())
    np.testing.assert_allclose(found["interests"], interests, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["count"], count)
    rows = {"item_id": np.array([0, 5, 41], np.int32), "category": np.array([1, 2, 5], np.int32)}
    vectors = open_session(item_bundle, rows=4).run(rows)["vector"]
    np.testing.assert_array_equal(vectors, weights.vectors(rows["item_id"], rows["category"]))


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(24)), alone=st.integers(0, 23))
def test_a_rows_result_depends_on_that_row_only(tiny, user_bundle, order, alone):
    """A row alone, in company and at another position of the batch is equal bit for bit."""
    session = open_session(user_bundle, rows=32)
    inputs = tiny.random_histories(24, seed=2)
    together = session.run(inputs)["interests"]
    moved = session.run({name: array[order] for name, array in inputs.items()})["interests"]
    single = session.run({name: array[[alone]] for name, array in inputs.items()})["interests"]
    np.testing.assert_array_equal(moved, together[order])
    np.testing.assert_array_equal(single[0], together[alone])


def test_batches_side_by_side_change_no_bit(tiny, user_bundle):
    """The number of threads is no part of the profile, since no bit depends on it, and the order is kept."""
    batches = [tiny.random_histories(64, seed=seed) for seed in range(12)]
    found = []
    for threads in (1, 2, 4):
        session = open_session(user_bundle, rows=64, threads=threads)
        assert session.workers == threads
        with working_side_by_side(session.run, batches, workers=session.workers) as results:
            found.append(np.stack([result["interests"] for result in results]))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("history_item_id", -1, 41),
        ("history_item_id", 42, 41),
        ("history_category", 6, 5),
        ("profile_gender", -2, 3),
        ("profile_gender", 4, 3),
    ],
)
def test_an_id_outside_its_vocabulary_never_reaches_the_graph(tiny, user_bundle, name, value, limit):
    """-1 is not the last row, and a row beyond the end is an error that names input, value, place and limit."""
    inputs = tiny.random_histories(5, seed=4)
    inputs[name][3] = value
    place = r"\[3\]" if inputs[name].ndim == 1 else r"\[3, 0\]"
    with pytest.raises(InputError, match=rf"{name}: expected rows 0 to {limit}, found {value} at {place}"):
        open_session(user_bundle, rows=8).run(inputs)


def test_a_rankers_gaps_and_candidates_are_checked_too(tiny, user_bundle):
    """Every integer input has its limit: vocabularies by feature, gaps by the number of buckets."""
    tensors = [
        Tensor(name, "int32", ("users", tiny.LENGTH)) for name in ("history_item_id", "gap", "candidate_category")
    ]
    ranker = replace(user_bundle, role=Role.RANKER, inputs=tuple(tensors))
    session = Session(ranker, None, rows=4, device=choose_device("cpu"), workers=1)
    good = {tensor.name: np.zeros((2, tiny.LENGTH), np.int32) for tensor in tensors}
    for name, limit in (("history_item_id", 41), ("gap", 3), ("candidate_category", 5)):
        for value in (-1, limit + 1):
            bad = good | {name: good[name] + np.int32(value)}
            with pytest.raises(InputError, match=rf"{name}: expected rows 0 to {limit}, found {value}"):
                session.run(bad)


@pytest.mark.parametrize("name", ["history_profile_kind", "history_candidate_profile_kind", "profile_profile_kind"])
def test_a_feature_named_like_a_kind_of_input_keeps_its_name(tiny, user_bundle, tmp_path, name):
    """The input history_profile_kind is held to the vocabulary of profile_kind: one prefix is stripped, not two."""
    kind, _, feature = name.partition("_")
    shutil.copytree(user_bundle.folder / "vocabularies", tmp_path / "vocabularies")
    layout = BundleLayout(tmp_path)
    layout.vocabulary("gender").rename(layout.vocabulary(feature))
    items, profiles = ((feature,), ()) if kind == "history" else ((), (feature,))
    spec = replace(user_bundle.spec, item_features=items, profile_features=profiles)
    bundle = replace(user_bundle, folder=tmp_path, spec=spec, inputs=(Tensor(name, "int32", ("users",)),))
    session = Session(bundle, None, rows=4, device=choose_device("cpu"), workers=1)
    with pytest.raises(InputError, match=f"{name}: expected rows 0 to {tiny.GENDERS + 1}, found 99"):
        session.run({name: np.array([99], np.int32)})


def test_ids_of_another_integer_type_are_checked_before_they_are_cast(tiny, user_bundle):
    """An int64 id that would wrap to a small int32 is an error, not another item."""
    inputs = tiny.random_histories(5, seed=4)
    inputs["profile_gender"] = inputs["profile_gender"].astype(np.int64) + 2**32
    with pytest.raises(InputError, match="profile_gender"):
        open_session(user_bundle, rows=8).run(inputs)


def test_more_rows_than_the_batch_shape_are_refused(tiny, user_bundle):
    """The batch shape is part of the profile, so it is never stretched."""
    with pytest.raises(ValueError, match="at most 4 rows, found 5"):
        open_session(user_bundle, rows=4).run(tiny.random_histories(5, seed=4))


def test_a_graph_that_computes_something_else_is_refused_by_its_canary_rows(tiny, tmp_path, weights):
    """A canary row beyond tolerance names the bundle, the row and both values, whatever the checksums say."""
    tiny.make_bundle(tmp_path / "user", Role.USER, weights)
    other = replace(weights, gender=weights.gender + np.float32(1e-3))
    tiny._user_graph(BundleLayout(tmp_path / "user").graph, other)
    bundle = tiny.finish_bundle(tmp_path / "user", Role.USER)
    with pytest.raises(ParityError, match=rf"{tmp_path}.*canary row 0: interests is .*, the exporter saw"):
        open_session(bundle, rows=16)


def test_a_canary_row_that_is_not_a_number_is_refused(tiny, tmp_path, weights):
    """NaN is far from everything, so it cannot slip through a comparison."""
    tiny.make_bundle(tmp_path / "item", Role.ITEM, weights)
    item = weights.item.copy()
    item[:, 0] = np.nan
    tiny._item_graph(BundleLayout(tmp_path / "item").graph, replace(weights, item=item))
    with pytest.raises(ParityError, match="vector is nan"):
        open_session(tiny.finish_bundle(tmp_path / "item", Role.ITEM), rows=16)


def test_a_graph_that_cannot_be_loaded_or_lacks_an_input_is_an_error_that_names_it(tiny, tmp_path, weights):
    """What the contract lists and what the graph has must be the same."""
    bundle = tiny.make_bundle(tmp_path / "item", Role.ITEM, weights)
    with pytest.raises(CorruptError, match=r"expected the inputs brand \(int32\)"):
        open_session(replace(bundle, inputs=(*bundle.inputs, replace(bundle.inputs[0], name="brand"))), rows=4)
    bundle.layout.graph.write_bytes(b"no graph")
    with pytest.raises(CorruptError, match=r"model.onnx: ONNX Runtime cannot load it: Protobuf parsing failed"):
        open_session(bundle, rows=4)
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 999)], ir_version=9)
    onnx.save(model, bundle.layout.graph)
    with pytest.raises(
        CorruptError, match=r"cannot load it: ONNX Runtime only .* Opset 999"
    ):  # not a place in its source
        open_session(bundle, rows=4)


def test_a_bundle_is_read_back_with_all_its_bytes_checked(user_bundle, tmp_path):
    """The hand-made bundle is a true one: one changed byte is found before it is loaded."""
    copy = tmp_path / "user"
    shutil.copytree(user_bundle.folder, copy)
    assert read_bundle(copy).bundle_id == user_bundle.bundle_id
    data = bytearray(BundleLayout(copy).graph.read_bytes())
    data[-3] ^= 1
    BundleLayout(copy).graph.write_bytes(data)
    with pytest.raises(CorruptError, match=r"model.onnx"):
        read_bundle(copy)


def _wheels(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if not name.startswith("onnxruntime"):
            return real(name)
        if name.replace("-", "_") in versions:
            return versions[name.replace("-", "_")]
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(profiles.metadata, "version", version)


def test_gpu_means_a_gpu_or_an_error_with_the_reason(user_bundle, monkeypatch):
    """With the CPU wheel `gpu` is refused, and `auto` takes the CPU and says why."""
    _wheels(monkeypatch, onnxruntime="1.32.0")
    with pytest.raises(DeviceError, match=r"no GPU can be used: the installed ONNX Runtime is the CPU wheel"):
        open_session(user_bundle, rows=4, device="gpu")
    chosen = choose_device("auto")
    assert chosen.name == "cpu"
    assert "CPU wheel" in chosen.reason


def test_a_runtime_that_silently_chose_the_cpu_is_caught(user_bundle, monkeypatch):
    """A session is asked what it got: a CPU session in place of a GPU one is an error."""

    class Silent:
        def __init__(self, *_args: object, **_options: object) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    _wheels(monkeypatch, onnxruntime_gpu="1.26.0")
    monkeypatch.setattr(profiles, "gpu_model", lambda: "NVIDIA H100")
    monkeypatch.setattr("batch.session.ort.get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr("batch.session.ort.preload_dlls", lambda: None)
    monkeypatch.setattr("batch.session.ort.InferenceSession", Silent)
    assert choose_device("auto").name == "gpu"
    with pytest.raises(DeviceError, match=r"CUDAExecutionProvider, but got CPUExecutionProvider.*providers_cuda"):
        open_session(user_bundle, rows=4, device="gpu")


@pytest.mark.parametrize(
    ("count", "said", "names"),
    [
        (2, {}, ["0", "1"]),
        (2, {"CUDA_VISIBLE_DEVICES": "3, GPU-8f"}, ["3", "GPU-8f"]),
        (1, {"CUDA_VISIBLE_DEVICES": "3,99,4"}, ["3"]),  # there is no 99, so CUDA shows what stands before it
        (0, {"CUDA_VISIBLE_DEVICES": "-1"}, []),
    ],
)
def test_gpus_are_named_as_the_environment_names_them(count, said, names):
    """A worker is given one of the GPUs that this process sees, whatever their numbers on the machine."""
    assert gpu_names(count, said) == names


def test_both_wheels_at_once_are_an_error_on_every_device(monkeypatch):
    """Which of the two wheels' files won is not known, so nothing is computed with them."""
    _wheels(monkeypatch, onnxruntime="1.32.0", onnxruntime_gpu="1.26.0")
    for device in ("cpu", "gpu", "auto"):
        with pytest.raises(DeviceError, match=r"onnxruntime 1\.32\.0 and onnxruntime-gpu 1\.26\.0"):
            choose_device(device)
    _wheels(monkeypatch)
    with pytest.raises(DeviceError, match="not installed"):
        runtime_wheel()


def test_a_device_is_one_of_three_words():
    """Another word is a mistake of usage."""
    with pytest.raises(UsageError, match="'cuda'"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("flags", "widest"),
    [("fpu sse4_2 avx avx2 fma", "avx2"), ("avx2 avx512f avx512_vnni", "avx512_vnni"), ("avx avx2 avx512f", "avx512f")],
)
def test_the_cpu_class_is_its_widest_simd_unit(tmp_path: Path, flags, widest):
    """Two CPUs of one class choose the same kernels."""
    (tmp_path / "cpuinfo").write_text(f"model name\t: X\nflags\t\t: {flags}\n")
    assert cpu_class(tmp_path / "cpuinfo").split()[1:] == [widest]


def test_a_profile_says_all_that_bytes_depend_on_and_is_json():
    """Device, hardware, provider, versions, batch shape, threads and index type are in the profile."""
    profile = resolve_profile("cpu", batch_users=16, batch_items=8, batch_lists=4, faiss_threads=2, index_type="SQ8")
    assert json.loads(json.dumps(profile)) == profile
    assert profile["provider"] == "CPUExecutionProvider"
    assert {
        "hardware",
        "pyarrow",
        "numpy",
        "duckdb",
        "batch_users",
        "batch_items",
        "batch_lists",
        "faiss_threads",
    } <= profile.keys()
    assert any(name.startswith("faiss") for name in profile)
    with pytest.raises(UsageError, match="batch_users: expected at least 1, found 0"):
        resolve_profile("cpu", batch_users=0, batch_items=8, batch_lists=4, faiss_threads=2, index_type="SQ8")


def test_another_profile_is_refused_by_the_name_of_what_differs(make_run, monkeypatch):
    """A run is finished on what it was begun on, or not at all."""
    run = make_run()
    assert require_profile(run, device="cpu").name == "cpu"
    older = replace(run, profile={**run.profile, "numpy": "1.0.0"})
    with pytest.raises(StaleRunError, match=r"numpy was 1\.0\.0, here it is 2"):
        require_profile(older, device="cpu")
    with pytest.raises(StaleRunError, match="hardware was riscv"):
        require_profile(replace(run, profile={**run.profile, "hardware": "riscv"}), device="cpu")


def test_a_graph_of_another_integer_type_is_fed_that_type(tiny, tmp_path, weights):
    """Ids are int32 in our tables and become what the bundle's tensors declare."""
    bundle = tiny.make_bundle(tmp_path / "item", Role.ITEM, weights)
    model = onnx.load(str(bundle.layout.graph))
    for value in model.graph.input:
        value.type.tensor_type.elem_type = onnx.TensorProto.INT64
    onnx.save(model, str(bundle.layout.graph))
    bundle = tiny.finish_bundle(bundle.folder, Role.ITEM)
    rows = {"item_id": np.array([3], np.int32), "category": np.array([2], np.int32)}
    np.testing.assert_array_equal(
        open_session(bundle, rows=2).run(rows)["vector"],
        weights.vectors(rows["item_id"], rows["category"]),
    )


def test_a_gpu_computes_for_one_thread_at_a_time(tiny, user_bundle):
    """Batches are made ready side by side, and go through the GPU's buffers one after the other."""
    expected = open_session(user_bundle, rows=8)
    inside, most = [], []

    class Buffers:
        def fits(self, feed, names):
            return True

        def run(self, feed):
            inside.append(1)
            most.append(len(inside))
            results = list(expected.run(feed, ["interests", "count"]).values())
            inside.pop()
            return results

    session = Session(user_bundle, None, rows=8, device=Device("gpu", "CUDAExecutionProvider", "", ""), workers=4)
    session._bound = Buffers()
    batches = [tiny.random_histories(8, seed=seed) for seed in range(40)]
    with working_side_by_side(session.run, batches, workers=session.workers) as results:
        for batch, found in zip(batches, results, strict=True):
            np.testing.assert_array_equal(found["interests"], expected.run(batch)["interests"])
    assert max(most) == 1
