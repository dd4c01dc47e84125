"""An index opened with the vectors of its items, and what users have had as its rows."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest

from artifacts import schemas
from artifacts.documents import write_json
from artifacts.errors import CorruptError, InputError, StaleRunError
from artifacts.run import Run
from artifacts.tables import finish_file, writing_table
from batch.indexed import gather_vectors, open_index
from batch.retrieve import most_of, seen_lists
from features.encode import NO_ITEM

IDS = pa.array(range(100, 107), pa.int64())
VECTORS = np.arange(14, dtype=np.float32).reshape(7, 2) + 1


@pytest.fixture
def indexed(make_run: Callable[..., Run]) -> Run:
    """A run of 7 items in 3 ranges, written by hand; all but items 0 and 4 are in its index, whose nprobe is 2."""
    run = make_run(items=7, item_shards=3)
    for shard, (start, end) in enumerate([(0, 2), (2, 4), (4, 7)]):
        write_items(run, shard, IDS[start:end], VECTORS[start:end])
    write_index(run, np.array([1, 2, 3, 5, 6]), VECTORS[[1, 2, 3, 5, 6]])
    return run


def write_items(run: Run, shard: int, ids: pa.Array, vectors: np.ndarray) -> None:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=schemas.vector_of(vectors.shape[1]))
    schema = schemas.items(pa.int64(), vectors.shape[1])
    path = run.layout.items(shard, run.item_shards)
    with writing_table(path, schema, metadata=run.metadata(), inputs="") as writer:
        writer.write(pa.table([ids, lists], schema=schema))


def write_index(run: Run, items: np.ndarray, vectors: np.ndarray, *, metric: int = faiss.METRIC_INNER_PRODUCT) -> None:
    layout, schema = run.layout.index, schemas.index_items(pa.int64())
    with writing_table(layout.items, schema, metadata=run.metadata(), inputs="") as writer:
        writer.write(pa.table([IDS.take(pa.array(items)), pa.array(items, pa.int32())], schema=schema))
    width = vectors.shape[1]
    ivf = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, 3, metric)
    ivf.train(vectors)
    ivf.add(vectors)
    ivf.nprobe = 2
    faiss.write_index(ivf, str(layout.ivf))
    write_json(layout.parameters, {})
    for path in (layout.ivf, layout.parameters):
        finish_file(path, inputs="", run_key=run.run_key)


def test_an_index_is_opened_with_the_vectors_of_its_items(indexed: Run) -> None:
    """Row i of the index, of its items and of their vectors is one item; how to search is what was chosen."""
    index = open_index(indexed, IDS, device="cpu")

    assert index.items.tolist() == [1, 2, 3, 5, 6]
    assert np.array_equal(index.vectors, VECTORS[[1, 2, 3, 5, 6]])
    assert np.array_equal(index.ivf.reconstruct_n(0, 5), index.vectors)
    assert (index.nprobe, index.threads, index.most) == (2, 1, most_of("cpu"))
    assert index.vectors.dtype == np.float32


def test_an_index_is_moved_to_the_gpu(indexed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, stood in for here, the index is moved there as it was read, and its limits hold; nprobe is kept."""
    moved = []

    def move(resources: str, device: int, ivf: faiss.IndexIVF) -> str:
        moved.append((resources, device, ivf.ntotal))
        return "the index on the GPU"

    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "resources", raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", move, raising=False)
    index = open_index(indexed, IDS, device="gpu")

    assert moved == [("resources", 0, 5)]
    assert (index.ivf, index.nprobe, index.most) == ("the index on the GPU", 2, 2048)


@pytest.mark.parametrize(("shape", "found"), [((4, 2), "4 vectors of width 2"), ((5, 3), "5 vectors of width 3")])
def test_an_index_of_other_items_is_refused(indexed: Run, shape: tuple[int, int], found: str) -> None:
    """An index with more, fewer or other vectors than its items does not belong to them."""
    write_index(indexed, np.array([1, 2, 3, 5, 6]), np.ones(shape, np.float32))

    with pytest.raises(CorruptError, match=rf"ivf\.faiss: holds {found}, but items\.arrow and .* are 5 of width 2"):
        open_index(indexed, IDS, device="cpu")


def test_an_index_that_is_changed_or_no_ivf_of_inner_products_is_refused(indexed: Run) -> None:
    """What lies there must be what was written, a FAISS index, and of the one kind that is searched here."""
    path = indexed.layout.index.ivf
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorruptError, match=r"ivf\.faiss: expected sha256"):
        open_index(indexed, IDS, device="cpu")

    path.write_bytes(b"no index at all")
    finish_file(path, inputs="")
    with pytest.raises(CorruptError, match=r"ivf\.faiss: expected a FAISS index \("):
        open_index(indexed, IDS, device="cpu")

    faiss.write_index(faiss.IndexFlatIP(2), str(path))
    finish_file(path, inputs="")
    with pytest.raises(CorruptError, match="expected an IVF of inner products, found a IndexFlatIP"):
        open_index(indexed, IDS, device="cpu")

    write_index(indexed, np.array([1, 2, 3, 5, 6]), VECTORS[[1, 2, 3, 5, 6]], metric=faiss.METRIC_L2)
    with pytest.raises(CorruptError, match="expected an IVF of inner products, found a IndexIVFFlat"):
        open_index(indexed, IDS, device="cpu")


