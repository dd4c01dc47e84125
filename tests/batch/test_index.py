import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest

from artifacts import schemas
from artifacts.bundle import Bundle
from artifacts.documents import read_json
from artifacts.errors import CorruptError, InputError, StaleRunError, UsageError
from artifacts.run import Run
from artifacts.tables import read_table, writing_table
from batch import index as step
from batch.index import _encode_sample, build_index
from batch.indexed import on_device
from batch.interests import compute_interests
from batch.items import embed_items
from batch.ivf import IndexOptions, lists_for, train
from batch.recall import measure_recall, take_sample
from batch.retrieve import Index, search
from batch.session import open_session

WIDTH = 8


def clustered(items: int, *, seed: int = 0, width: int = WIDTH) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((40, width)) * 2
    return (centres[rng.integers(0, 40, items)] + rng.standard_normal((items, width)) * 0.5).astype(np.float32)


def index_of(vectors: np.ndarray, options: IndexOptions) -> Index:
    ivf = train(vectors, options, threads=1)
    return Index(ivf, np.arange(len(vectors), dtype=np.int32), vectors, 1, 1)


@pytest.fixture
def prepared(make_run: Callable[..., Run], tiny: ModuleType, item_bundle: Bundle) -> Run:
    """A run of 45 items (every seventh ineligible, one without signal) whose step items is done, with its sample."""
    run = make_run(users=30)
    catalogue = tiny.catalogue_of(45)
    signal = np.arange(45) != 11
    catalogue = catalogue.set_column(4, "signal", pa.array(signal))
    with writing_table(run.layout.catalogue, catalogue.schema, metadata={}, inputs="") as writer:
        writer.write(catalogue)
    user_ids, inputs = tiny.shard_users(30, 0)
    rows = tiny.history_rows(inputs, user_ids)
    with writing_table(run.layout.sample, rows.schema, metadata={}, inputs="") as writer:
        writer.write(rows)
    embed_items(run, item_bundle, [0], threads=1)
    return run


def rewrite_items(run: Run, change: Callable[[np.ndarray], None]) -> None:
    path = run.layout.items(0, run.item_shards)
    table = read_table(path)
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, WIDTH).copy()
    change(vectors)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=schemas.vector_of(WIDTH))
    with writing_table(path, schemas.items(pa.int64(), WIDTH), metadata={}, inputs="changed") as writer:
        writer.write(pa.table({"item_id": table["item_id"], "vector": lists}))


def test_the_index_holds_each_item_that_can_be_recommended(prepared: Run, user_bundle: Bundle) -> None:
    """Ineligible items and those without signal, NaN, Inf or zero vectors are left out, each counted once."""

    def spoil(vectors: np.ndarray) -> None:
        vectors[0] = np.nan  # ineligible as well: counted as that
        vectors[1, 3] = np.nan
        vectors[2, 0] = np.inf
        vectors[3] = 0

    rewrite_items(prepared, spoil)
    result = build_index(prepared, user_bundle, IndexOptions(), threads=1)

    left_out = {0, 7, 14, 21, 28, 35, 42, 11, 1, 2, 3}
    expected = [row for row in range(45) if row not in left_out]
    table = read_table(prepared.layout.index.items)
    assert table["item"].to_pylist() == expected
    assert table["item_id"].to_pylist() == [100 + row for row in expected]
    counts = {"ineligible": 7, "no_signal": 1, "nan_vectors": 2, "zero_vectors": 1, "indexed": 34}
    assert result.counts == counts
    assert read_json(prepared.layout.index.parameters)["counts"] == counts
    ivf = faiss.read_index(str(prepared.layout.index.ivf))
    assert ivf.ntotal == 34


