"""Recent popularity in retrieval: what the index holds, what it is searched with, and what comes out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from artifacts import schemas
from artifacts.bundle import Bundle
from artifacts.documents import read_json
from artifacts.errors import CorruptError, UsageError
from artifacts.run import Run, replay_of
from artifacts.tables import read_table, writing_table
from batch.index import build_index
from batch.indexed import appended, open_index
from batch.interests import compute_interests
from batch.items import embed_items
from batch.ivf import IndexOptions, popularity_scale, train
from batch.lists import ScoreOptions
from batch.nprobe import tune
from batch.retrieve import Index
from batch.score import score

ITEMS, USERS, WEIGHT = 45, 40, 1.5
EVENTS = np.random.default_rng(3).integers(0, 60, ITEMS) * (np.arange(ITEMS) % 3 > 0)
OPTIONS = ScoreOptions(candidates=12, top_n=12)
Prepared = Callable[..., Run]


def write_popular(path: Path, events: np.ndarray) -> None:
    order = np.lexsort((np.arange(len(events)), -events))[: np.count_nonzero(events)]
    schema = schemas.popular(pa.int64())
    columns = [pa.array(100 + order), pa.array(order, pa.int32()), pa.array(events[order])]
    with writing_table(path, schema, metadata={}, inputs="") as writer:
        writer.write(pa.table(columns, schema=schema))


@pytest.fixture
def prepared(make_run: Callable[..., Run], tiny: ModuleType, item_bundle: Bundle, user_bundle: Bundle) -> Prepared:
    """Make a run without a ranker, whose steps items and interests are done; each user has had two items."""

    def make(*, name: str = "run", chosen: slice = slice(None), kind: str = "Flat") -> Run:
        run = make_run(users=USERS, items=ITEMS, name=name, index_type=kind)
        user_ids, inputs = tiny.shard_users(USERS, 0)
        user_ids, inputs = user_ids[chosen], {key: values[chosen] for key, values in inputs.items()}
        rows = tiny.history_rows(inputs, user_ids)
        had = [[int(user) % 30, int(user) % 30 + 2] for user in user_ids]
        lists = [pa.array(had, schemas.rows_of(pa.int32())), pa.array([[1, 1]] * len(had), schemas.rows_of(pa.int32()))]
        gaps = pa.array([[60, 60]] * len(had), schemas.rows_of(pa.int64()))
        seen = pa.RecordBatch.from_arrays([pa.array(user_ids), *lists, gaps], schema=schemas.seen(pa.int64()))
        places = {run.layout.histories(0, 1): rows, run.layout.sample: rows, run.layout.seen(0, 1): seen}
        for path, batch in places.items():
            with writing_table(path, batch.schema, metadata={}, inputs="") as writer:
                writer.write(batch)
        write_popular(run.layout.popular, EVENTS)
        embed_items(run, item_bundle, [0], threads=1)
        compute_interests(run, user_bundle, [0], threads=1)
        return run

    return make


def listed(run: Run, user_bundle: Bundle, options: IndexOptions) -> pa.Table:
    build_index(run, user_bundle, options, threads=1)
    score(run, None, [0], OPTIONS, threads=1)
    return read_table(run.layout.scores(0, 1))


def worked_out(run: Run, weight: float) -> dict[int, list[tuple[int, float]]]:
    """Each user's candidates by exact search in float64: item ids and scores."""
    vectors = np.array(read_table(run.layout.items(0, 1))["vector"].to_pylist())
    indexed = [row for row in range(ITEMS) if row % 7]
    seen = read_table(run.layout.seen(0, 1))["items"].to_pylist()
    found = {}
    for row, had in zip(read_table(run.layout.interests(0, 1)).to_pylist(), seen, strict=True):
        if row["vectors"]:
            scores = (np.array(row["vectors"]) @ vectors.T).max(axis=0) + weight * np.log1p(EVENTS)
            free = sorted((item for item in indexed if item not in had), key=lambda item: (-scores[item], item))
            found[row["user_id"]] = [(100 + item, pytest.approx(scores[item], abs=1e-4)) for item in free[:12]]
    return found


