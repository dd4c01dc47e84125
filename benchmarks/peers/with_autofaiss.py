"""autofaiss in its own environment: the index that it chooses for the vectors in a file, and searches in it.

``build_index`` is told the metric and the machine's cores, and nothing else: the kind of index is its own choice,
which for a catalogue that fits into the 16 GB that it allows by default is an HNSW graph of 32 links ("if we can build
an HNSW with the given memory constraints, it's the best"). Its tuning knows a time for one query and no recall; so
that both sides give the same recall, the one parameter that it tunes is asked for anew, and set through its own
``set_search_hyperparameters``. All queries come in one call, which FAISS spreads over all cores: its documentation's
advice against one query at a time.

``python -m benchmarks.peers.with_autofaiss ITEMS.npy QUERIES.npy`` builds, and then does what it is asked.
"""

import logging
import os
import re
import sys
import time
from typing import Any

import faiss
import numpy as np
from autofaiss import build_index
from autofaiss.indices.index_utils import get_index_size, set_search_hyperparameters

from benchmarks.peers.conversation import answer


def main() -> None:
    """Build once; then search as often as asked, with any value of the parameter."""
    items, queries = (np.load(path) for path in sys.argv[1:3])
    threads = len(os.sched_getaffinity(0))
    started = time.perf_counter()
    index, said = build_index(items, metric_type="ip", save_on_disk=False, nb_cores=threads, verbose=logging.WARNING)
    seconds = time.perf_counter() - started
    faiss.omp_set_num_threads(threads)
    parameter = re.split("[=,]", said["index_param"])[0]

    def told() -> dict[str, Any]:
        chosen = {name: said[name] for name in ("index_key", "index_param")}
        return {**chosen, "build_seconds": round(seconds, 1), "bytes": get_index_size(index)}

    def search(value: int, k: int, rows_path: str | None = None) -> None:
        set_search_hyperparameters(index, f"{parameter}={value}")
        _, rows = index.search(queries, k)
        if rows_path:
            np.save(rows_path, rows)

    answer({"told": told, "search": search})


if __name__ == "__main__":
    main()
