"""Retrieving candidates beside the plain FAISS search of the same queries: merge, removal and scores on top of it.

``python -m benchmarks.retrieve`` prints ``retrieve_vs_faiss`` as JSON.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import faiss
import numpy as np

from batch.ivf import IndexOptions, train
from batch.memory import give_back_what_is_freed
from batch.merge import Lists
from batch.nprobe import tune
from batch.retrieve import Index, retrieve
from benchmarks.ratio import in_turn

ITEMS, WIDTH, GROUPS = 200_000, 64, 2_000
USERS, INTERESTS, BATCH = 2_048, 4, 64
LIMIT, FETCH, SEEN = 100, 200, 20


def vectors_of(rng: np.random.Generator, rows: int, centres: np.ndarray) -> np.ndarray:
    """Draw vectors around *centres*, as items lie around what they are: float32 [rows, d]."""
    chosen = centres[rng.integers(0, len(centres), rows)]
    return (chosen + 0.8 * rng.standard_normal(chosen.shape)).astype(np.float32)


def main() -> None:
    """Print the figure."""
    rng, threads = np.random.default_rng(1), len(os.sched_getaffinity(0))
    centres = rng.standard_normal((GROUPS, WIDTH))
    items, users = vectors_of(rng, ITEMS, centres), vectors_of(rng, USERS * INTERESTS, centres)
    ivf = train(items, IndexOptions(), threads=threads, device="cpu")
    index = Index(ivf, np.arange(ITEMS, dtype=np.int32), items, 1, threads)
    nprobe = tune(index, users, np.full(USERS, INTERESTS), IndexOptions())["nprobe"]
    counts, had = np.full(BATCH, INTERESTS), np.sort(rng.integers(0, ITEMS, (USERS, SEEN)), axis=1)
    parts = [
        (
            users[start * INTERESTS : (start + BATCH) * INTERESTS],
            Lists(had[start : start + BATCH].ravel(), np.full(BATCH, SEEN)),
        )
        for start in range(0, USERS, BATCH)
    ]
    alone = replace(index, nprobe=nprobe, threads=1)
    parameters = faiss.SearchParametersIVF(nprobe=nprobe)

    give_back_what_is_freed()  # as in the step
    with ThreadPoolExecutor(threads) as pool:

        def ours() -> None:
            list(pool.map(lambda part: retrieve(alone, part[0], counts, part[1], limit=LIMIT, fetch=FETCH), parts))

        def plain() -> None:
            faiss.omp_set_num_threads(threads)
            ivf.search(users, FETCH, params=parameters)

        ratio = in_turn(ours, plain)
    made = {"items": ITEMS, "users": USERS, "interests": INTERESTS, "fetch": FETCH, "nprobe": nprobe}
    print(json.dumps({"retrieve_vs_faiss": ratio.document(**made)}, indent=2))


if __name__ == "__main__":
    main()
