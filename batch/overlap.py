"""Reading ahead, working side by side, writing behind: in threads, a bounded number of things on the way, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from batch.stages import stage

T = TypeVar("T")
U = TypeVar("U")
_END: Any = object()


@contextmanager
def reading_ahead(source: Iterator[T], *, depth: int = 4) -> Iterator[Iterator[T]]:
    """Take items from *source* in a thread of its own, at most *depth* ahead of their use.

    What *source* raises is raised where its item would have come. When the block ends, however it ends, the thread
    has stopped, so that a file that *source* reads can be closed.
    """
    with ThreadPoolExecutor(1) as pool:

        def read() -> T:
            with stage("read"):
                return next(source, _END)

        def items() -> Iterator[T]:
            waiting = deque(pool.submit(read) for _ in range(depth))
            while (item := _awaited(waiting.popleft())) is not _END:
                waiting.append(pool.submit(read))
                yield item

        yield items()


def _awaited(future: Future[T]) -> T:
    with stage("wait"):
        return future.result()


@contextmanager
def working_side_by_side(work: Callable[[T], U], source: Iterable[T], *, workers: int) -> Iterator[Iterator[U]]:
    """Do *work* on the items of *source* in so many threads; results come in the order of the items.

    What *source* or *work* raises is raised where its result would have come. When the block ends, however it ends,
    the threads have stopped.
    """
    with ThreadPoolExecutor(workers) as pool:

        def merge(item: T) -> U:
            with stage("merge"):  # but for the stages within
                return work(item)

        def results() -> Iterator[U]:
            waiting: deque[Future[U]] = deque()
            for item in source:
                waiting.append(pool.submit(merge, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        yield results()


@contextmanager
def writing_behind(sink: Callable[[T], None], *, depth: int = 4) -> Iterator[Callable[[T], None]]:
    """Yield a function that hands an item to *sink* in a thread of its own, in order, at most *depth* on the way.

    What *sink* raises is raised by a later call or at the end of the block. When the block ends, however it ends,
    the thread has stopped.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[None]] = deque()

        def write(item: T) -> None:
            with stage("write"):
                sink(item)

        def put(item: T) -> None:
            oldest = waiting.popleft() if len(waiting) >= depth else None
            with stage("wait"):
                wait([oldest] if oldest else [])
            waiting.append(pool.submit(write, item))  # it is handed on whatever became of the one before
            if oldest:
                oldest.result()

        yield put
        while waiting:
            _awaited(waiting.popleft())
