"""The one place that knows the order of the steps, and what is recorded of each."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from artifacts.documents import amend_sealed
from artifacts.errors import ConflictError, CorruptError, NotReadyError, RefusedError, StaleRunError, UsageError
from artifacts.run import Run, StepResult, find_run, parse_group, parse_shards
from artifacts.store import exclusive, remove_file
from batch.memory import forget_peak, peak_memory
from nightrec import steps
from nightrec.config import Config, semantic
from nightrec.dashboards import tell_dashboards
from nightrec.engines import ready_engine, run_shards
from nightrec.refused import forget_refusal, keeping_refusal
from nightrec.terminal import progress, say

if TYPE_CHECKING:
    from release.publish import Published

LATEST = "LATEST"  # the pointer that moves where no other is named
_LOOKS = 3  # at what is published, until others are too quick for us
_OF_A_RELEASE = ("manifest_sha256", "stored", "moved", "current", "held", "sequence")  # what an answer says of it


@dataclass(frozen=True, slots=True)
class Done:
    """A step that is done.

    Attributes:
        step: Its name.
        shards: Shards asked for.
        skipped: Shards among them that were done before.
        rows: Rows written now.
        seconds: How long it took, on the clock on the wall.
        counts: What else was counted.
        about: What people want to know in words: what was published, gates that warned.
        memory: The most bytes that one process of it held.
        stages: Seconds of each stage, added up over threads and processes; see ``batch/stages.py``.
    """

    step: str
    shards: int
    skipped: int
    rows: int
    seconds: float
    counts: dict[str, int] = field(default_factory=dict)
    about: str = ""
    memory: int = 0
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """How much was done and how much was done before, in words."""
        if not self.shards:
            return "nothing to do"
        if self.skipped == self.shards:
            return "done already"
        return f"{self.shards - self.skipped} done, {self.skipped} already" if self.skipped else f"{self.shards} done"

    @property
    def speed(self) -> int | None:
        """Rows a second; None where nothing was written."""
        return round(self.rows / self.seconds) if self.rows and self.seconds > 0 else None

    @property
    def notes(self) -> str:
        """What was counted, in words; what was not there is not named."""
        counted = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in self.counts.items() if count)
        return "; ".join(part for part in (self.about, counted) if part)

    def profile(self) -> dict[str, Any]:
        """Where the time went, for JSON."""
        stages = {name: round(spent, 3) for name, spent in self.stages.items()}
        return {"seconds": round(self.seconds, 3), "rows_a_second": self.speed, "memory": self.memory, "stages": stages}

    def line(self) -> str:
        """Say it in one line, for a log."""
        rows = f", {self.rows:,} rows" if self.rows else ""
        return f"{self.step}: {self.state}{rows} in {self.seconds:.1f} s"


@dataclass(frozen=True, slots=True)
class Night:
    """What was done of a night, and what was published, if that was among it."""

    run: Run
    steps: tuple[Done, ...]
    published: "Published | None" = None

    def document(self) -> dict[str, Any]:
        """What goes into JSON."""
        return {
            "date": self.run.date,
            "run": str(self.run.folder),
            "run_key": self.run.run_key,
            "device": self.run.profile["device"],
            "shards": self.run.shards,
            "item_shards": self.run.item_shards,
            "release": self.published and self.published.version,
            **{name: getattr(self.published, name) for name in _OF_A_RELEASE if self.published},
            "steps": [_said(done) for done in self.steps],
        }


def _said(done: Done) -> dict[str, Any]:
    of_profile = ("memory", "stages")
    said = {name: value for name, value in asdict(done).items() if name not in of_profile}
    return {**said, "seconds": round(done.seconds, 3)}


def run_night(
    config: Config,
    date: str,
    *,
    override: str | None = None,
    supersede: str | None = None,
    seen_future: str = "",
    channel: str = LATEST,
    told: Callable[[Done], None] = lambda done: None,
) -> Night:
    """Do all steps in order; what is done is skipped.

    Args:
        config: The surface.
        date: The data date, ISO.
        override: Reason to publish in spite of failed gates.
        supersede: Reason to replace another release of the date.
        seen_future: Reason to use a model that was trained on later days.
        channel: The pointer that moves, and whose earlier release the night is compared with.
        told: Is told of each step when it is done.
    """
    with ready_engine(config):
        run, prepared = prepare_run(config, date, seen_future=seen_future, channel=channel)
        done = [prepared]
        told(prepared)
        for step in steps.MODEL_STEPS:
            done.append(do_step(step, config, run, shards_of(step, run), channel=channel))
            told(done[-1])
    done.append(check_run(config, run, override=override, channel=channel))
    told(done[-1])
    published, last = publish_run(config, run, override=override, supersede=supersede, channel=channel)
    told(last)
    return Night(run, (*done, last), published)


def continued_run(config: Config, date: str, run_key: str | None = None) -> Run:
    """Find the run that a step goes on with, and see that it was prepared from the same *config*.

    Which bundles a run takes is compared by the steps, which read them.

    Raises:
        StaleRunError: If there is none, or it was prepared from another config; the message names the first key.
    """
    run = find_run(config.root, date, run_key)
    before = {key: value for key, value in run.semantic.items() if key != "seen_future"}  # said to prepare alone
    now = json.loads(json.dumps(semantic(config)))  # as it was read back: lists, not tuples
    for key, was, says in _differences(before, now):
        raise StaleRunError(
            f"run {run.run_key} of {date} was prepared from another config: {key} was {_shown(was)}, "
            f"the config says {_shown(says)}; run `nightrec prepare` with it first"
        )
    return run


def _differences(was: Mapping[str, Any], says: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the keys whose values differ, with both of them; None where a key is not there."""
    for key in dict.fromkeys([*says, *was]):
        one, other = was.get(key), says.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{at}{key}.")
        elif one != other:
            yield f"{at}{key}", one, other


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def shards_of(step: str, run: Run, *, shard: str | None = None, group: str | None = None) -> Sequence[int]:
    """Say which shards of a step are asked for: *shard*, such as ``"0-7/64"``, *group*, such as ``"0/4"``, or all.

    Raises:
        UsageError: If one of them cannot be read, or both are given.
    """
    shards = {"items": run.item_shards, "index": 1}.get(step, run.shards)
    if shard is not None and group is not None:
        raise UsageError("--shard and --group: give one of them")
    if group is not None:
        return parse_group(group, shards)
    return parse_shards(shard, shards) if shard is not None else range(shards)


