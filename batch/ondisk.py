"""An index whose lists are made part by part on disk, where they are more than the memory that it may take."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import pack
from typing import Any, BinaryIO

import faiss
import numpy as np

LEAST_OF_PART = 65_536  # rows: each part is a file with all centroids, and there may be only so many
_TAIL = 4 + 8 + 8 + 4 + 8  # bytes by which FAISS says that there are no items in any list
_BYTES_OF_ID = 8


def filled_on_disk(ivf: Any, vectors: np.ndarray, own: np.ndarray, *, memory: int, folder: Path) -> Any:
    """Add *vectors* to a trained index; it has the bytes of one that was filled in memory.

    Rows are added part by part, the lists of each part are written to disk, and list by list all parts make one file,
    of which the index that is given back reads what it needs: FAISS ends the process that changes it.

    Args:
        ivf: An ``IndexIVF``, trained and empty; it stays so.
        vectors: float32 [n, d]; row i becomes id i.
        own: int64 [n], the list of each row.
        memory: Bytes that the lists of a part may take; ``LEAST_OF_PART`` rows are added at a time all the same.
        folder: Where the parts lie meanwhile, and are gone in the end; what is left there of an earlier try goes first.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        parts = [_filled(ivf, vectors, own, rows, folder) for rows in _parts(ivf, len(vectors), memory)]
        whole = folder / "whole.faiss"
        with whole.open("wb") as file:
            _merge(ivf, parts, len(vectors), file)
        return faiss.read_index(str(whole), faiss.IO_FLAG_MMAP_IFC)  # keeps the file, not its name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parts(ivf: Any, rows: int, memory: int) -> Iterator[slice]:
    at_once = max(memory // (ivf.code_size + _BYTES_OF_ID), LEAST_OF_PART)
    for start in range(0, rows, at_once):
        yield slice(start, min(start + at_once, rows))


def _filled(ivf: Any, vectors: np.ndarray, own: np.ndarray, rows: slice, folder: Path) -> Any:
    """Add some rows to a copy of *ivf*, write it, and give it as it lies on disk."""
    part: Any = faiss.clone_index(ivf)
    path = folder / f"{rows.start}.faiss"
    some, ids, lists = vectors[rows], np.arange(rows.start, rows.stop), own[rows]  # a pointer keeps no array
    part.add_core(len(ids), faiss.swig_ptr(some), faiss.swig_ptr(ids), faiss.swig_ptr(lists))
    with path.open("wb") as file:
        faiss.write_index(part, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


def _merge(ivf: Any, parts: Sequence[Any], rows: int, file: BinaryIO) -> None:
    """Write what ``faiss.write_index`` writes of an index with the lists of all *parts*, one after the other.

    What comes before the lists is that of an empty index with so many rows. Then stand their lengths, in full if more
    than half of the lists have items and else in pairs of list and length; and codes and ids of each.
    """
    empty = faiss.clone_index(ivf)
    empty.ntotal = rows
    file.write(faiss.serialize_index(empty)[:-_TAIL].tobytes())
    lists = range(ivf.nlist)
    sizes = np.array([sum(part.invlists.list_size(number) for part in parts) for number in lists], np.uint64)
    used = np.flatnonzero(sizes)
    full = len(used) > ivf.nlist // 2
    said = sizes if full else np.stack([used.astype(np.uint64), sizes[used]], axis=1).ravel()
    file.write(b"ilar" + pack("<QQ", ivf.nlist, ivf.code_size) + (b"full" if full else b"sprs"))
    file.write(pack("<Q", len(said)) + said.tobytes())
    for number in used.tolist():
        held = [(part.invlists, part.invlists.list_size(number)) for part in parts]
        held = [(found, size) for found, size in held if size]
        for found, size in held:
            file.write(faiss.rev_swig_ptr(found.get_codes(number), size * ivf.code_size).data)
        for found, size in held:
            file.write(faiss.rev_swig_ptr(found.get_ids(number), size).data)