def ranked(table: pa.Table) -> dict[int, list[tuple[int, float]]]:
    rows: dict[int, list[tuple[int, float]]] = {}
    for row in table.filter(pc.equal(table["source"], schemas.SOURCE_RANKED)).to_pylist():
        rows.setdefault(row["user_id"], []).append((row["item_id"], row["retrieval_score"]))
    return rows


def test_scores_are_the_inner_product_and_the_weighted_logarithm(prepared: Prepared, user_bundle: Bundle) -> None:
    """Items and scores of each user are those of exact search by the formula, and other than without popularity."""
    run = prepared()

    found = ranked(listed(run, user_bundle, IndexOptions(popularity_weight=WEIGHT)))

    assert len(found) > 30
    assert found == worked_out(run, WEIGHT)
    plain = worked_out(run, 0)
    assert sum([item for item, _ in found[user]] != [item for item, _ in plain[user]] for user in found) > 20


def test_scores_are_exact_whatever_the_index_stores(prepared: Prepared, user_bundle: Bundle) -> None:
    """With a byte a number some candidates change, but each one's score is that of its interest by the formula."""
    run = prepared(kind="SQ8")

    table = listed(run, user_bundle, IndexOptions(type="SQ8", popularity_weight=WEIGHT))

    vectors = np.array(read_table(run.layout.items(0, 1))["vector"].to_pylist())
    interests = {row["user_id"]: row["vectors"] for row in read_table(run.layout.interests(0, 1)).to_pylist()}
    rows = table.filter(pc.equal(table["source"], schemas.SOURCE_RANKED)).to_pylist()
    assert len(rows) > 300
    for row in rows:
        item = row["item_id"] - 100
        expected = np.dot(interests[row["user_id"]][row["interest"]], vectors[item]) + WEIGHT * np.log1p(EVENTS[item])
        assert row["retrieval_score"] == pytest.approx(expected, abs=1e-4)


def test_the_weight_0_is_the_index_of_the_vectors(prepared: Prepared, user_bundle: Bundle) -> None:
    """Nothing is appended and nothing said of it; what was popular, or that nothing was, changes no byte."""
    run, other = prepared(), prepared(name="other")
    write_popular(other.layout.popular, EVENTS[::-1].copy())
    for one in (run, other):
        build_index(one, user_bundle, IndexOptions(popularity_weight=0), threads=1)

    said = read_json(run.layout.index.parameters)
    assert (said["width"], "append" in said) == (8, False)
    for name in ("ivf", "items", "parameters"):
        assert getattr(run.layout.index, name).read_bytes() == getattr(other.layout.index, name).read_bytes()


def test_the_index_holds_vector_logarithm_and_zeros(prepared: Prepared, user_bundle: Bundle) -> None:
    """FAISS has 8 numbers of the model, log(1 + events) and zeros; index.json has what a reader appends."""
    run = prepared()
    build_index(run, user_bundle, IndexOptions(popularity_weight=WEIGHT), threads=1)

    said = read_json(run.layout.index.parameters)
    assert (said["width"], said["append"]) == (12, [WEIGHT, 0, 0, 0])
    ivf = faiss.read_index(str(run.layout.index.ivf))
    ivf.make_direct_map()
    stored = ivf.reconstruct_n(0, ivf.ntotal)
    rows = read_table(run.layout.index.items)["item"].to_numpy()
    vectors = read_table(run.layout.items(0, 1))["vector"].combine_chunks().flatten().to_numpy().reshape(-1, 8)
    assert np.array_equal(stored[:, :8], vectors[rows])
    np.testing.assert_allclose(stored[:, 8], np.log1p(EVENTS[rows]), rtol=1e-6)
    assert not stored[:, 9:].any()


@pytest.mark.parametrize(
    ("width", "weight", "append"),
    [(8, 1.5, [1.5, 0, 0, 0]), (10, 2, [2, 0]), (11, 2, [2]), (64, 0.25, [0.25, 0, 0, 0]), (64, 0, []), (3, 0, [])],
)
def test_queries_fill_whole_codes(width: int, weight: float, append: list[float]) -> None:
    """The weight comes first, and zeros up to a multiple of what PQ puts into a code; for 0 nothing at all."""
    assert appended(width, weight).tolist() == append


