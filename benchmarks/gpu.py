"""A GPU beside its own ceilings, and beside all cores of the processor: copies, products, towers, ranker, index, night.

``python -m benchmarks.gpu [PART ...]`` needs a GPU, nightrec[gpu] and torch with CUDA; prints JSON after each part. The
ceilings are what torch reaches on this GPU with one large copy and one large matrix product. A graph alone is the same
graph with its inputs and outputs on the GPU; ours has the copies there and back, through pinned memory.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper

from artifacts.bundle import Bundle, Role, input_names, read_bundle
from batch.ivf import IndexOptions, train
from batch.profile import GPU_PROVIDER, choose_device
from batch.session import open_session
from benchmarks import whole
from benchmarks.made import CATEGORIES, CLUSTER, MIND, SPEC, make_catalogue, make_users
from benchmarks.ranker import CANDIDATES, Output, flops, products, ranker
from export.graph import to_onnx
from export.narrow import write_narrow
from export.sample import FULL, draw_rows

FOLDER = Path("build/bench-gpu")
ITEMS = 200_000
ROUNDS, SECONDS = 5, 0.4  # of a measure: the median of so many, each of so long at the least
TOWERS, LISTS = (256, 1_024, 4_096, 16_384), (64, 256, 1_024)  # rows of a batch
VECTORS, WIDTH, QUERIES, NEIGHBOURS, NPROBE = 500_000, 64, 8_192, 200, 64
USERS, RANKED = 200_000, 20_000


def rate(work: Callable[[], object], rows: float) -> float:
    """Rows a second of *work*, which does *rows* at a call and waits for the GPU: the median of some rounds."""
    work()
    found = []
    for _ in range(ROUNDS):
        calls, started = 0, time.perf_counter()
        while time.perf_counter() - started < SECONDS:
            work()
            calls += 1
        found.append(calls * rows / (time.perf_counter() - started))
    return statistics.median(found)


def ceilings() -> dict[str, float]:
    """Bytes a second of a copy, read and written, and operations a second of a product, in each precision."""
    torch.backends.cuda.matmul.allow_tf32 = False
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    found = {"copy": rate(_waiting(lambda: target.copy_(source)), 2 * len(source))}
    size = 8_192
    for name, kind in (("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        one, other = (torch.randn(size, size, device="cuda", dtype=kind) for _ in range(2))
        found[name] = rate(_waiting(lambda one=one, other=other: one @ other), 2 * size**3)
    return found


def _waiting(work: Callable[[], object]) -> Callable[[], None]:
    def waited() -> None:
        work()
        torch.cuda.synchronize()

    return waited


def _opened(path: Path) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    providers = [(GPU_PROVIDER, {"use_tf32": "0"}), "CPUExecutionProvider"]
    runtime = ort.InferenceSession(str(path), options, providers=providers)
    if runtime.get_providers()[0] != GPU_PROVIDER:
        raise SystemExit("ONNX Runtime did not take the GPU; see `nightrec doctor`")
    return runtime


def alone(path: Path, inputs: dict[str, np.ndarray], outputs: list[str]) -> Callable[[], None]:
    """Give what runs a graph on the GPU, with all that it takes and gives there."""
    runtime = _opened(path)
    binding = runtime.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
    for name in outputs:
        binding.bind_output(name, "cuda")

    def run() -> None:
        runtime.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def towers() -> dict[str, Any]:
    """Users a second of MIND: on the GPU alone, with our copies, in one thread of a CPU; and the bytes a user needs."""
    bundle = _catalogue("user")
    source = _histories(bundle)
    found: dict[str, Any] = {}
    for rows in TOWERS:
        inputs = source(rows)
        session = open_session(bundle, rows=rows, device="gpu")
        names = ["interests", "count"]
        found[str(rows)] = {
            "ours": rate(lambda inputs=inputs, session=session: session.run(inputs), rows),
            "graph_alone": rate(alone(bundle.layout.graph, inputs, names), rows),
        }
    processor, few = open_session(bundle, rows=256, device="cpu"), source(256)
    found["cpu_one_thread"] = rate(lambda: processor.run(few), 256)
    vectors = len(SPEC.item_features) * SPEC.history_length + MIND.interests
    found["bytes_a_user"] = 4 * (vectors * MIND.width + SPEC.history_length * MIND.interests)
    return found


def _catalogue(role: str) -> Bundle:
    shop = FOLDER / "shop"
    make_catalogue(shop, items=ITEMS)
    return read_bundle(shop / "bundles" / role)


def _histories(bundle: Bundle) -> Callable[[int], dict[str, np.ndarray]]:
    limits = {"item_id": ITEMS, "category": min(CATEGORIES, ITEMS // CLUSTER), "country": 3}

    def draw(rows: int) -> dict[str, np.ndarray]:
        rng, arrays = np.random.default_rng(1), {}
        for tensor in bundle.inputs:
            feature = next(name for name in limits if tensor.name.endswith(name))
            shape = (rows, *(axis for axis in tensor.shape[1:] if isinstance(axis, int)))
            arrays[tensor.name] = rng.integers(2, limits[feature], shape).astype(tensor.type)
        return {name: arrays[name] for name in input_names(Role.USER, bundle.spec)}

    return draw


def rankers(output: Output) -> dict[str, Any]:
    """Pairs and operations a second of BST in each precision and size of batch, and how far scores are from fp32's."""
    source = ranker(output)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        graphs = {kind: Path(name) / f"{kind}.onnx" for kind in ("fp32", "fp16", "bf16")}
        to_onnx(source, graphs["fp32"])
        drawn = {rows: draw_rows(source, [FULL] * rows, candidates=CANDIDATES, seed=1) for rows in LISTS}
        write_narrow(source, graphs["fp32"], graphs["fp16"], drawn[LISTS[0]], "fp16")
        _in_bfloat(graphs["fp16"], graphs["bf16"])
        exact = _scores(graphs["fp32"], drawn[LISTS[0]])
        for kind, path in graphs.items():
            scores = _scores(path, drawn[LISTS[0]])
            found[kind] = {
                "pairs": {
                    str(rows): rate(alone(path, inputs, ["score"]), rows * CANDIDATES) for rows, inputs in drawn.items()
                },
                "off": float(np.abs(scores - exact).max()),
                "best_10_kept": _kept(exact, scores),
            }
    found["flops_a_pair"] = flops(products(source, 64, CANDIDATES)) / (64 * CANDIDATES)
    return found


