"""Memory: what is freed goes back to the system, and how much a process has held at most."""

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

_TRIM, _MMAP = -1, -3  # glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
_LARGE, _A_BATCH = 1 << 20, 2 << 20  # bytes


def give_back_what_is_freed() -> None:
    """Let this process keep no freed memory for later; where the C library is not glibc, only Arrow is told.

    A step's threads free in one place what was allocated in another. Kept for later, in pools of their own, that adds
    up with the size of shards: measured on 200,000 users it was most of what a step's peak grew by. Each thread keeps
    what the arrays of a batch take, which would otherwise be asked of the system anew for every batch.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_TRIM, _A_BATCH)
        library.mallopt(_MMAP, _LARGE)


def forget_peak() -> None:
    """Let :func:`peak_memory` begin anew; where the system does not allow it, the peak stays that of the process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


def peak_memory() -> int:
    """Give the most bytes that this process has held in memory since :func:`forget_peak`."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