def test_a_user_gets_the_same_in_other_company(prepared: Prepared, user_bundle: Bundle) -> None:
    """With half the users gone, the others' rows are the same to the bit."""
    together, half = prepared(name="all"), prepared(name="half", chosen=slice(1, None, 2))
    lists = [listed(run, user_bundle, IndexOptions(popularity_weight=WEIGHT)) for run in (together, half)]

    assert 0 < lists[1].num_rows < lists[0].num_rows
    of_half = pc.is_in(lists[0]["user_id"], value_set=pc.unique(lists[1]["user_id"]))
    assert lists[0].filter(of_half).equals(lists[1])


def test_a_popular_item_without_a_vector_of_use_is_left_out(prepared: Prepared, user_bundle: Bundle) -> None:
    """That everybody bought it does not make the zero vector one that can be searched."""
    run = prepared()
    path = run.layout.items(0, 1)
    table = read_table(path)
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, 8).copy()
    vectors[[1, 2]] = [[0], [np.nan]]
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=schemas.vector_of(8))
    with writing_table(path, schemas.items(pa.int64(), 8), metadata={}, inputs="changed") as writer:
        writer.write(pa.table({"item_id": table["item_id"], "vector": lists}))

    counts = build_index(run, user_bundle, IndexOptions(popularity_weight=WEIGHT), threads=1).counts

    assert EVENTS[[1, 2]].all()
    assert (counts["zero_vectors"], counts["nan_vectors"]) == (1, 1)
    assert not {1, 2} & set(read_table(run.layout.index.items)["item"].to_pylist())


def test_a_replay_is_searched_with_what_was_popular_then(prepared: Prepared, user_bundle: Bundle) -> None:
    """The replay's users stand a day before: the day's own events would tell them what is to come."""
    run = prepared()
    build_index(run, user_bundle, IndexOptions(popularity_weight=WEIGHT), threads=1)
    before = EVENTS // 2
    write_popular(replay_of(run).layout.popular, before)
    ids = read_table(run.layout.catalogue)["item_id"].combine_chunks()

    tonight, then = open_index(run, ids, device="cpu"), open_index(replay_of(run), ids, device="cpu")

    for index, events in ((tonight, EVENTS), (then, before)):
        np.testing.assert_allclose(index.vectors[:, 8], np.log1p(events[index.items]), rtol=1e-6)
        index.ivf.make_direct_map()
        assert np.array_equal(index.ivf.reconstruct_n(0, len(index.items)), index.vectors)
    assert then.nprobe == tonight.nprobe


def test_another_weight_or_popularity_is_another_index(prepared: Prepared, user_bundle: Bundle) -> None:
    """A finished index is built anew, and the lists too, where the weight or the events have changed."""
    run = prepared()
    options = IndexOptions(popularity_weight=WEIGHT)
    first = listed(run, user_bundle, options)
    assert build_index(run, user_bundle, options, threads=1).skipped == 1

    assert not listed(run, user_bundle, replace(options, popularity_weight=WEIGHT / 2)).equals(first)
    assert build_index(run, user_bundle, options, threads=1).skipped == 0
    write_popular(run.layout.popular, EVENTS[::-1].copy())
    assert build_index(run, user_bundle, options, threads=1).skipped == 0


def test_a_changed_byte_of_the_parameters_is_found_before_a_search(prepared: Prepared, user_bundle: Bundle) -> None:
    """What a query is completed by is verified as the index is."""
    run = prepared()
    build_index(run, user_bundle, IndexOptions(popularity_weight=WEIGHT), threads=1)
    path = run.layout.index.parameters
    path.write_bytes(path.read_bytes().replace(b"1.5", b"1.7"))

    with pytest.raises(CorruptError, match=r"index\.json"):
        score(run, None, [0], OPTIONS, threads=1)


