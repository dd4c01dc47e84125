"""Ray Data in its own environment: histories in a folder of Parquet files through the user graph to Parquet files.

What its documentation advises for fast batch inference: a class for ``map_batches``, so that an actor opens its
session once; an actor for each core, of one thread; Arrow batches, which are not copied; columns chosen when reading.
Ray is up before the time runs, on this machine's cores, loopback and without a dashboard; reading, the actors' start,
computing and writing are timed, since every job of Ray Data starts its actors.

``python -m benchmarks.peers.with_ray_data MODEL.onnx`` does what it is asked.
"""

import os
import shutil
import sys
from pathlib import Path

os.environ |= {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}  # loopback alone; read at import

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from benchmarks.peers.conversation import answer


class Interests:
    """A user graph, which gives each batch of histories its interests."""

    def __init__(self, graph: str) -> None:
        """Open it, for one thread."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.shapes = {one.name: one.shape for one in self.session.get_inputs()}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Compute [users, K, d], written as one list of K d numbers a user, and how many of the K are in use."""
        inputs = {name: self._array(batch[name], len(shape)) for name, shape in self.shapes.items()}
        vectors, counts = self.session.run(["interests", "count"], inputs)
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors[0].size)
        return pa.table({"user_id": batch["user_id"], "vectors": flat, "count": pa.array(counts)})

    @staticmethod
    def _array(column: pa.ChunkedArray, axes: int) -> np.ndarray:
        values = column.combine_chunks()
        return values.to_numpy() if axes == 1 else values.flatten().to_numpy().reshape(len(values), -1)


def main() -> None:
    """Start Ray; then do the job as often as asked."""
    graph = sys.argv[1]
    cores = len(os.sched_getaffinity(0))
    # By Ray's own count: an actor takes a core for good, and would leave none to the tasks that read and write.
    ray.init(address="local", num_cpus=2 * cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False

    def job(histories: str, out: str, columns: list[str], rows: int) -> None:
        shutil.rmtree(out, ignore_errors=True)
        read = ray.data.read_parquet(histories).select_columns(columns)
        computed = read.map_batches(
            Interests,
            fn_constructor_args=(graph,),
            batch_size=rows,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=cores),
            num_cpus=1,
        )
        computed.write_parquet(out)

    def written(out: str) -> int:
        return sum(pq.read_metadata(path).num_rows for path in Path(out).glob("*.parquet"))

    try:
        answer({"job": job, "written": written})
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