def prepare_run(config: Config, date: str, *, seen_future: str = "", channel: str = LATEST) -> tuple[Run, Done]:
    """Do the step ``prepare``; *seen_future* says why a model of later days than the data date may be used.

    A night that it refuses has a page that says why, and what readers of *channel* have, until it is prepared.

    Raises:
        NotReadyError: If the day's input is not there yet.
        RefusedError: If it is not there, and the deadline has passed.
    """
    with keeping_refusal(config, date, "prepare", channel):
        device = steps.require_all(config)
        if config.night.device == "auto":
            say(f"nightrec: device {device.name}, {device.hardware} ({device.reason})")
        watch = _begin()
        run, result = _prepare(config, date, seen_future)
    forget_refusal(config, date)
    return run, _record(run, result, watch)


def _prepare(config: Config, date: str, seen_future: str) -> tuple[Run, StepResult]:
    """Prepare a night whose input is there; what is waited for no longer is refused."""
    try:
        return steps.prepare(config, date, seen_future, lambda part, rows: progress(f"prepare: {part}", rows))
    except NotReadyError as error:
        if steps.deadline_passed(config, date):
            hours = config.day.deadline_hours
            raise RefusedError(f"{error}; the deadline, {hours:g} hours after the day's end, has passed") from error
        raise


def do_step(step: str, config: Config, run: Run, shards: Sequence[int], *, channel: str = LATEST) -> Done:
    """Do one of ``steps.MODEL_STEPS`` for some shards, over the config's workers; without a shard nothing is loaded.

    A night that it refuses has a page as one that ``prepare`` does.
    """
    if not shards:
        return Done(step, 0, 0, 0, 0.0)
    watch = _begin()
    with keeping_refusal(config, run.date, step, channel), progress(step, steps.rows_of(step, run, shards)) as advance:
        result = run_shards(step, config, run, shards, advance)
    return _record(run, result, watch)


def check_run(config: Config, run: Run, *, override: str | None = None, channel: str = LATEST) -> Done:
    """Do the step ``check``; with *override* a refusal is left to ``publish`` to record.

    A verdict that stands is said again, and counts as done already.

    Raises:
        RefusedError: If a gate fails.
    """
    from release.check import standing_report

    watch = _begin()
    with exclusive(run.folder / ".check.lock"), keeping_refusal(config, run.date, "check", channel):
        asked = steps.asked_of_gates(config, run)
        stands = standing_report(run, config.root, channel=channel, **asked) is not None
        refused = None
        try:
            with progress("check"):
                about = steps.check(config, run, channel, asked)
        except RefusedError as error:
            refused, about = error, f"overridden: {error}"
        done = _record(run, StepResult("check", 1, int(stands), 0, {}), watch, about)
        _report(config, run, channel)
    forget_refusal(config, run.date)
    if refused and not override:
        tell_dashboards(config, run.date, channel)
        say(f"nightrec: `nightrec report {run.date}` says where a page lies that shows what refuses the night")
        raise refused
    return done


