"""The limit of one step: its arithmetic alone, on ready arrays, with the batches and threads of a finished night.

``python -m benchmarks.bare CONFIG items|interests|search|rank`` prints ``{"rows_per_second": ...}``; a row is an item, or
a user.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnxruntime as ort
import pyarrow as pa

from artifacts.bundle import OUTPUT_NAMES, Role, read_bundle
from artifacts.run import Run, find_run
from artifacts.tables import read_table
from benchmarks.made import DATE
from features.encode import user_inputs

SECONDS = 10.0  # at the least
BATCHES = 32  # ready ones, used in turn
CANDIDATES = 100
OVERFETCH = 2


def main() -> None:
    """Measure one of the limits."""
    config, what = Path(sys.argv[1]), sys.argv[2]
    run = find_run(config.parent / "store", DATE)
    bundles = config.parent.parent / next(config.parent.parent.glob("shop-*")).name / "bundles"
    make: dict[str, Callable[[Run, Path], tuple[Callable[[Any], object], list[Any], int]]] = {
        "items": _items,
        "interests": _interests,
        "search": _search,
        "rank": _rank,
    }
    work, ready, rows = make[what](run, bundles)
    work(ready[0])  # the first call allocates
    done, started = 0, time.perf_counter()
    for arrays in itertools.cycle(ready):
        work(arrays)
        done += rows
        if time.perf_counter() - started > SECONDS:
            break
    print(json.dumps({"rows_per_second": done / (time.perf_counter() - started)}))


def _session(folder: Path, role: Role) -> Callable[[dict[str, np.ndarray]], object]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = ort.InferenceSession(str(folder / role / "model.onnx"), options, providers=["CPUExecutionProvider"])
    names = list(OUTPUT_NAMES[role])
    return lambda arrays: session.run(names, arrays)


def _items(run: Run, bundles: Path) -> tuple[Callable[[Any], object], list[Any], int]:
    catalogue, rows = read_table(run.layout.catalogue), run.profile["batch_items"]
    spec = read_bundle(bundles / Role.ITEM).spec
    columns = {name: catalogue[f"feature_{name}"].to_numpy() for name in spec.item_features}
    ready = [{name: column[i * rows : (i + 1) * rows] for name, column in columns.items()} for i in range(BATCHES)]
    return _session(bundles, Role.ITEM), ready, rows


def _histories(run: Run) -> list[pa.RecordBatch]:
    table = read_table(run.layout.histories(0, run.shards)).combine_chunks()
    (whole,) = table.to_batches()
    rows = run.profile["batch_users"]
    return [whole.slice(start, rows) for start in range(0, whole.num_rows - rows + 1, rows)][:BATCHES]


def _interests(run: Run, bundles: Path) -> tuple[Callable[[Any], object], list[Any], int]:
    bundle, rows = read_bundle(bundles / Role.USER), run.profile["batch_users"]
    ready = [dict(user_inputs(batch, bundle.spec, bundle.role, rows)) for batch in _histories(run)]
    return _session(bundles, Role.USER), ready, rows


def _rank(run: Run, bundles: Path) -> tuple[Callable[[Any], object], list[Any], int]:
    bundle, rows = read_bundle(bundles / Role.RANKER), run.profile["batch_users"]
    catalogue, rng = read_table(run.layout.catalogue), np.random.default_rng(1)
    ready = []
    for batch in _histories(run):
        chosen = rng.integers(0, catalogue.num_rows, (rows, CANDIDATES))
        candidates = {
            f"candidate_{name}": catalogue[f"feature_{name}"].to_numpy()[chosen] for name in bundle.spec.item_features
        }
        cross = rng.random((rows, CANDIDATES, len(bundle.spec.cross_features)), dtype=np.float32)
        ready.append({**user_inputs(batch, bundle.spec, bundle.role, rows), **candidates, "cross": cross})
    return _session(bundles, Role.RANKER), ready, rows


def _search(run: Run, _bundles: Path) -> tuple[Callable[[Any], object], list[Any], int]:
    faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
    index = faiss.read_index(str(run.layout.index.ivf))
    table = read_table(run.layout.interests(0, run.shards)).combine_chunks()
    rows = run.profile["batch_users"]
    ready = []
    for start in range(0, table.num_rows - rows + 1, rows):
        vectors = table["vectors"].slice(start, rows).combine_chunks().flatten().flatten().to_numpy()
        ready.append(np.ascontiguousarray(vectors.reshape(-1, index.d)))
    return lambda queries: index.search(queries, CANDIDATES * OVERFETCH), ready[:BATCHES], rows


if __name__ == "__main__":
    main()
