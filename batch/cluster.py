"""The Ray engine: the shards of one step over the workers of a cluster, each of which opens the step once.

Through Ray goes the number of a shard, and back comes what was counted. The shard itself is a file on the root, which
all machines reach: so it does not matter how often it is begun, nor where. A worker that is lost, alone or with its
machine, gives its shard back.
"""

import logging
import math
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifacts.errors import NightrecError, told_by_worker
from artifacts.run import StepResult
from batch.shards import Work, nothing

ADDRESS = "RAY_ADDRESS"  # Ray's own name for where a cluster is
_LIVES = 3  # workers that one shard may take with it
_LOOK = 0.5  # seconds between two looks at whether a signal came: while Ray waits, Python hears of none
_PATIENCE = 120  # looks without a worker, after which a person is told what is waited for


@contextmanager
def joined_cluster() -> Iterator[None]:
    """Join the cluster at ``RAY_ADDRESS``, which is left running; without one, start Ray here and end it afterwards.

    Within the block it does nothing a second time, and nothing that is printed on standard output is seen.

    Raises:
        NightrecError: If the cluster cannot be joined.
    """
    address = os.environ.get(ADDRESS)
    if not address:  # read when Ray is imported: what it starts here listens on 127.0.0.1 alone, and reports to nobody
        os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    import ray

    if ray.is_initialized():
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):  # Ray speaks there of workers that are lost
        _join(address)
        try:
            yield
        finally:
            ray.shutdown()


def _join(address: str | None) -> None:
    """Let Ray begin, and take back SIGTERM from it, which it answers in its own way."""
    import ray

    heard = signal.getsignal(signal.SIGTERM)
    stopped = False
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except SystemExit:  # Ray's answer, if it came meanwhile
        stopped = True
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"{ADDRESS} {address}: the cluster cannot be joined" if address else "Ray cannot be started here"
        raise NightrecError(f"{where}: {_one_line(error)}; what is finished stays: run it again when it can") from error
    finally:
        signal.signal(signal.SIGTERM, heard)
    if stopped:
        signal.raise_signal(signal.SIGTERM)


def even_share(workers: int) -> int:
    """Give the cores of each of so many workers, where the cluster's machines share them: as the smallest one has."""
    import ray

    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    cores = [count for count in cores if count]
    return max(1, min(cores) // math.ceil(workers / len(cores))) if cores else 1


class Worker:
    """One process of the cluster: it opens the step when it is given its first shard."""

    def __init__(self, open_: Callable[[], Work]) -> None:
        """Keep how the step is opened."""
        self._open = open_
        self._work: Work | None = None

    def do(self, shard: int) -> StepResult | Exception:
        """Do a shard; what goes wrong is told, so that it comes out on the other side as it was."""
        try:
            self._work = self._work or self._open()
            return self._work([shard], nothing)
        except Exception as error:
            return told_by_worker(error)


def run_shards(
    open_: Callable[[], Work],
    shards: Sequence[int],
    *,
    workers: int,
    cores: int,
    gpus: int,
    done: Callable[[int], None],
    say: Callable[[str], None],
) -> list[StepResult]:
    """Do shards on the cluster; as many are on their way as there are workers.

    Args:
        open_: Opens the step, in a worker; it must be picklable by name, and what it names be installed there.
        shards: Their numbers.
        workers: How many there are at most, over all machines.
        cores: Of each.
        gpus: Of each.
        done: Told of each shard that is done.
        say: Told of workers that are lost, and what is waited for, if it takes long.

    Raises:
        NightrecError: What a worker raised on purpose, or that several died of the same shard.
        RuntimeError: What a worker raised otherwise, with its traceback as text.
    """
    import ray

    hired = ray.remote(Worker).options(num_cpus=cores, num_gpus=gpus, scheduling_strategy="SPREAD")
    crew = _Crew(lambda: hired.remote(open_), say, deque(shards))
    results: list[StepResult] = []
    try:
        for _ in range(min(workers, len(shards))):
            crew.hire()
        looks = 0
        while len(results) < len(shards):
            signs, _ = ray.wait(list(crew.awaited), num_returns=1, timeout=_LOOK)
            looks = 0 if signs or crew.at_work else looks + 1
            if looks == _PATIENCE:
                say(f"waiting for the cluster: no machine of it has {_room(cores, gpus)} free for a worker")
            for sign in signs:
                if (result := crew.answer(sign)) is not None:
                    results.append(result[1])
                    done(result[0])
    finally:
        crew.dismiss()
    return results


@dataclass
class _Crew:
    """The workers of one step: who is awaited, with what, and who is idle."""

    hire_one: Callable[[], Any]
    say: Callable[[str], None]
    waiting: deque[int]
    awaited: dict[Any, tuple[Any, int | None]] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)
    lost: Counter[int | None] = field(default_factory=Counter)

    @property
    def at_work(self) -> bool:
        """Whether a worker has a shard."""
        return any(shard is not None for _, shard in self.awaited.values())

    def hire(self) -> None:
        """Ask for a worker; it is given a shard when it is there, and until then keeps none from the others."""
        worker = self.hire_one()
        self.awaited[worker.__ray_ready__.remote()] = worker, None

    def answer(self, sign: Any) -> tuple[int, StepResult] | None:
        """Take what a worker has to say, and give shards to whoever has none; gives the one that is done, if any."""
        import ray

        worker, shard = self.awaited.pop(sign)
        done = None
        try:
            told = ray.get(sign)
        except ray.exceptions.RayError as error:
            self._replace(worker, shard, error)
        else:
            if isinstance(told, Exception):
                raise told
            self.idle.append(worker)
            done = None if shard is None else (shard, told)
        while self.waiting and self.idle:
            free, next_ = self.idle.pop(), self.waiting.popleft()
            self.awaited[free.do.remote(next_)] = free, next_
        return done

    def _replace(self, worker: Any, shard: int | None, error: Exception) -> None:
        """Hire another for a worker that is lost; one that only cannot be reached must not go on.

        Raises:
            NightrecError: If its shard has taken too many with it.
        """
        import ray

        ray.kill(worker)
        self.lost[shard] += 1
        if self.lost[shard] == _LIVES:
            what = "workers end before they begin" if shard is None else f"shard {shard}: its workers die"
            raise NightrecError(
                f"{what}, {_LIVES} of them so far ({_one_line(error)}); what is finished stays: run the same command "
                "again, with fewer workers on a machine if memory was short"
            )
        if shard is not None:
            self.waiting.appendleft(shard)
            self.say(f"a worker is lost; shard {shard}, which it had, is given to another ({_one_line(error)})")
        self.hire()

    def dismiss(self) -> None:
        """End all workers at once: what is not finished has no name yet, and is done again by whoever goes on."""
        import ray

        for worker in [*self.idle, *(worker for worker, _ in self.awaited.values())]:
            ray.kill(worker)


def _room(cores: int, gpus: int) -> str:
    return f"{cores} cores" + (f" and {gpus} GPU" if gpus else "")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
