"""The limit of one step: its arithmetic alone, on ready arrays, with the batches and threads of a finished night.

``python -m benchmarks.bare CONFIG BUNDLES items|interests|search|rank|write`` prints rows a second, items or users, of
two ways to use the same threads: ``plain``, one call in all of them, and ``side_by_side``, many calls of one thread.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnxruntime as ort
import pyarrow as pa

from artifacts.bundle import OUTPUT_NAMES, Role, read_bundle
from artifacts.layout import sidecar_of
from artifacts.run import Run, find_run
from artifacts.tables import read_table, writing_table
from benchmarks.night import DATE
from features.encode import user_inputs

SECONDS = 10.0  # at the least
BATCHES = 32  # ready ones, used in turn
CANDIDATES = 100
OVERFETCH = 2


@dataclass(frozen=True, slots=True)
class Job:
    """One call, ready arguments for it, and the rows of each."""

    work: Callable[[Any], object]
    ready: list[Any]
    rows: int


def main() -> None:
    """Measure one of the limits."""
    config, bundles, what = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    run = find_run(config.parent / "store", DATE)
    threads = len(os.sched_getaffinity(0))
    ways = {"plain": 1, "side_by_side": threads}
    print(json.dumps({way: _rate(JOBS[what](run, bundles, threads // calls), calls) for way, calls in ways.items()}))


def _rate(job: Job, workers: int) -> float:
    """Rows a second with so many calls side by side."""
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(job.work, job.ready[:workers]))  # the first call allocates
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < SECONDS:
            done += len(list(pool.map(job.work, job.ready))) * job.rows
        return done / (time.perf_counter() - started)


def _session(folder: Path, role: Role, threads: int) -> Callable[[dict[str, np.ndarray]], object]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(folder / role / "model.onnx"), options, providers=["CPUExecutionProvider"])
    names = list(OUTPUT_NAMES[role])
    return lambda arrays: session.run(names, arrays)


def _items(run: Run, bundles: Path, threads: int) -> Job:
    catalogue, rows = read_table(run.layout.catalogue), run.profile["batch_items"]
    spec = read_bundle(bundles / Role.ITEM).spec
    columns = {name: catalogue[f"feature_{name}"].to_numpy() for name in spec.item_features}
    ready = [{name: column[i * rows : (i + 1) * rows] for name, column in columns.items()} for i in range(BATCHES)]
    return Job(_session(bundles, Role.ITEM, threads), ready, rows)


def _full_batches(run: Run, path_of: Callable[[int, int], Path], rows: int) -> list[pa.RecordBatch]:
    """Cut shards of users into whole batches, as many as are wanted."""
    batches: list[pa.RecordBatch] = []
    for shard in range(run.shards):
        (whole,) = read_table(path_of(shard, run.shards)).combine_chunks().to_batches()
        batches += [whole.slice(start, rows) for start in range(0, whole.num_rows - rows + 1, rows)]
        if len(batches) >= BATCHES:
            break
    return batches[:BATCHES]


def _interests(run: Run, bundles: Path, threads: int) -> Job:
    bundle, rows = read_bundle(bundles / Role.USER), run.profile["batch_users"]
    ready = [
        dict(user_inputs(batch, bundle.spec, bundle.role, rows))
        for batch in _full_batches(run, run.layout.histories, rows)
    ]
    return Job(_session(bundles, Role.USER, threads), ready, rows)


def _rank(run: Run, bundles: Path, threads: int) -> Job:
    bundle, rows = read_bundle(bundles / Role.RANKER), run.profile["batch_lists"]
    catalogue, rng = read_table(run.layout.catalogue), np.random.default_rng(1)
    ready = []
    for batch in _full_batches(run, run.layout.histories, rows):
        chosen = rng.integers(0, catalogue.num_rows, (rows, CANDIDATES))
        candidates = {
            f"candidate_{name}": catalogue[f"feature_{name}"].to_numpy()[chosen] for name in bundle.spec.item_features
        }
        cross = rng.random((rows, CANDIDATES, len(bundle.spec.cross_features)), dtype=np.float32)
        ready.append({**user_inputs(batch, bundle.spec, bundle.role, rows), **candidates, "cross": cross})
    return Job(_session(bundles, Role.RANKER, threads), ready, rows)


def _search(run: Run, _bundles: Path, threads: int) -> Job:
    index = faiss.read_index(str(run.layout.index.ivf))
    ready, rows = [], run.profile["batch_lists"]
    for batch in _full_batches(run, run.layout.interests, rows):
        vectors = batch.column("vectors").flatten().flatten().to_numpy()
        ready.append(np.ascontiguousarray(vectors.reshape(-1, index.d)))

    def search(queries: np.ndarray) -> object:
        faiss.omp_set_num_threads(threads)  # OpenMP keeps this for each calling thread
        return index.search(queries, CANDIDATES * OVERFETCH)

    return Job(search, ready, rows)


def _write(run: Run, _bundles: Path, _threads: int) -> Job:
    """Write the finished item vectors again, with the bytes that the format asks for: compressed, digested, flushed."""
    path = run.layout.items(0, run.item_shards)
    table = read_table(path)
    place = iter(range(1_000_000))

    def write(rows: pa.Table) -> None:
        copy = path.with_name(f".copy-{next(place)}.arrow")
        with writing_table(copy, rows.schema.remove_metadata(), metadata={}, inputs="") as writer:
            writer.write(rows)
        sidecar_of(copy).unlink()
        copy.unlink()

    return Job(write, [table], table.num_rows)


# By what is limited: made of a run, its bundles and the threads of a call.
JOBS: dict[str, Callable[[Run, Path, int], Job]] = {
    "items": _items,
    "interests": _interests,
    "search": _search,
    "rank": _rank,
    "write": _write,
}


if __name__ == "__main__":
    main()