@pytest.mark.parametrize("weight", [-0.5, float("nan"), 1001])
def test_a_weight_that_cannot_be_is_refused(prepared: Prepared, user_bundle: Bundle, weight: float) -> None:
    """The message names the key, its bounds and what was found."""
    with pytest.raises(UsageError, match=rf"popularity_weight: expected 0 to 1000, found {weight}"):
        build_index(prepared(), user_bundle, IndexOptions(popularity_weight=weight), threads=1)


@pytest.mark.parametrize(
    ("length", "weight", "scale"), [(5, 1.5, 1), (20, 1.5, 0.25), (20, 3, 0.5), (0.1, 1, 32), (None, 1.5, 4), (5, 0, 0)]
)
def test_popularity_is_scaled_to_what_it_is_worth(length: float | None, weight: float, scale: float) -> None:
    """3 times the weight over the interests' length, as the nearest power of two; without interests of length 1."""
    interests = np.zeros((0 if length is None else 4, 8), np.float32)
    interests[:, 2] = length
    assert popularity_scale(interests, weight) == scale


@pytest.fixture(scope="module")
def sold() -> tuple[np.ndarray, np.ndarray]:
    """Vectors of length 1 in 60 groups, with the popularity of a shop behind them, and queries of length 8."""
    rng = np.random.default_rng(4)
    centres = rng.standard_normal((60, 16))
    vectors, queries = (centres[rng.integers(0, 60, n)] + 0.4 * rng.standard_normal((n, 16)) for n in (10_500, 200))
    events = 20_000 // (1 + rng.permutation(len(vectors)))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries *= 8 / np.linalg.norm(queries, axis=1, keepdims=True)
    items = np.c_[vectors, np.log1p(events), np.zeros((len(vectors), 3))]
    asked = np.c_[queries, np.tile([1, 0, 0, 0], (len(queries), 1))]
    return items.astype(np.float32, order="C"), asked.astype(np.float32, order="C")


@pytest.mark.parametrize("kind", ["Flat", "SQ8", "PQ"])
def test_an_item_is_in_the_list_whose_centroid_is_nearest(sold: tuple[np.ndarray, np.ndarray], kind: str) -> None:
    """By Euclidean distance with the popularity scaled; what is stored of it is near the vector itself."""
    vectors, scaling = sold[0], np.r_[np.ones(16), 0.5, np.ones(3)]
    ivf = train(vectors, IndexOptions(type=kind, lists=20), threads=1, scaling=scaling)

    centroids = ivf.quantizer.reconstruct_n(0, 20)
    own = (((vectors[:, None] - centroids) * scaling) ** 2).sum(axis=2).argmin(axis=1)
    ivf.make_direct_map()
    assert [ivf.direct_map.get(row) >> 32 for row in range(len(own))] == own.tolist()
    stored = ivf.reconstruct_n(0, len(vectors))
    off = {"Flat": 0, "SQ8": 0.02, "PQ": 0.3}[kind]
    assert np.sqrt(np.square(stored - vectors).sum(axis=1).mean()) <= off
    for number in range(20):  # k-means ends with the means of the round before
        np.testing.assert_allclose(centroids[number], vectors[own == number].mean(axis=0), atol=0.5)


def test_lists_by_what_popularity_is_worth_save_most_of_a_search(sold: tuple[np.ndarray, np.ndarray]) -> None:
    """For the same recall a search looks at a fifth, at most, of the items that lists by cosine need."""
    vectors, queries = sold
    options = IndexOptions(recall_k=50)
    scale = popularity_scale(queries[:, :16], 1.0)
    looked = []
    for scaling in (None, np.r_[np.ones(16), scale, np.ones(3)]):
        ivf = train(vectors, options, threads=1, scaling=scaling)
        index = Index(ivf, np.arange(len(vectors), dtype=np.int32), vectors, 1, 1)
        nprobe = tune(index, queries, np.ones(len(queries), int), options)["nprobe"]
        sizes = np.array([ivf.invlists.list_size(number) for number in range(ivf.nlist)])
        looked.append(sizes[ivf.quantizer.search(queries, nprobe)[1]].sum())
    assert looked[1] < looked[0] / 5
