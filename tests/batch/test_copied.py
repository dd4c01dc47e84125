"""An index that comes back from a GPU, stood in for by the CPU: the right one is taken, and each wrong one is named."""

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import pytest

from artifacts.errors import DeviceError
from batch.copied import require_copied
from batch.ivf import IndexOptions, train

ITEMS, WIDTH, LISTS = 12_000, 8, 24


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(5)
    return (rng.standard_normal((ITEMS, WIDTH)) * rng.uniform(0.5, 2, (ITEMS, 1))).astype(np.float32)


def built(vectors: np.ndarray, kind: str = "Flat", **more: Any) -> Any:
    return train(vectors, IndexOptions(type=kind, lists=LISTS), threads=1, **more)


@pytest.mark.parametrize("kind", ["Flat", "SQ8", "PQ"])
def test_an_index_that_is_what_it_should_be_is_taken(vectors: np.ndarray, kind: str) -> None:
    """Whatever is stored of a vector, and whether or not codes are the very same."""
    ivf = built(vectors, kind)
    require_copied(ivf, ivf, vectors)


def codes_of(ivf: Any, number: int) -> np.ndarray:
    """The codes of a list, which may be changed."""
    size = ivf.invlists.list_size(number)
    return faiss.rev_swig_ptr(ivf.invlists.get_codes(number), size * ivf.code_size).reshape(size, -1)


def ids_of(ivf: Any, number: int) -> np.ndarray:
    return faiss.rev_swig_ptr(ivf.invlists.get_ids(number), ivf.invlists.list_size(number))


def change_a_bit(ivf: Any, vectors: np.ndarray) -> None:
    codes_of(ivf, 3)[5, 2] ^= 1


def swap_two_vectors(ivf: Any, vectors: np.ndarray) -> None:
    codes_of(ivf, 3)[[5, 6]] = codes_of(ivf, 3)[[6, 5]]


def repeat_a_row(ivf: Any, vectors: np.ndarray) -> None:
    ids_of(ivf, 3)[5] = ids_of(ivf, 3)[6]


def repeat_a_row_of_another_list(ivf: Any, vectors: np.ndarray) -> None:
    ids_of(ivf, 4)[0] = ids_of(ivf, 3)[0]


def number_a_row_past_the_last(ivf: Any, vectors: np.ndarray) -> None:
    ids_of(ivf, 3)[5] = ITEMS


def number_a_row_before_the_first(ivf: Any, vectors: np.ndarray) -> None:
    ids_of(ivf, 3)[5] = -1


def lose_a_row(ivf: Any, vectors: np.ndarray) -> None:
    ivf.remove_ids(faiss.IDSelectorBatch(np.array([7_000])))


def put_rows_into_other_lists(ivf: Any, vectors: np.ndarray) -> None:
    others = (ivf.quantizer.search(vectors, 1)[1][:, 0] + 1) % LISTS
    ivf.reset()
    ivf.add_core(ITEMS, faiss.swig_ptr(vectors), None, faiss.swig_ptr(others))


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (change_a_bit, "Flat", "what it stores of row [0-9]+ is another vector"),
        (swap_two_vectors, "Flat", "what it stores of row [0-9]+ is another vector"),
        (swap_two_vectors, "SQ8", "what it stores of row [0-9]+ is another vector"),
        (swap_two_vectors, "PQ", "what it stores of row [0-9]+ is another vector"),
        (repeat_a_row, "Flat", "a row of list 3 comes twice"),
        (repeat_a_row_of_another_list, "Flat", "a row of list 4 comes twice"),
        (number_a_row_past_the_last, "Flat", "list 3 has a row that is none"),
        (number_a_row_before_the_first, "Flat", "list 3 has a row that is none"),
        (lose_a_row, "Flat", "row 7000 is missing"),
        (put_rows_into_other_lists, "Flat", "row 0 is not in the list with the nearest centroid"),
    ],
)
def test_an_index_that_is_not_is_refused(
    vectors: np.ndarray, spoil: Callable[[Any, np.ndarray], None], kind: str, said: str
) -> None:
    """A lost, repeated or misplaced row and a changed code each end the night, and the message says which."""
    ivf = built(vectors, kind)
    spoil(ivf, vectors)

    with pytest.raises(DeviceError, match=f'the index that the GPU gave back .* built: {said}; take .* "cpu"'):
        require_copied(built(vectors, kind), ivf, vectors)


def test_other_answers_are_refused(vectors: np.ndarray) -> None:
    """A GPU that searches something else than what it gave back is not believed."""
    other = built(vectors[::-1] * np.float32(1.5))
    with pytest.raises(DeviceError, match="asked for the neighbours of row 0, it gives other scores"):
        require_copied(other, built(vectors), vectors)


@pytest.mark.parametrize("kind", ["Flat", "SQ8", "PQ"])
def test_an_index_of_a_gpu_is_trained_by_our_seed_and_compared(
    vectors: np.ndarray, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the CPU in a GPU's place the bytes are the CPU's; an index that is spoilt on its way back is refused."""
    moved = []

    def move(resources: str, device: int, index: Any) -> Any:
        moved.append((resources, device, type(index).__name__, index.ntotal))
        clone = faiss.clone_index(index)
        if isinstance(clone, faiss.IndexIVF):
            clone.cp = faiss.ClusteringParameters()  # which a real one forgets
        return clone

    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "resources", raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", move, raising=False)
    monkeypatch.setattr(faiss, "index_gpu_to_cpu", faiss.clone_index, raising=False)
    expected = faiss.serialize_index(built(vectors, kind))

    assert np.array_equal(faiss.serialize_index(built(vectors, kind, device="gpu")), expected)
    assert [one[2] for one in moved] == ["IndexFlatIP", type(built(vectors, kind)).__name__]
    assert moved[1][:2] == ("resources", 0)
    assert moved[1][3] == 0

    def spoilt(index: Any) -> Any:
        clone = faiss.clone_index(index)
        lose_a_row(clone, vectors)
        return clone

    monkeypatch.setattr(faiss, "index_gpu_to_cpu", spoilt, raising=False)
    with pytest.raises(DeviceError, match="row 7000 is missing"):
        built(vectors, kind, device="gpu")


def test_a_gpu_without_room_is_told_in_a_line(vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS's own words become what to change; any other mishap stays what it is."""
    said = "alloc fail type FlatData dev 0 space Device size 9 bytes (cudaMalloc error out of memory [2])"
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "resources", raising=False)

    def fail(resources: str, device: int, index: Any) -> Any:
        raise RuntimeError(said)

    monkeypatch.setattr(faiss, "index_cpu_to_gpu", fail, raising=False)
    with pytest.raises(DeviceError, match=r"does not hold the index; take \[index\] type = .SQ8. or .PQ., or fewer"):
        built(vectors, device="gpu")

    said = "Invalid GPU device 0"
    with pytest.raises(RuntimeError, match="Invalid GPU device"):
        built(vectors, device="gpu")