def _report(config: Config, run: Run, channel: str) -> None:
    """Make the report of a verdict that has none yet, of a refused night too, and say what of it could not be made."""
    for trouble in steps.report(config, run, channel):
        say(f"nightrec: the report lacks a part; {trouble}")


def publish_run(
    config: Config, run: Run, *, override: str | None, supersede: str | None, channel: str = LATEST
) -> "tuple[Published, Done]":
    """Do the step ``publish``, one at a time on this machine.

    Raises:
        RefusedError: If the night is not blessed, or a rule of publishing forbids it.
        ConflictError: If others publish elsewhere meanwhile: other content of the date, or again and again, or anything
            where a reason was given, which speaks of what was there before.
    """
    watch = _begin()
    publish = partial(_publish, config, run, override=override, supersede=supersede, channel=channel)
    with exclusive(config.root / ".publish.lock"):
        published = _looking_again(publish, 1 if override or supersede else _LOOKS)
    tell_dashboards(config, run.date, channel)
    before = not published.stored and not published.moved
    about = f"{published.version}: {published.note}"
    return published, Done("publish", 1, int(before), 0, watch.seconds, about=about, memory=peak_memory())


def _publish(config: Config, run: Run, *, override: str | None, supersede: str | None, channel: str) -> "Published":
    """Publish; a verdict that stands no longer, since readers have had another release meanwhile, is given anew."""
    from release.publish import outdated

    if why := outdated(run, config.root, channel):
        say(f"nightrec: {why}; it is judged again")
        check_run(config, run, override=override, channel=channel)
    _report(config, run, channel)
    with progress("publish"):
        return steps.publish(config, run, override=override, supersede=supersede, channel=channel)


def _looking_again(publish: "Callable[[], Published]", looks: int) -> "Published":
    """Publish; what another machine published meanwhile is no mistake of ours, but changes what is to be done.

    Raises:
        ConflictError: If it was so at each of so many *looks*, or the other content of the date was there first.
    """
    try:
        return publish()
    except ConflictError:
        if looks == 1:
            raise
    try:
        return _looking_again(publish, looks - 1)
    except RefusedError as refused:
        if refused.reasons:  # by gates, which know the other's release now
            raise
        raise ConflictError(f"someone else published meanwhile: {refused}") from refused


@dataclass(frozen=True, slots=True)
class _Watch:
    """When a step began: ``began`` in seconds since 1970 UTC, ``start`` by a clock that nobody sets."""

    began: float
    start: float

    @property
    def seconds(self) -> float:
        """How long ago that was."""
        return time.monotonic() - self.start


def _begin() -> _Watch:
    forget_peak()
    return _Watch(time.time(), time.monotonic())


def _record(run: Run, result: StepResult, watch: _Watch, about: str = "") -> Done:
    """Keep the timing of a step that did something, beside those of the run's other steps."""
    seconds = watch.seconds
    timing = _timing(result, watch.began, seconds)
    done = Done(
        step=result.step,
        shards=result.shards,
        skipped=result.skipped,
        rows=result.rows,
        seconds=seconds,
        counts=result.counts,
        about=about or result.about,
        memory=timing["memory"],
        stages=result.stages,
    )
    if result.skipped < result.shards:
        change = partial(_with_timing, step=result.step, timing=timing)
        try:
            amend_sealed(run.layout.timings, change, version=1)
        except CorruptError:  # cut short as the power went: the night goes on, and begins to count anew
            remove_file(run.layout.timings)
            amend_sealed(run.layout.timings, change, version=1)
    return done


def _timing(result: StepResult, began: float, seconds: float) -> dict[str, Any]:
    """Say what a step took; ``memory`` is the most bytes that one process of it held, ``spans`` are its shards."""
    return {
        "shards": result.shards - result.skipped,
        "rows": result.rows,
        "seconds": round(seconds, 3),
        "began": round(began, 3),
        "memory": max([span.memory for span in result.spans] or [peak_memory()]),
        "counts": result.counts,
        "stages": {name: round(spent, 3) for name, spent in result.stages.items()},
        "spans": [asdict(span) for span in result.spans],
    }


def _with_timing(timings: dict[str, Any], *, step: str, timing: dict[str, Any]) -> dict[str, Any]:
    return {**timings, step: [*timings.get(step, []), timing]}
