"""The local engine: the shards of one step over processes of this machine, each of which takes a group of them."""

import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.resource_tracker import ensure_running
from types import FrameType

from artifacts.errors import NightrecError, told_by_worker
from artifacts.run import StepResult
from nightrec.stopping import end_by_force

# faiss, torch and obstore hang in a forked child once the parent has used them.
_SPAWN = multiprocessing.get_context("spawn")


def groups_of(shards: Sequence[int], workers: int) -> list[list[int]]:
    """Deal *shards* to *workers*, each a run of neighbours, none of them empty; sizes differ by one at most."""
    parts = min(workers, len(shards))
    cuts = [len(shards) * part // parts for part in range(parts + 1)] if parts else []
    return [list(shards[start:end]) for start, end in itertools.pairwise(cuts)]


def run_groups(
    work: Callable[..., StepResult],
    groups: Sequence[Sequence[int]],
    advance: Callable[[int], None],
    gpus: Sequence[str] = (),
) -> StepResult:
    """Do each group of shards in a process of its own; one group is done here.

    If a group fails, or this process is told to stop, the other processes are told to stop too: what they have
    finished stays. They also stop when this process dies.

    Args:
        work: Takes a group and a function that is told of rows done; it must be picklable.
        groups: Shards.
        advance: Told of the rows that any process has done.
        gpus: What ``CUDA_VISIBLE_DEVICES`` calls each GPU: the processes see one each, in turn. One group sees all.

    Raises:
        NightrecError: What a group raised on purpose, or that a process died.
        RuntimeError: What a group raised otherwise, with its traceback as text.
    """
    if len(groups) < 2:
        return work(groups[0] if groups else [], advance)
    lifeline, held = _SPAWN.Pipe(duplex=False)
    processes: dict[Connection, SpawnProcess] = {}
    try:
        for group, gpu in zip(groups, itertools.cycle(gpus or [None]), strict=False):
            reader, writer = _SPAWN.Pipe(duplex=False)
            process = _SPAWN.Process(target=_work, args=(work, group, gpu, writer, lifeline))
            with _unheard(signal.SIGINT):
                process.start()
            writer.close()
            processes[reader] = process
        return merge(_collect(processes, advance))
    finally:
        held.close()  # whoever is still at work is told to stop by this
        for process in processes.values():
            process.join()


@contextmanager
def _unheard(number: int) -> Iterator[None]:
    """Block a signal in this thread, and for good in a process that is started meanwhile, from its first instruction.

    Ctrl-C reaches every process of a terminal, also one that is still loading; the parent tells its workers what to do.
    """
    ensure_running()  # of what multiprocessing starts beside the first process: it would unblock the signal again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _collect(processes: dict[Connection, SpawnProcess], advance: Callable[[int], None]) -> list[StepResult]:
    results, open_ = [], dict(processes)
    while open_:
        for reader in wait(list(open_)):
            assert isinstance(reader, Connection)
            try:
                message = reader.recv()
            except EOFError:
                process = open_.pop(reader)
                process.join()
                raise NightrecError(
                    f"a worker process died (exit code {process.exitcode}; -9 is often a lack of memory); what is "
                    "finished stays: run the same command again, with fewer --workers if memory was short"
                ) from None
            if isinstance(message, int):
                advance(message)
            elif isinstance(message, StepResult):
                results.append(message)
                del open_[reader]
            else:
                raise message
    return results


def merge(results: Sequence[StepResult]) -> StepResult:
    """Add up what the groups of one step did."""
    counts = {name: 0 for result in results for name in result.counts}
    for result in results:
        for name, count in result.counts.items():
            counts[name] += count
    return StepResult(
        step=results[0].step,
        shards=sum(result.shards for result in results),
        skipped=sum(result.skipped for result in results),
        rows=sum(result.rows for result in results),
        counts=counts,
        spans=tuple(span for result in results for span in result.spans),
        stages={
            name: sum(one.stages.get(name, 0.0) for one in results) for result in results for name in result.stages
        },
    )


def _work(
    work: Callable[..., StepResult], group: Sequence[int], gpu: str | None, writer: Connection, lifeline: Connection
) -> None:
    """Do a group in this process, and tell the parent of rows, and at the end of the result or what went wrong."""
    signal.signal(signal.SIGTERM, _leave)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # nothing here has asked CUDA for anything yet
    threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()
    try:
        writer.send(work(group, writer.send))
    except Exception as error:
        writer.send(told_by_worker(error))


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _watch(lifeline: Connection) -> None:
    """End this process when the parent lets go of the other end of *lifeline*, by will or by death."""
    wait([lifeline])
    os.kill(os.getpid(), signal.SIGTERM)
    end_by_force(signal.SIGTERM)
