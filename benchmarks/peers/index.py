"""Searching the index that a night builds and tunes, beside the one that autofaiss chooses for the same vectors.

``python -m benchmarks.peers.index`` prints ``index_qps_vs_autofaiss`` as JSON: queries a second at a recall@100 of at
least 0.95 on users that tuned neither. Ours takes the parameters that the step ``index`` finds on a sample of other
users; the peer's are the least that reach the recall on the very users that are timed, which can only help it.
"""

import json
import os
from bisect import bisect_left
from collections.abc import Callable

import numpy as np

from batch.ivf import IndexOptions, train
from batch.nprobe import tune
from batch.recall import Sample, take_sample
from batch.retrieve import Index, inner_products, search
from benchmarks.peers.conversation import LOGS, Ask, started
from benchmarks.peers.environment import interpreter_of
from benchmarks.ratio import in_turn
from benchmarks.retrieve import vectors_of

ITEMS, WIDTH, GROUPS = 500_000, 64, 5_000
SAMPLE, USERS, INTERESTS = 4_096, 2_048, 4
K, RECALL = 100, 0.95
PARAMETERS = range(16, 2_048)  # efSearch or nprobe


def made() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make item vectors, and interests of users to tune on and of users to hold out, around the same centres."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((GROUPS, WIDTH))
    return (
        vectors_of(rng, ITEMS, centres),
        vectors_of(rng, SAMPLE * INTERESTS, centres),
        vectors_of(rng, USERS * INTERESTS, centres),
    )


def recall_of(rows: np.ndarray, sample: Sample, items: np.ndarray) -> float:
    """Give the share of the k best that *rows*, int [queries, k], found: by score, as the step ``index`` counts."""
    scores = inner_products(sample.vectors[:, None, :], items[rows])
    return float(((scores >= sample.least[:, None]) & (rows >= 0)).mean())


def least_that(reaches: Callable[[int], bool]) -> int:
    """Find the least parameter that *reaches*, of which all greater ones do; the greatest, if none does."""
    return PARAMETERS[min(bisect_left(PARAMETERS, True, key=reaches), len(PARAMETERS) - 1)]


def compare(ask: Ask, items: np.ndarray, tuned_on: np.ndarray, held_out: np.ndarray) -> dict[str, object]:
    """Tune both to the recall, and time them in turn."""
    threads = len(os.sched_getaffinity(0))
    options = IndexOptions(recall_target=RECALL, recall_k=K)
    ivf = train(items, options, threads=threads)
    index = Index(ivf, np.arange(ITEMS, dtype=np.int32), items, 1, threads)
    nprobe = tune(index, tuned_on, np.full(SAMPLE, INTERESTS), options)["nprobe"]
    sample = take_sample(items, held_out, np.full(USERS, INTERESTS), k=K)
    path = LOGS / "rows.npy"

    def theirs_at(value: int) -> float:
        ask("search", value, K, str(path.absolute()))
        return recall_of(np.load(path), sample, items)

    value = least_that(lambda one: theirs_at(one) >= RECALL)
    rows, _ = search(index, held_out, k=K, nprobe=nprobe)
    ratio = in_turn(lambda: search(index, held_out, k=K, nprobe=nprobe), lambda: ask("search", value, K))
    return ratio.document(
        items=ITEMS,
        queries=len(held_out),
        ours={"lists": ivf.nlist, "nprobe": nprobe, "recall": recall_of(rows, sample, items)},
        autofaiss={**ask("told"), "parameter": value, "recall": theirs_at(value)},
    )


def main() -> None:
    """Print the figure, if the peer can be had."""
    figures = {}
    if python := interpreter_of("autofaiss"):
        items, tuned_on, held_out = made()
        LOGS.mkdir(parents=True, exist_ok=True)
        paths = [str((LOGS / f"{name}.npy").absolute()) for name in ("items", "queries")]
        for path, vectors in zip(paths, (items, held_out), strict=True):
            np.save(path, vectors)
        with started(python, "benchmarks.peers.with_autofaiss", *paths) as ask:
            figures["index_qps_vs_autofaiss"] = compare(ask, items, tuned_on, held_out)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