def _scores(path: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(_opened(path).run(["score"], inputs)[0])


def _kept(exact: np.ndarray, scores: np.ndarray) -> float:
    best = [np.argsort(-one, axis=1, kind="stable")[:, :10] for one in (exact, scores)]
    return float(np.mean([len(np.intersect1d(*rows)) / 10 for rows in zip(*best, strict=True)]))


def _in_bfloat(half: Path, bfloat: Path) -> None:
    """Write a graph whose wide layers are in fp16 with bf16 in its place."""
    model = onnx.load(half)
    for node in model.graph.node:
        for attribute in node.attribute if node.op_type == "Cast" else ():
            if attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
    for number, one in enumerate(model.graph.initializer):
        if one.data_type == TensorProto.FLOAT16:
            wide = numpy_helper.to_array(one).astype(np.float32)
            bits = torch.from_numpy(wide).bfloat16().view(torch.int16).numpy().tobytes()
            model.graph.initializer[number].CopyFrom(
                helper.make_tensor(one.name, TensorProto.BFLOAT16, one.dims, bits, raw=True)
            )
    bfloat.write_bytes(model.SerializeToString(deterministic=True))


def index() -> dict[str, Any]:
    """Seconds to make an IVF, and queries a second, on the GPU and on all cores; and how equal what they find is."""
    rng, threads = np.random.default_rng(1), len(os.sched_getaffinity(0))
    centres = rng.standard_normal((VECTORS // 100, WIDTH), dtype=np.float32)
    vectors = centres[np.arange(VECTORS) // 100] + 0.3 * rng.standard_normal((VECTORS, WIDTH), dtype=np.float32)
    near = vectors[rng.integers(0, VECTORS, QUERIES)]
    queries = near + 0.3 * rng.standard_normal((QUERIES, WIDTH), dtype=np.float32)
    found: dict[str, Any] = {"lists": 0, "nprobe": NPROBE}
    neighbours = {}
    for device in ("gpu", "cpu"):
        started = time.perf_counter()
        ivf = train(vectors, IndexOptions(), threads=threads, device=device)
        found[f"{device}_build_seconds"] = time.perf_counter() - started
        found["lists"] = ivf.nlist
        searched = ivf if device == "cpu" else faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, ivf)
        searched.nprobe = NPROBE
        faiss.omp_set_num_threads(threads)
        found[f"{device}_queries"] = rate(lambda searched=searched: searched.search(queries, NEIGHBOURS), QUERIES)
        neighbours[device] = searched.search(queries, NEIGHBOURS)[1]
    exact = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), WIDTH)
    exact.add(vectors)
    found["exact_gpu_queries"] = rate(lambda: exact.search(queries, NEIGHBOURS), QUERIES)
    neighbours["exact"] = exact.search(queries, NEIGHBOURS)[1]
    for device in ("gpu", "cpu"):
        shared = [np.intersect1d(*rows).size for rows in zip(neighbours[device], neighbours["exact"], strict=True)]
        found[f"{device}_recall"] = float(np.mean(shared) / NEIGHBOURS)
    return found


def nights() -> dict[str, Any]:
    """Seconds of each step of a night on the GPU and on all cores, with and without a ranker."""
    found: dict[str, Any] = {}
    _catalogue("ranker")
    for ranked, users in ((False, USERS), (True, RANKED)):
        for device, sizes in (("gpu", "batch_users = 4096\nbatch_lists = 256"), ("cpu", "")):
            folder = FOLDER / f"{users}-{device}"
            config = make_users(
                folder, FOLDER / "shop", users=users, items=ITEMS, threads=len(os.sched_getaffinity(0)), shards=1
            )
            lines = [line for line in config.read_text().splitlines() if ranked or not line.startswith("ranker")]
            lines.insert(lines.index("[night]") + 1, f'device = "{device}"\n{sizes}')
            config.write_text("\n".join(lines) + "\n")
            steps = whole.night(config)
            key = f"{'ranked' if ranked else 'retrieved'}_{device}"
            found[key] = {"users": users} | {step: round(seconds, 2) for step, seconds in steps.items()}
            shutil.rmtree(folder)
    return found


def fits() -> dict[str, Any]:
    """Examples a second of an epoch of MIND, on the GPU and in one thread of the processor."""
    from dataclasses import replace

    from benchmarks.fit import CONFIG, OPTIONS, SPLIT, made
    from models.backend import keras
    from models.fit import fit_mind, mind_batches

    sequences, told = made()
    found: dict[str, Any] = {}
    for batch in (OPTIONS.batch, 16 * OPTIONS.batch):
        options = replace(OPTIONS, batch=batch)
        examples = mind_batches(sequences, SPLIT, spec=told["spec"], options=options).examples  # type: ignore[arg-type]
        for device in ("gpu", "cpu"):
            with keras.device(device):
                fit_mind(sequences, **told, split=SPLIT, config=CONFIG, options=options)  # type: ignore[arg-type]
                started = time.perf_counter()
                fit_mind(sequences, **told, split=SPLIT, config=CONFIG, options=options)  # type: ignore[arg-type]
                found[f"batch_{batch}_{device}"] = examples / (time.perf_counter() - started)
    return found


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "ceilings": ceilings,
    "towers": towers,
    "ranker_target": lambda: rankers("target"),
    "ranker_all": lambda: rankers("all"),
    "index": index,
    "fit": fits,
    "nights": nights,
}


def main() -> None:
    """Measure what is asked for; what a part finds is printed when it is found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="by default all")
    asked = parser.parse_args()
    print(json.dumps({"gpu": choose_device("gpu").hardware}), flush=True)
    for name in asked.parts or PARTS:
        print(json.dumps({name: PARTS[name]()}), flush=True)


if __name__ == "__main__":
    main()
