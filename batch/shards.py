"""A step over a group of shards: what each is made from, which are done, one writer of each, one result."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from artifacts.bundle import Bundle
from artifacts.digest import document_digest
from artifacts.errors import StaleRunError
from artifacts.run import Run, Span, StepResult
from artifacts.store import exclusive, sweep_staged_files
from artifacts.tables import is_done, sidecar_within
from batch.memory import forget_peak, give_back_what_is_freed, peak_memory
from batch.overlap import writing_behind
from batch.stages import forget_stages, stages

# Opened for a part of a step with its name and its rows, as far as they are known; gives what is told of rows done.
Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
Advance = Callable[[int], None]  # told how many rows were done, from time to time
Work = Callable[[Sequence[int], Advance], StepResult]  # an open step: does those of some shards that are not done


@dataclass(frozen=True, slots=True)
class Task:
    """One shard that has to be computed.

    Attributes:
        shard: Its number.
        path: The file to write.
        inputs: Digest of all that it is computed from, for the file's sidecar.
    """

    shard: int
    path: Path
    inputs: str


OneShard = Callable[[Task, ExitStack, Advance], Mapping[str, int]]


def nothing(_rows: int) -> None:
    """Ignore progress; the default of every step's ``advance``."""


@contextmanager
def untold(_part: str, _rows: int | None) -> Iterator[Callable[[int], None]]:
    """Show nobody how far a part of a step is: the default of ``progress``."""
    yield nothing


def require_bundle(run: Run, bundle: Bundle) -> None:
    """Refuse a bundle that *run* was not prepared for.

    Raises:
        StaleRunError: If the run has another bundle of this role, or none.
    """
    expected = run.bundles.get(str(bundle.role), {}).get("bundle_id", "none")
    if expected != bundle.bundle_id:
        raise StaleRunError(
            f"{run.folder}: prepared for the {bundle.role} bundle {expected}, but {bundle.folder} is "
            f"{bundle.bundle_id}; run `nightrec prepare` with it first"
        )


def inputs_digest(run: Run, bundles: Sequence[Bundle], files: Sequence[Path], **options: str | int | float) -> str:
    """Digest what an output is computed from: run, bundles and the files read, by what their sidecars say.

    Args:
        run: Its key covers the inputs, the semantic config and the profile.
        bundles: Those that are loaded.
        files: Finished files of the run that are read.
        options: What else changes the content.

    Raises:
        StaleRunError: If a file is not finished.
    """
    sha256 = {path.relative_to(run.folder).as_posix(): sidecar_within(path, run.run_key).sha256 for path in files}
    return document_digest(
        {
            "run_key": run.run_key,
            "bundles": [bundle.bundle_id for bundle in bundles],
            "files": sha256,
            "options": options,
        }
    )


def over_shards(
    step: str, *, output: Callable[[int], Path], inputs: Callable[[int], str], start: Callable[[], OneShard]
) -> Work:
    """Open a step: what is given does those of the shards it is called with that are not done.

    Two processes may be given the same shards: each shard has a lock, and who comes second finds it done.

    Args:
        step: Name for the result.
        output: Number to the file that holds the shard.
        inputs: Number to the digest of what it is computed from.
        start: Loads what all shards need, once and only if something is to do; returns the function that computes
            one shard and returns its counts, ``"rows"`` among them. It enters what finishes the file into the stack
            it is given: the stack is closed, and so the last rows are compressed and the file is flushed and named,
            while the next shard is computed.

    Returns:
        It raises :class:`StaleRunError` if an input is not finished.
    """
    return partial(_do_shards, step, output, inputs, cache(start))


def _do_shards(
    step: str,
    output: Callable[[int], Path],
    inputs: Callable[[int], str],
    start: Callable[[], OneShard],
    shards: Sequence[int],
    advance: Advance,
) -> StepResult:
    give_back_what_is_freed()
    forget_peak()
    forget_stages()
    tasks = [Task(shard, output(shard), inputs(shard)) for shard in shards]
    counts: Counter[str] = Counter()
    spans: list[Span] = []
    skipped = 0
    with writing_behind(ExitStack.close, depth=1) as finish:
        for task in tasks:
            if is_done(task.path, task.inputs):
                skipped += 1
                continue
            compute = start()
            with ExitStack() as stack:
                stack.enter_context(exclusive(task.path.with_name(f".{task.path.name}.lock")))
                if is_done(task.path, task.inputs):
                    skipped += 1
                    continue
                sweep_staged_files(task.path)
                began, clock = time.time(), time.monotonic()
                counted = compute(task, stack, advance)
                seconds = round(time.monotonic() - clock, 3)
                spans.append(Span(task.shard, round(began, 3), seconds, counted["rows"], peak_memory()))
                counts.update(counted)
                finish(stack.pop_all())
    return StepResult(
        step, len(tasks), skipped, counts.pop("rows", 0), dict(sorted(counts.items())), tuple(spans), stages()
    )