MAPPED = """
import sys
import faiss
import numpy as np
from batch.indexed import read_ivf

def held():  # bytes of memory that is this process's own
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

before = held()
ivf = read_ivf(sys.argv[1], mapped=sys.argv[2] == "mapped")
found = ivf.search(np.eye(4, 64, dtype=np.float32), 5, params=faiss.SearchParametersIVF(nprobe=8))
print(held() - before, *(array.tobytes().hex() for array in found))
"""


def test_who_searches_an_index_shares_its_file(tmp_path: Path) -> None:
    """Of 21 MB of lists a process holds none itself; what it finds are the very bits of an index in memory."""
    vectors = np.random.default_rng(3).standard_normal((80_000, 64), dtype=np.float32)
    ivf = faiss.IndexIVFFlat(faiss.IndexFlatIP(64), 64, 8, faiss.METRIC_INNER_PRODUCT)
    ivf.train(vectors[:400])
    ivf.add(vectors)
    path = tmp_path / "ivf.faiss"
    faiss.write_index(ivf, str(path))

    said = {}
    for how in ("mapped", "read"):
        command = [sys.executable, "-c", MAPPED, str(path), how]
        said[how] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert int(said["mapped"][0]) < 6_000_000
    assert int(said["read"][0]) > 18_000_000
    assert said["mapped"][1:] == said["read"][1:]


def test_vectors_are_gathered_from_every_range(indexed: Run) -> None:
    """Any ascending rows of the catalogue, from none to all, come with their own vectors."""
    for rows in ([], [0], [6], [1, 2, 3, 5, 6], list(range(7))):
        assert np.array_equal(gather_vectors(indexed, IDS, np.array(rows, np.int32)), VECTORS[rows])


def test_item_vectors_must_be_the_catalogues(indexed: Run) -> None:
    """A range of other items, a catalogue that is longer, and a range that is not there are each an error."""
    longer = pa.concat_arrays([IDS, pa.array([107], pa.int64())])
    with pytest.raises(CorruptError, match=r"the catalogue has 8 items, but 7 have vectors"):
        gather_vectors(indexed, longer, np.arange(7))

    write_items(indexed, 1, pa.array([102, 999], pa.int64()), VECTORS[2:4])
    with pytest.raises(CorruptError, match=r"arrow: its items are not rows 2 to 3 of the catalogue; run `items` again"):
        gather_vectors(indexed, IDS, np.arange(7))

    indexed.layout.items(1, 3).with_name(indexed.layout.items(1, 3).name + ".done.json").unlink()
    with pytest.raises(StaleRunError, match="00001"):
        gather_vectors(indexed, IDS, np.arange(7))


def seen_of(items: list[list[int]], gaps: list[list[int]]) -> pa.RecordBatch:
    times = [[1] * len(one) for one in items]
    return pa.RecordBatch.from_arrays(
        [
            pa.array(range(len(items)), pa.int64()),
            pa.array(items, schemas.rows_of(pa.int32())),
            pa.array(times, schemas.rows_of(pa.int32())),
            pa.array(gaps, schemas.rows_of(pa.int64())),
        ],
        schema=schemas.seen(pa.int64()),
    )


@pytest.mark.parametrize(
    ("within", "rows", "counts"),
    [(None, [0, 2, 1], [2, 0, 1]), (50, [0, 1], [1, 0, 1]), (49, [1], [0, 0, 1]), (-1, [], [0, 0, 0])],
)
def test_seen_items_are_rows_of_the_index(within: int | None, rows: list[int], counts: list[int]) -> None:
    """Catalogue rows become index rows; what is not indexed, or was had too long ago, does not count."""
    seen = seen_of([[0, 1, 3], [], [2, 4]], [[50, 9, 60], [], [0, 0]])
    index_rows = np.array([0, NO_ITEM, 1, 2, NO_ITEM])

    found = seen_lists(seen, index_rows, within=within)

    assert found.rows.tolist() == rows
    assert found.counts.tolist() == counts


@pytest.mark.parametrize("item", [-1, 2])
def test_a_seen_item_out_of_the_catalogue_is_refused(item: int) -> None:
    """A row that no item has is an error that names the table, and never the last row."""
    with pytest.raises(InputError, match=rf"^prepare/seen, items.* {item}\b"):
        seen_lists(seen_of([[item]], [[0]]), np.array([0, 1]), within=None)
