"""The engines, which do the shards of a step: over processes of this machine, or over the workers of a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from artifacts.errors import StaleRunError, UsageError
from artifacts.run import Run, StepResult, find_run
from nightrec import steps
from nightrec.config import Config
from nightrec.terminal import say
from nightrec.workers import groups_of, merge, run_groups

if TYPE_CHECKING:
    from batch.shards import Work


@contextmanager
def ready_engine(config: Config) -> Iterator[None]:
    """Have the config's engine at hand within the block, for one step or for all of them.

    Raises:
        NightrecError: If there is no cluster where one is asked for.
    """
    if config.night.engine == "local":
        yield
        return
    from batch.cluster import joined_cluster

    with joined_cluster():
        yield


def run_shards(
    step: str, config: Config, run: Run, shards: Sequence[int], advance: Callable[[int], None]
) -> StepResult:
    """Do some shards, at least one, of one of ``steps.MODEL_STEPS`` over the config's workers.

    On GPUs of this machine there is a worker for each, at least.

    Args:
        step: Its name.
        config: Names engine and workers.
        run: What the shards are of.
        shards: Their numbers.
        advance: Told of the rows that any worker has done.

    Raises:
        NightrecError: What a worker raised on purpose, or that one died.
    """
    workers = min(config.night.workers, len(shards))
    with ready_engine(config):
        if config.night.engine == "ray":
            return merge(_over_cluster(step, config, run, shards, workers, advance))
    gpus = _gpus_of(run)
    groups = groups_of(shards, max(config.night.workers, len(gpus)))
    work = partial(_do_group, steps.MODEL_STEPS[step], config, run, steps.threads_of(config, len(groups)))
    return run_groups(work, groups, advance, gpus)


def _gpus_of(run: Run) -> list[str]:
    """The GPUs of this machine, if *run* is computed on any."""
    from batch.profile import visible_gpus

    return visible_gpus() if run.profile["device"] == "gpu" else []


def _do_group(
    open_: "Callable[[Config, Run, int], Work]",
    config: Config,
    run: Run,
    threads: int,
    shards: Sequence[int],
    advance: Callable[[int], None],
) -> StepResult:
    import pyarrow as pa

    pa.set_cpu_count(threads)  # which decompress what is read, beside those that compute
    return open_(config, run, threads)(shards, advance)


def _over_cluster(
    step: str, config: Config, run: Run, shards: Sequence[int], workers: int, advance: Callable[[int], None]
) -> list[StepResult]:
    from batch.cluster import even_share
    from batch.cluster import run_shards as run_on_cluster

    threads = config.night.threads or even_share(workers)
    return run_on_cluster(
        partial(open_there, steps.MODEL_STEPS[step], config, run.date, run.run_key, threads),
        shards,
        workers=workers,
        cores=threads,
        gpus=int(run.profile["device"] == "gpu"),
        done=lambda shard: advance(steps.rows_of(step, run, [shard]) or 0),
        say=lambda text: say(f"nightrec: {step}: {text}"),
    )


def open_there(
    open_: "Callable[[Config, Run, int], Work]", config: Config, date: str, run_key: str, threads: int
) -> "Work":
    """Open a step on another machine, by what it sees of the root.

    Raises:
        UsageError: If it does not see the run.
    """
    try:
        run = find_run(config.root, date, run_key)
    except StaleRunError as error:
        raise UsageError(
            f"{config.surface.root}: a machine of the cluster does not see run {run_key} of {date} there; with the "
            "engine ray the root is an object store, or a folder that all machines share"
        ) from error
    return open_(config, run, threads)
