"""Large arrays in files without a name: what of them is in memory, the page cache decides, and no process holds it."""

import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from artifacts.errors import NightrecError

HELD = 256 << 20  # bytes of an array that a process holds itself
ROWS = 1_000_000  # of a large array, that are worked on at once


def blocks(length: int) -> Iterator[slice]:
    """Cut *length* rows into slices of ``ROWS``, the last one shorter; none are one slice of none."""
    for start in range(0, max(length, 1), ROWS):
        yield slice(start, min(start + ROWS, length))


def zeros(shape: tuple[int, ...], kind: DTypeLike) -> NDArray[Any]:
    """Make an array of zeros: in memory up to ``HELD`` bytes, and else :func:`mapped`, where temporary files lie.

    Raises:
        NightrecError: If the disk has no room for it.
    """
    return mapped(shape, kind) if math.prod(shape) * np.dtype(kind).itemsize > HELD else np.zeros(shape, kind)


def mapped(shape: tuple[int, ...], kind: DTypeLike, folder: Path | None = None) -> NDArray[Any]:
    """Make an array of zeros in a file that has no name: what of it is in memory, the page cache decides.

    Args:
        shape: Of the array.
        kind: Of its elements.
        folder: Where the file lies; by default where temporary files do. Its room is given back with the array.

    Raises:
        NightrecError: If the disk has no room for it.
    """
    size = math.prod(shape) * np.dtype(kind).itemsize
    if not size:
        return np.zeros(shape, kind)
    with _nameless(folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise _without_room(size, error, folder) from error
        return np.asarray(np.memmap(file, kind, "r+", shape=shape))


def joined(parts: Iterable[Sequence[NDArray[Any]]]) -> list[NDArray[Any]]:
    """Join arrays as ``np.concatenate`` does, in files like those of :func:`mapped`, where temporary files lie.

    Args:
        parts: One or more, each with an array for each column; a part is written before the next one is made.

    Raises:
        NightrecError: If the disk has no room for them.
    """
    with ExitStack() as stack:
        files: list[Any] = []
        for part in parts:
            files = files or [stack.enter_context(_nameless()) for _ in part]
            for file, array in zip(files, part, strict=True):
                _write(file, array)
        return [_read(file, like) for file, like in zip(files, part, strict=True)]


def drawn(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draw numbers as ``random.random(shape)`` does, into a file like those of :func:`mapped`.

    Raises:
        NightrecError: If the disk has no room for them.
    """
    (numbers,) = joined((random.random(block.stop - block.start),) for block in blocks(math.prod(shape)))
    return numbers.reshape(shape)


def _nameless(folder: Path | None = None) -> Any:
    try:
        return tempfile.TemporaryFile(buffering=0, dir=folder)
    except OSError as error:
        place = folder or "the folders for temporary files"
        raise NightrecError(
            f"{place}: expected to make a file there, found that none can be ({error.strerror}); name a folder with "
            "room in TMPDIR"
        ) from error


def _write(file: Any, array: NDArray[Any]) -> None:
    rest = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise _without_room(file.tell() + len(rest), error) from error


def _read(file: Any, like: NDArray[Any]) -> NDArray[Any]:
    """Map a file of rows whose kind and width are those of *like*."""
    width = like.dtype.itemsize * math.prod(like.shape[1:])
    shape = (file.tell() // width if width else len(like), *like.shape[1:])
    return (
        np.asarray(np.memmap(file, like.dtype, "r+", shape=shape)) if math.prod(shape) else np.zeros(shape, like.dtype)
    )


def _without_room(size: int, error: OSError, folder: Path | None = None) -> NightrecError:
    place = folder or tempfile.gettempdir()
    return NightrecError(
        f"{place}: expected room for {size:,} bytes, found less ({error.strerror}); make room, or name another "
        "folder in TMPDIR"
    )
