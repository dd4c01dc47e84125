"""The step ``check``: measure a finished run, judge it by the gates, and keep the verdict beside it."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from artifacts.digest import document_digest
from artifacts.errors import CorruptError, RefusedError
from artifacts.release import read_record, record_problems, write_record
from artifacts.run import Run, recording
from artifacts.store import STAGING_PREFIX, is_there, remove_file
from release.changes import Earlier, Levels, compared, figures_of, model_change, segment_levels
from release.content import content_of_release, content_of_run, judged_digest
from release.figures import POPULAR, levels_of, measure_night
from release.gate import Gate
from release.gates import GATES
from release.history import Past, past_nights
from release.pointer import LATEST
from release.query import Limits
from release.segments import ALL_USERS, Segments, SegmentsMeasure, named
from release.verdicts import Figure, GateReport, judge

_SPILL = f"{STAGING_PREFIX}check-"  # begins the name of the folder in which DuckDB spills


def check(
    run: Run,
    root: Path,
    *,
    gates: Sequence[Gate] = GATES,
    segments: Segments = ALL_USERS,
    channel: str = LATEST,
    trained_through: Mapping[str, str] | None = None,
    memory: str = "1GB",
    threads: int = 0,
) -> GateReport:
    """Judge *run* against its bounds and the releases of earlier dates; the verdict is written either way.

    Asked the same of the same files again, the verdict that was given stands. A run is checked by one at a time.

    Args:
        run: All its steps must be finished.
        root: The surface's root.
        gates: From :func:`release.gates.configured_gates`.
        segments: By which the gates about users judge parts of them too.
        channel: Whose earlier releases the night is compared with.
        trained_through: Role to the last day its model was trained on, ISO, where it is known.
        memory: What DuckDB may hold while it compares two nights, such as ``"1GB"``.
        threads: Threads of that comparison; 0 is all.

    Raises:
        RefusedError: If a gate fails: one line for each, with value, bound and what to do.
        StaleRunError: If a step is not finished.
        CorruptError: If a file of the run, or of the earlier release, is missing or changed.
    """
    trained_through, past, judged = (
        dict(trained_through or {}),
        past_nights(root, run.date, channel),
        judged_digest(run),
    )
    asked = _asked(judged, gates, segments, past, trained_through)
    report = _standing(run, asked)
    if report is None:
        run.folder.mkdir(parents=True, exist_ok=True)  # on a machine that has none of it yet
        for left_behind in run.folder.glob(f"{_SPILL}*"):
            shutil.rmtree(left_behind)  # by a check that was killed: there is one at a time
        with tempfile.TemporaryDirectory(dir=run.folder, prefix=_SPILL) as spill:
            limits = Limits(memory, threads, Path(spill))
            report = _judge(run, past, gates, segments, trained_through, limits, judged=judged, asked=asked)
        _keep(run, report)
    if report.failed:
        lines = [verdict.line() for verdict in report.failed]
        said = f"{run.date}: {len(lines)} of {len(report.verdicts)} verdicts refuse run {run.run_key}"
        raise RefusedError("\n  ".join([said, *lines]), reasons=lines)
    return report


def standing_report(
    run: Run,
    root: Path,
    *,
    gates: Sequence[Gate] = GATES,
    segments: Segments = ALL_USERS,
    channel: str = LATEST,
    trained_through: Mapping[str, str] | None = None,
) -> GateReport | None:
    """Give the verdict that :func:`check` has given before, if the same is asked of the same files; else None.

    Raises:
        StaleRunError: If a step is not finished.
        CorruptError: If the release to compare with cannot be found out.
    """
    past = past_nights(root, run.date, channel)
    return _standing(run, _asked(judged_digest(run), gates, segments, past, trained_through or {}))


def _standing(run: Run, asked: str) -> GateReport | None:
    record = run.layout.record
    if not is_there(record.gates):
        return None
    try:
        report = GateReport.read(record)
    except CorruptError:
        return None  # judging anew is the cure
    return report if report.asked == asked else None


def _asked(
    judged: str, gates: Sequence[Gate], segments: Segments, past: Sequence[Past], trained_through: Mapping[str, str]
) -> str:
    return document_digest(
        {
            "judged": judged,
            "gates": [asdict(gate) for gate in gates],
            "segments": segments.document(),
            "earlier": [[night.release.version, night.report and night.report.document()] for night in past],
            "trained_through": dict(trained_through),
        }
    )


def _judge(
    run: Run,
    past: tuple[Past, ...],
    gates: Sequence[Gate],
    segments: Segments,
    trained_through: Mapping[str, str],
    limits: Limits,
    *,
    judged: str,
    asked: str,
) -> GateReport:
    content = content_of_run(run)
    last = past[0].release if past else None
    earlier = Earlier(content_of_release(last.layout, last.manifest), past) if last else None
    night = measure_night(run, content, segments)
    levels: Levels = {
        "": levels_of(run, content, night, trained_through=trained_through, limits=limits),
        **segment_levels(segments, night, earlier),
    }
    if earlier:
        between = compared(run, content, night, segments, levels, earlier, limits, trained_through)
        levels = {segment: {**own, **between.get(segment, {})} for segment, own in levels.items()}
    figures = figures_of(gates, levels, earlier, model_change(content, earlier) if earlier else "")
    return GateReport(
        date=run.date,
        run_key=run.run_key,
        judged=judged,
        asked=asked,
        earlier=earlier.version if earlier else None,
        verdicts=judge(gates, figures, segments=[name for name in levels if name]),
        figures=_numbers(levels[""]),
        segments=_recorded(segments, night.segments, levels),
        recent={"first": night.recent.first, "counts": night.recent.counts.tolist()},
        popular=night.popular[:POPULAR],
    )


def _numbers(figures: Mapping[str, Figure]) -> dict[str, float]:
    return {name: figure.value for name, figure in sorted(figures.items()) if figure.value is not None}


def _recorded(
    segments: Segments, measures: Mapping[str, SegmentsMeasure], levels: Levels
) -> dict[str, dict[str, object]]:
    """Record what later nights compare with, of the segments that had enough users."""
    return {
        name: {"figures": _numbers(levels[name]), "score_bins": measures[feature].bins[row].tolist()}
        for name, feature, row in sorted(named(segments, measures))
    }


def _keep(run: Run, report: GateReport) -> None:
    with recording(run) as record:
        try:
            if is_there(record.contents) and any(record_problems(record)):
                remove_file(record.contents)
        except CorruptError:
            remove_file(record.contents)  # the verdict is made anew, and so is the list of what was recorded
        listed = read_record(record) if is_there(record.contents) else {}
        listed.pop(record.report.name, None)  # it speaks of the verdict before
        write_record(record, {record.gates: report.document()}, listed=listed)
        remove_file(record.report)
