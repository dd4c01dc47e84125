"""An index on a GPU: what its memory does not hold, and what comes back beside the vectors that it should hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np

from artifacts.errors import DeviceError

_ASKED = 1024  # vectors whose list, and whose neighbours, are looked up
_NEIGHBOURS, _LISTS = 10, 8
_OFF = 1e-3  # of the lengths of two vectors: how far products of them are off at the most, in other orders of a sum
_WORSE = 1.01  # how much farther from its vector a code may be than one that is made here


@contextmanager
def held_by_gpu() -> Iterator[None]:
    """Tell it in a line if FAISS finds no room on the GPU until the block ends.

    Raises:
        DeviceError: If so.
    """
    try:
        yield
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        raise DeviceError(
            'the GPU\'s memory does not hold the index; take [index] type = "SQ8" or "PQ", or fewer [night] workers'
        ) from error


def require_copied(built: Any, copied: Any, vectors: np.ndarray) -> None:
    """Compare an index, as it was *built* on a GPU and *copied* to the CPU, with what it should be.

    Every row is in one list, once, and its code is as near to its vector as one made here: the vector itself in a
    ``Flat`` index. Of some rows, it is the list with the nearest centroid; and both indexes give the same answers.

    Args:
        built: Searched with some of *vectors*.
        copied: An ``IndexIVF``; all of its lists are read.
        vectors: float32 [n, d], of which row i has the id i.

    Raises:
        DeviceError: If it is anything else; the message says what, and of which row.
    """
    own = np.full(len(vectors), -1)
    for number in range(copied.nlist):
        if size := copied.invlists.list_size(number):
            ids = faiss.rev_swig_ptr(copied.invlists.get_ids(number), size)
            _require(((ids >= 0) & (ids < len(vectors))).all(), f"list {number} has a row that is none")
            _require((own[ids] < 0).all() and len(np.unique(ids)) == size, f"a row of list {number} comes twice")
            own[ids] = number
            worse = _far_codes(copied, number, vectors[ids])
            _require(not worse.any(), f"what it stores of row {ids[worse.argmax()]} is another vector")
    _require((own >= 0).all(), f"row {own.argmin()} is missing")
    asked = np.arange(0, len(vectors), max(len(vectors) // _ASKED, 1))
    _require_nearest(copied, vectors[asked], own[asked], asked)
    _require_same_answers(built, copied, vectors[asked], asked)


def _require(holds: bool | np.bool_, what: str) -> None:
    if not holds:
        raise DeviceError(
            f'the index that the GPU gave back is not the one that was built: {what}; take [night] device = "cpu" '
            "for this night, and look at the GPU's memory and driver"
        )


def _far_codes(ivf: Any, number: int, vectors: np.ndarray) -> np.ndarray:
    """Say which codes of a list are farther from their own *vectors* than codes that are made here; bool [size]."""
    size = len(vectors)
    stored = faiss.rev_swig_ptr(ivf.invlists.get_codes(number), size * ivf.code_size).reshape(size, -1)
    made = np.empty_like(stored)
    lists = np.full(size, number)
    ivf.encode_vectors(size, faiss.swig_ptr(vectors), faiss.swig_ptr(lists), faiss.swig_ptr(made))
    differ = (stored != made).any(axis=1)
    if not differ.any():
        return np.asarray(differ)
    off = [np.square(_decoded(ivf, codes, lists) - vectors, dtype=np.float64).sum(axis=1) for codes in (stored, made)]
    return np.asarray(~(off[0] <= _WORSE * off[1]))


def _decoded(ivf: Any, codes: np.ndarray, lists: np.ndarray) -> np.ndarray:
    vectors, codes = np.empty((len(codes), ivf.d), np.float32), np.ascontiguousarray(codes)
    ivf.decode_vectors(len(codes), faiss.swig_ptr(codes), faiss.swig_ptr(lists), faiss.swig_ptr(vectors))
    return vectors


def _require_nearest(ivf: Any, vectors: np.ndarray, own: np.ndarray, rows: np.ndarray) -> None:
    centroids = ivf.quantizer.reconstruct_n(0, ivf.nlist)
    products = vectors @ centroids.T
    slack = _OFF * np.linalg.norm(vectors, axis=1) * np.linalg.norm(centroids, axis=1).max()
    wrong = products[np.arange(len(own)), own] < products.max(axis=1) - slack
    _require(not wrong.any(), f"row {rows[wrong.argmax()]} is not in the list with the nearest centroid")


def _require_same_answers(built: Any, copied: Any, queries: np.ndarray, rows: np.ndarray) -> None:
    parameters = faiss.SearchParametersIVF()
    parameters.nprobe = min(_LISTS, copied.nlist)
    k = min(_NEIGHBOURS, copied.ntotal)
    there, here = (index.search(queries, k, params=parameters)[0] for index in (built, copied))
    slack = _OFF * np.maximum(np.square(queries).sum(axis=1, keepdims=True), np.abs(here))
    wrong = (np.abs(there - here) > slack).any(axis=1)
    _require(not wrong.any(), f"asked for the neighbours of row {rows[wrong.argmax()]}, it gives other scores")
