"""An index filled part by part on disk: the bytes of one that was filled in memory, and nothing left behind."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from batch import ondisk
from batch.ivf import IndexOptions, train

ITEMS, WIDTH = 12_000, 8


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(5)
    return (rng.standard_normal((ITEMS, WIDTH)) * rng.uniform(0.5, 2, (ITEMS, 1))).astype(np.float32)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("kind", "memory"), [("Flat", 200_000), ("Flat", 479_999), ("SQ8", 50_000), ("PQ", 9_999)])
def test_parts_on_disk_give_the_bytes_of_one_piece(
    vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, memory: int, scaled: bool
) -> None:
    """In 2 to 13 parts, some of them short, by cosine and by Euclidean distance: not a byte differs."""
    monkeypatch.setattr(ondisk, "LEAST_OF_PART", 1)
    scaling = np.linspace(0.5, 2, WIDTH) if scaled else None
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "of a night that was killed").write_bytes(b"half")
    options = IndexOptions(type=kind, lists=24)
    expected = faiss.serialize_index(train(vectors, options, threads=1, scaling=scaling))

    limited = IndexOptions(type=kind, lists=24, memory=memory)
    ivf = train(vectors, limited, threads=1, scaling=scaling, folder=folder)

    assert np.array_equal(faiss.serialize_index(ivf), expected)
    assert not folder.exists()


def test_lists_of_which_most_are_empty_have_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS writes such lengths in pairs; 40 items of two kinds fill two of ten lists."""
    monkeypatch.setattr(ondisk, "LEAST_OF_PART", 1)
    centroids = np.eye(10, 10, dtype=np.float32)
    quantizer = faiss.IndexFlatIP(10)
    quantizer.add(centroids)
    ivf = faiss.IndexIVFFlat(quantizer, 10, 10, faiss.METRIC_INNER_PRODUCT)
    vectors = centroids[np.arange(40) % 2 * 7] * np.arange(1, 41, dtype=np.float32)[:, None]

    own = ivf.quantizer.search(vectors, 1)[1][:, 0]
    found = ondisk.filled_on_disk(ivf, vectors, own, memory=48 * 7, folder=tmp_path / "parts")

    ivf.add(vectors)
    assert np.array_equal(faiss.serialize_index(found), faiss.serialize_index(ivf))
    assert found.invlists.list_size(7) == 20


def test_what_fits_is_filled_in_memory(vectors: np.ndarray, tmp_path: Path) -> None:
    """12,000 items of 40 bytes, 24 lists of 32: a limit of so much asks for no disk."""
    train(vectors, IndexOptions(lists=24, memory=480_768), threads=1, folder=tmp_path / "no folder" / "parts")
    assert not (tmp_path / "no folder").exists()


def test_a_short_part_puts_no_row_into_another_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors that lie between lists to the last bit go where all of them together go, though ten stand alone."""
    monkeypatch.setattr(ondisk, "LEAST_OF_PART", 330)
    rng = np.random.default_rng(1)
    first = rng.standard_normal(32).astype(np.float32)
    centroids = np.stack([rng.permutation(first) for _ in range(8)])
    vectors = np.tile(np.float32(0.3), (1_000, 32))
    quantizer = faiss.IndexFlatIP(32)
    quantizer.add(centroids)
    whole = faiss.IndexIVFFlat(quantizer, 32, 8, faiss.METRIC_INNER_PRODUCT)
    parts = faiss.clone_index(whole)
    whole.add(vectors)

    own = parts.quantizer.search(vectors, 1)[1][:, 0]
    found = ondisk.filled_on_disk(parts, vectors, own, memory=1, folder=tmp_path / "parts")

    assert np.array_equal(faiss.serialize_index(found), faiss.serialize_index(whole))
