"""Where a step's time goes: seconds of each stage, added up over its threads, for ``--profile`` and the timings.

``read`` takes from disk, decompresses and checks; ``encode`` makes arrays of rows; ``run`` is a graph; ``build`` is an
index; ``merge`` is what is left of the work on a batch; ``write`` compresses, digests and flushes; in ``wait`` a step
stands still until something is read or written. All is always measured: a stage costs some two microseconds, and a
batch of users, which has six, some five thousand. It is told beside the content and never in it.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
_END: Any = object()
NAMES = ("read", "encode", "run", "build", "search", "merge", "write", "wait")

_lock = threading.Lock()
_spent: Counter[str] = Counter()
_inner = threading.local()  # its `seconds` are those of the stages within the present one, in this thread


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time until the block ends as *name*'s, one of ``NAMES``; what a stage within takes is not its own."""
    before, start = getattr(_inner, "seconds", 0.0), time.perf_counter()
    _inner.seconds = 0.0
    try:
        yield
    finally:
        whole = time.perf_counter() - start
        with _lock:
            _spent[name] += whole - _inner.seconds
        _inner.seconds = before + whole


def each(name: str, source: Iterable[T]) -> Iterator[T]:
    """Count the time that each item of *source* takes to come as *name*'s."""
    items = iter(source)
    while True:
        with stage(name):
            item = next(items, _END)
        if item is _END:
            return
        yield item


def forget_stages() -> None:
    """Begin anew; one step at a time is measured in a process."""
    with _lock:
        _spent.clear()


def stages() -> dict[str, float]:
    """Give the seconds of each stage since :func:`forget_stages`, in the order of ``NAMES``."""
    with _lock:
        return {name: round(_spent[name], 3) for name in NAMES if name in _spent}
