"""Large arrays in files without a name: what of them is in memory, the page cache decides, and no process holds it."""

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from artifacts.errors import NightrecError

HELD = 256 << 20  # bytes of an array that a process holds itself


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
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            place = folder or tempfile.gettempdir()
            raise NightrecError(
                f"{place}: expected room for {size:,} bytes, found less ({error.strerror}); make room, or name another "
                "folder in TMPDIR"
            ) from error
        return np.asarray(np.memmap(file, kind, "r+", shape=shape))
