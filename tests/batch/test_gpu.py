"""What a GPU computes beside what a CPU does. Skipped where none can be used."""

import os

import numpy as np
import pytest

from batch.bound import pinned
from batch.ivf import IndexOptions, train
from batch.profile import visible_gpus
from batch.session import Session, open_session
from tests.gpus import NEED_GPU

pytestmark = NEED_GPU
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def sessions(user_bundle) -> tuple[Session, Session]:
    """The same graph on a CPU and on a GPU; canary rows were replayed on both."""
    return open_session(user_bundle, rows=64), open_session(user_bundle, rows=64, device="gpu")


def test_a_gpu_computes_what_a_cpu_does(tiny, sessions):
    """To the tolerance of parity, for whole batches and padded ones; counts are equal."""
    for users in (64, 5, 64, 1):
        expected, found = (session.run(tiny.random_histories(users, seed=users)) for session in sessions)
        np.testing.assert_allclose(found["interests"], expected["interests"], **TOLERANCE)
        np.testing.assert_array_equal(found["count"], expected["count"])


def test_a_rows_bits_depend_on_that_row_only_on_a_gpu_too(tiny, sessions):
    """A row has the same bits among other neighbours, and when its batch is run again."""
    inputs, others = tiny.random_histories(64, seed=1), tiny.random_histories(64, seed=2)
    together = sessions[1].run(inputs)["interests"]
    mixed = {name: np.concatenate([array[:32], others[name][32:]]) for name, array in inputs.items()}
    np.testing.assert_array_equal(sessions[1].run(mixed)["interests"][:32], together[:32])
    np.testing.assert_array_equal(sessions[1].run(inputs)["interests"], together)


def test_memory_is_pinned_and_let_go(sessions):
    """An array for the GPU holds what is written to it, again and again."""
    for value in range(3):
        array = pinned((1024, 64), np.dtype(np.float32))
        array += value
        assert (array == value).all()
        del array


def test_the_gpus_that_are_seen_are_named():
    """There is one at least, by the names of the environment if it has some."""
    names = visible_gpus()
    assert names
    assert set(names) <= set(os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(names)).split(","))


def test_an_index_searched_on_a_gpu_finds_what_a_cpu_does():
    """The lists that FAISS copies to a GPU hold what they held: at least 99 % of the 20 nearest are the same."""
    faiss = pytest.importorskip("faiss")
    if not hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this FAISS is the CPU wheel")
    rng = np.random.default_rng(3)
    items, queries = (rng.standard_normal((rows, 32), dtype=np.float32) for rows in (5_000, 100))
    ivf = faiss.index_factory(32, "IVF32,Flat", faiss.METRIC_INNER_PRODUCT)
    ivf.train(items)
    ivf.add(items)
    ivf.nprobe = 8
    resources = faiss.StandardGpuResources()
    found = [index.search(queries, 20)[1] for index in (ivf, faiss.index_cpu_to_gpu(resources, 0, ivf))]
    same = [len(np.intersect1d(one, other)) for one, other in zip(*found, strict=True)]
    assert np.mean(same) >= 0.99 * 20


@pytest.mark.parametrize("kind", ["Flat", "SQ8", "PQ"])
@pytest.mark.parametrize("popular", [False, True])
def test_an_index_is_built_there_twice_to_the_same_bytes(kind, popular):
    """Every type comes back as it should be (:mod:`batch.copied` compares it), and a second one is equal."""
    faiss = pytest.importorskip("faiss")
    vectors = np.random.default_rng(4).standard_normal((12_000, 32), dtype=np.float32)
    scaling = np.full(32, 0.5, np.float32) if popular else None
    options = IndexOptions(type=kind, lists=64)
    one, other = (train(vectors, options, threads=2, device="gpu", scaling=scaling) for _ in range(2))
    assert one.ntotal == len(vectors)
    np.testing.assert_array_equal(faiss.serialize_index(one), faiss.serialize_index(other))