def test_what_is_left_out_takes_no_second_copy(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """With every third vector left out, in parts of 1,000, the others move up, and one copy of all is ever held."""
    vectors = clustered(30_000)
    vectors[::3] = 0
    gathered = vectors.copy()
    monkeypatch.setattr(step, "_AT_ONCE", 1_000)
    monkeypatch.setattr(step, "gather_vectors", lambda *arguments, **more: gathered)
    catalogue = pa.table({"eligible": [True] * 30_000, "signal": [True] * 30_000})
    tracemalloc.start()
    rows, left, counts = step._select(make_run(), catalogue, pa.array(range(30_000)), more=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert rows.tolist() == [row for row in range(30_000) if row % 3]
    assert np.array_equal(left, vectors[rows])
    assert (counts["zero_vectors"], counts["indexed"]) == (10_000, 20_000)
    assert np.shares_memory(left, gathered)
    assert peak < vectors.nbytes // 2


def test_faiss_rows_are_the_rows_of_items(prepared: Run, user_bundle: Bundle) -> None:
    """FAISS id i is the vector of row i of items.arrow, bit for bit."""
    build_index(prepared, user_bundle, IndexOptions(), threads=1)

    ivf = faiss.read_index(str(prepared.layout.index.ivf))
    ivf.make_direct_map()
    rows = read_table(prepared.layout.index.items)["item"].to_numpy()
    vectors = read_table(prepared.layout.items(0, 1))["vector"].combine_chunks().flatten().to_numpy()
    assert np.array_equal(ivf.reconstruct_n(0, len(rows)), vectors.reshape(-1, WIDTH)[rows])


def test_the_sample_is_encoded_as_the_interests_are(prepared: Run, user_bundle: Bundle) -> None:
    """The vectors that choose nprobe are those of the same users in the interests table, bit for bit."""
    rows = read_table(prepared.layout.sample)
    with writing_table(prepared.layout.sample, rows.schema, metadata={}, inputs="") as writer:
        writer.write(rows.take(list(range(0, 30, 3))))  # other neighbours, other places in a batch
    compute_interests(prepared, user_bundle, [0], threads=1)

    session = open_session(user_bundle, rows=prepared.profile["batch_users"], threads=1)
    users = _encode_sample(prepared, session)

    table = read_table(prepared.layout.interests(0, 1)).take(list(range(0, 30, 3)))
    assert users.counts.tolist() == [len(vectors) for vectors in table["vectors"].to_pylist()]
    expected = table["vectors"].combine_chunks().flatten().flatten().to_numpy()
    assert np.array_equal(users.vectors.reshape(-1), expected)


def test_a_finished_index_is_skipped_and_a_changed_option_is_not(prepared: Run, user_bundle: Bundle) -> None:
    """A rerun does nothing and leaves every byte; other options, or other item vectors, build anew."""
    first = build_index(prepared, user_bundle, IndexOptions(), threads=1)
    written = prepared.layout.index.ivf.stat().st_mtime_ns

    again = build_index(prepared, user_bundle, IndexOptions(), threads=1)
    assert (first.skipped, again.skipped, again.rows) == (0, 1, 0)
    assert prepared.layout.index.ivf.stat().st_mtime_ns == written

    assert build_index(prepared, user_bundle, IndexOptions(recall_k=5), threads=1).skipped == 0
    rewrite_items(prepared, lambda vectors: np.negative(vectors, out=vectors))
    assert build_index(prepared, user_bundle, IndexOptions(recall_k=5), threads=1).skipped == 0


def test_the_same_items_give_the_same_bytes(prepared: Run, user_bundle: Bundle) -> None:
    """Built twice, all files of the index have the same bytes."""
    paths = [prepared.layout.index.ivf, prepared.layout.index.items, prepared.layout.index.parameters]
    contents = []
    for _ in range(2):
        for path in paths:
            path.unlink(missing_ok=True)
        assert build_index(prepared, user_bundle, IndexOptions(), threads=1).skipped == 0
        contents.append([path.read_bytes() for path in paths])

    assert contents[0] == contents[1]
    text = json.dumps(read_json(prepared.layout.index.parameters))
    assert str(prepared.folder) not in text


SCRIPT = """
import hashlib, sys
import faiss, numpy as np
from batch.index import IndexOptions, train
rng = np.random.default_rng(1)
vectors = rng.standard_normal((11000, 8), dtype=np.float32)
for kind in ("Flat", "SQ8", "PQ"):
    index = train(vectors, IndexOptions(type=kind, lists=16), threads=1)
    print(hashlib.sha256(faiss.serialize_index(index).tobytes()).hexdigest())
"""


def test_training_gives_the_same_bytes_in_another_process() -> None:
    """k-means, codes and lists have the same bytes in two processes with other hash seeds and thread defaults."""
    found = []
    for seed, threads in (("1", "1"), ("2", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment
        )
        found.append(run.stdout.split())
    assert len(set(found[0])) == 3
    assert found[0] == found[1]


def test_the_number_of_lists_follows_the_items() -> None:
    """One list below a few thousand items, never fewer than 39 items a list, and more than that is refused."""
    assert [lists_for(items) for items in (1, 38, 1682, 4095)] == [1, 1, 1, 1]
    for items in (4096, 10_000, 200_000, 5_000_000):
        lists = lists_for(items)
        assert 1 < lists <= items // 39
    assert lists_for(200_000) == 1788
    assert lists_for(390, 10) == 10
    with pytest.raises(UsageError, match=r"lists = 11: 390 items allow at most 10"):
        lists_for(390, 11)
    with pytest.raises(UsageError, match=r"lists = 2: 20 items allow at most 1"):
        lists_for(20, 2)


def test_product_quantisation_refuses_few_items() -> None:
    """PQ asks for as many items as its codes need, naming both numbers."""
    with pytest.raises(UsageError, match=r"needs 9984 items, found 500"):
        train(clustered(500), IndexOptions(type="PQ"), threads=1)


def test_recall_agrees_with_a_slow_count() -> None:
    """Recall is the mean over users of the share of each interest's exact best that the search finds."""
    items, vectors, counts = clustered(900), clustered(24, seed=2), np.array([1, 3, 2] * 4)
    index = index_of(items, IndexOptions(lists=12))
    found, _ = search(index, vectors, k=7, nprobe=2)

    shares = []
    for query, rows in zip(vectors, found, strict=True):
        best = np.argsort(-(items.astype(np.float64) @ query), kind="stable")[:7]
        shares.append(len(set(best.tolist()) & set(rows.tolist())) / 7)
    own = [np.mean(part) for part in np.split(np.array(shares), np.cumsum(counts)[:-1])]

    recall = measure_recall(index, take_sample(items, vectors, counts, k=7), nprobe=2)
    assert recall.mean == pytest.approx(np.mean(own))
    off = 1.96 * np.std(own, ddof=1) / 12**0.5
    assert (recall.low, recall.high) == pytest.approx((np.mean(own) - off, min(np.mean(own) + off, 1)), abs=1e-4)
    assert measure_recall(index, take_sample(items, vectors, counts, k=7), nprobe=12).mean == 1


def test_items_with_equal_vectors_stand_for_each_other() -> None:
    """Where many items tie at the k-th place, any of them counts as found."""
    items = np.repeat(clustered(30), 20, axis=0)
    index = index_of(items, IndexOptions(lists=1))
    sample = take_sample(items, clustered(10, seed=4), np.ones(10, np.int64), k=5)

    assert measure_recall(index, sample, nprobe=1).mean == 1


@pytest.mark.parametrize(("k", "rows"), [(1, 5000), (20, 5000), (120, 5000), (120, 50)])
def test_exact_search_finds_the_kth_best(k: int, rows: int) -> None:
    """It is that of a full sort in double precision, for few and many neighbours, and fewer items than asked for."""
    items, queries = clustered(rows), clustered(70, seed=4)

    sample = take_sample(items, queries, np.ones(70, np.int64), k=k)

    expected = np.sort(queries.astype(np.float64) @ items.T.astype(np.float64), axis=1)[:, -min(k, rows)]
    np.testing.assert_allclose(sample.least, expected, rtol=1e-5, atol=1e-6)
    assert sample.k == min(k, rows)


def test_a_gpu_searches_exactly_and_holds_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CPU in a GPU's place: all items are searched there, and it is a copy of the lists that is searched."""
    items, queries = clustered(500), clustered(30, seed=4)
    moved: list[Any] = []

    def move(resources: str, device: int, index: Any) -> Any:
        moved.append(type(index).__name__)
        return faiss.clone_index(index)

    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "resources", raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", move, raising=False)
    samples = [take_sample(items, queries, np.ones(30, np.int64), k=9, device=device) for device in ("cpu", "gpu")]

    assert moved == ["IndexFlatIP"]
    np.testing.assert_array_equal(samples[0].least, samples[1].least)
    ivf = train(items, IndexOptions(lists=8), threads=1)
    assert on_device(ivf, "cpu") is ivf
    assert on_device(ivf, "gpu") is not ivf
    assert moved == ["IndexFlatIP", "IndexIVFFlat"]


def test_a_repeated_item_id_is_named(prepared: Run, user_bundle: Bundle, tiny: ModuleType) -> None:
    """A catalogue with one id twice is an error that names the row and the id."""
    catalogue = tiny.catalogue_of(45)
    ids = catalogue["item_id"].to_numpy().copy()
    ids[20] = ids[19]
    catalogue = catalogue.set_column(0, "item_id", pa.array(ids))
    with writing_table(prepared.layout.catalogue, catalogue.schema, metadata={}, inputs="") as writer:
        writer.write(catalogue)

    with pytest.raises(InputError, match=r"row 20: item_id 119 comes twice"):
        build_index(prepared, user_bundle, IndexOptions(), threads=1)


def test_nothing_to_index_is_an_error(prepared: Run, user_bundle: Bundle) -> None:
    """A catalogue whose vectors are all zero gives no empty index but an error with the counts."""
    rewrite_items(prepared, lambda vectors: vectors.fill(0))

    with pytest.raises(InputError, match=r"none of the 45 items can be indexed .*37 zero vectors"):
        build_index(prepared, user_bundle, IndexOptions(), threads=1)
    assert not prepared.layout.index.ivf.exists()


@pytest.mark.parametrize("name", ["catalogue", "sample"])
def test_a_changed_byte_is_found_before_use(prepared: Run, user_bundle: Bundle, name: str) -> None:
    """A flipped bit in what the step reads is an error naming the file."""
    path: Path = getattr(prepared.layout, name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(CorruptError, match=path.name):
        build_index(prepared, user_bundle, IndexOptions(), threads=1)


def test_an_index_that_reads_back_otherwise_is_not_finished(
    prepared: Run, user_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file answers otherwise than the index in memory, the step fails, and nothing counts as finished."""
    other = train(clustered(37), IndexOptions(), threads=1)
    monkeypatch.setattr("batch.index.read_ivf", lambda path: other)

    with pytest.raises(CorruptError, match=r"ivf\.faiss: read back, it answers otherwise"):
        build_index(prepared, user_bundle, IndexOptions(), threads=1)
    assert not list(prepared.layout.index.folder.glob("*.done.json"))


def test_wrong_options_are_refused(prepared: Run, user_bundle: Bundle) -> None:
    """An unknown type, a target outside 0 to 1 and a type other than the profile's are refused before any reading."""
    for options, error, message in (
        (IndexOptions(type="HNSW"), UsageError, "expected one of Flat, SQ8, PQ, auto, found 'HNSW'"),
        (IndexOptions(recall_target=1.5), UsageError, r"recall_target: .* found 1\.5"),
        (IndexOptions(recall_k=0), UsageError, "recall_k: .* found 0"),
        (IndexOptions(type="SQ8"), StaleRunError, "type Flat, asked for SQ8"),
    ):
        with pytest.raises(error, match=message):
            build_index(prepared, user_bundle, options, threads=1)
    with pytest.raises(StaleRunError, match="bundle"):
        build_index(prepared, replace(user_bundle, bundle_id="other"), IndexOptions(), threads=1)
