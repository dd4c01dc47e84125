"""What the index holds of the items: their vectors, with recent popularity behind them, and the index when finished.

Where popularity counts, an item's row is its vector, log(1 + events of the last days), and zeros; an interest is
searched with the weight in the place of the events. So the inner product, which FAISS ranks by and which the ranker is
told as the retrieval score, is that of the vectors and weight times the logarithm.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from threading import Lock
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from artifacts.documents import read_json
from artifacts.errors import CorruptError
from artifacts.run import Replay, Run
from artifacts.tables import read_table, reading_table, verify_file
from batch.copied import held_by_gpu
from batch.retrieve import Index, most_of
from features.mapped import zeros

PQ_WIDTH = 4  # numbers of a vector to one code of PQ


def appended(width: int, weight: float) -> np.ndarray:
    """Give what stands behind an interest of *width* numbers in a query: *weight*, and zeros that fill codes of PQ.

    For the weight 0 that is nothing: the index then holds the vectors alone.
    """
    append = np.zeros(1 + -(width + 1) % PQ_WIDTH if weight else 0, np.float32)
    append[:1] = weight
    return append


def open_index(run: Run, item_ids: pa.Array, *, device: str) -> Index:
    """Open the finished index of *run* with the vectors of its items.

    For a replay, whose users stand a day before, the same lists are filled anew with what was popular then.

    Args:
        run: Its step ``index`` is done.
        item_ids: Ids of the catalogue, in order.
        device: ``cpu`` or ``gpu``.

    Raises:
        StaleRunError: If the index or the items are not finished.
        CorruptError: If a file is changed, or index and items do not belong together.
    """
    layout = run.layout.index
    for path in (layout.ivf, layout.parameters):
        verify_file(path)
    said = read_json(layout.parameters)
    append = np.array(said.get("append", []), np.float32)
    filled_again = len(append) > 0 and isinstance(run, Replay)
    ivf = read_ivf(layout.ivf, mapped=not filled_again)
    items = read_table(layout.items)["item"].to_numpy()
    vectors = gather_vectors(run, item_ids, items, more=len(append))
    if (ivf.ntotal, ivf.d) != vectors.shape:
        raise CorruptError(
            f"{layout.ivf}: holds {ivf.ntotal} vectors of width {ivf.d}, but {layout.items.name} and the item vectors "
            f"are {vectors.shape[0]} of width {vectors.shape[1]}; run the step `index` again"
        )
    nprobe = ivf.nprobe
    if filled_again:
        _fill_again(ivf, vectors)
    return Index(
        on_device(ivf, device),
        items,
        vectors,
        nprobe,
        run.profile["faiss_threads"],
        most_of(device),
        append,
        said.get("refine", 1),
        Lock() if device == "gpu" else nullcontext(),
    )


def on_device(index: Any, device: str) -> Any:
    """Give an *index* itself, or its copy on a GPU.

    Raises:
        DeviceError: If the GPU does not hold it.
    """
    if device != "gpu":
        return index
    with held_by_gpu():
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)


def _fill_again(ivf: Any, vectors: np.ndarray) -> None:
    """Put *vectors*, float32 [n, width], into the lists in which the rows that they replace are."""
    own = np.empty(len(vectors), np.int64)
    for number in range(ivf.nlist):
        if length := ivf.invlists.list_size(number):
            own[faiss.rev_swig_ptr(ivf.invlists.get_ids(number), length)] = number
    ivf.reset()
    ivf.add_core(len(vectors), faiss.swig_ptr(vectors), None, faiss.swig_ptr(own))


def read_ivf(path: Any, *, mapped: bool = True) -> Any:
    """Read a FAISS file whose bytes the caller has verified; gives an ``IndexIVF`` of inner products.

    Args:
        path: The file; it must stay as it is while the index is used.
        mapped: Leave the lists in the file: all processes that search it share one copy, which the system may drop
            and read again. FAISS ends the process that changes such an index.

    Raises:
        CorruptError: If it holds another kind of index, or none.
    """
    try:
        ivf = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise CorruptError(f"{path}: expected a FAISS index ({error}); run the step `index` again") from error
    if not isinstance(ivf, faiss.IndexIVF) or ivf.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise CorruptError(f"{path}: expected an IVF of inner products, found a {type(ivf).__name__}")
    return ivf


def gather_vectors(run: Run, item_ids: pa.Array, rows: np.ndarray, *, more: int = 0) -> np.ndarray:
    """Read the vectors of some items, float32 [len(rows), d + more]; they may hold NaN, Inf or nothing but zeros.

    Many lie in a file without a name (:func:`features.mapped.zeros`), and whoever reads them goes through it in parts.

    Args:
        run: Its step ``items`` is done.
        item_ids: Ids of the whole catalogue, in order.
        rows: Ascending catalogue rows.
        more: Numbers behind the d of a vector: its popularity first, then zeros.

    Raises:
        StaleRunError: If a range of items is not finished.
        CorruptError: If a file is changed, or its items are not the catalogue's.
    """
    gathered, end = None, 0
    for name, batch in _item_batches(run):
        start, end = end, end + batch.num_rows
        if not batch.column("item_id").equals(item_ids.slice(start, batch.num_rows)):
            raise CorruptError(
                f"{name}: its items are not rows {start} to {end - 1} of the catalogue; run `items` again"
            )
        column = batch.column("vector")
        vectors = column.flatten().to_numpy().reshape(-1, column.type.list_size)
        width = column.type.list_size
        if gathered is None:
            gathered = zeros((len(rows), width + more), np.float32)
        first, last = np.searchsorted(rows, [start, end])
        gathered[first:last, :width] = vectors[rows[first:last] - start]
    if gathered is None or end != len(item_ids):
        raise CorruptError(f"{run.folder}: the catalogue has {len(item_ids)} items, but {end} have vectors")
    if more:
        gathered[:, -more] = np.log1p(recent_events(run, len(item_ids))[rows])
    return gathered


def recent_events(run: Run, items: int) -> np.ndarray:
    """Read how many events of the last days each of so many catalogue rows has had, int64 [items].

    Raises:
        StaleRunError: If *run* is not prepared.
        CorruptError: If the file is changed.
    """
    popular = read_table(run.layout.popular)
    events = np.zeros(items, dtype=np.int64)
    events[popular["item"].to_numpy()] = popular["events"].to_numpy()
    return events


def _item_batches(run: Run) -> Iterator[tuple[str, pa.RecordBatch]]:
    for shard in range(run.item_shards):
        path = run.layout.items(shard, run.item_shards)
        with reading_table(path) as reader:
            for number in range(reader.num_record_batches):
                yield str(path), reader.get_batch(number)
