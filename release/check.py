"""The step ``check``: measure a finished run, judge it by the gates, and keep the verdict beside it."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from artifacts.digest import document_digest
from artifacts.errors import CorruptError, RefusedError
from artifacts.release import record_problems, verify_record_file, write_record
from artifacts.run import Run
from artifacts.store import STAGING_PREFIX, is_there, read_json, remove_file
from release.content import content_of_release, content_of_run, judged_digest
from release.figures import figures_of
from release.gates import GATES, Gate, GateReport, judge
from release.pointer import LATEST, Release, earlier_release
from release.query import Limits


def check(
    run: Run,
    root: Path,
    *,
    gates: Sequence[Gate] = GATES,
    channel: str = LATEST,
    trained_through: Mapping[str, str] | None = None,
    memory: str = "1GB",
    threads: int = 0,
) -> GateReport:
    """Judge *run* against its bounds and the release of an earlier date; the verdict is written either way.

    Asked the same of the same files again, the verdict that was given stands.

    Args:
        run: All its steps must be finished.
        root: The surface's root.
        gates: From :func:`release.gates.configured_gates`.
        channel: Whose earlier release the night is compared with.
        trained_through: Role to the last day its model was trained on, ISO, where it is known.
        memory: What DuckDB may hold while it compares two nights, such as ``"1GB"``.
        threads: Threads of that comparison; 0 is all.

    Raises:
        RefusedError: If a gate fails: one line for each, with value, bound and what to do.
        StaleRunError: If a step is not finished.
        CorruptError: If a file of the run, or of the earlier release, is missing or changed.
    """
    trained_through = dict(trained_through or {})
    report = standing_report(run, root, gates=gates, channel=channel, trained_through=trained_through)
    if report is None:
        report = _judge(run, root, gates, channel, trained_through, memory, threads)
        _keep(run, report)
    if report.failed:
        lines = [verdict.line() for verdict in report.failed]
        said = f"{run.date}: {len(lines)} of {len(gates)} gates refuse run {run.run_key}"
        raise RefusedError("\n  ".join([said, *lines]), reasons=lines)
    return report


def standing_report(
    run: Run,
    root: Path,
    *,
    gates: Sequence[Gate] = GATES,
    channel: str = LATEST,
    trained_through: Mapping[str, str] | None = None,
) -> GateReport | None:
    """Give the verdict that :func:`check` has given before, if the same is asked of the same files; else None.

    Raises:
        StaleRunError: If a step is not finished.
        CorruptError: If the release to compare with cannot be found out.
    """
    asked = _asked(run, gates, earlier_release(root, run.date, channel), trained_through or {})
    record = run.layout.record
    if not is_there(record.gates):
        return None
    try:
        report = GateReport.from_document(read_json(verify_record_file(record, record.gates)))
    except (CorruptError, KeyError, TypeError, ValueError):
        return None  # judging anew is the cure
    return report if report.asked == asked else None


def _asked(run: Run, gates: Sequence[Gate], earlier: Release | None, trained_through: Mapping[str, str]) -> str:
    return document_digest(
        {
            "judged": judged_digest(run),
            "gates": [asdict(gate) for gate in gates],
            "earlier": earlier.version if earlier else None,
            "trained_through": dict(trained_through),
        }
    )


def _judge(
    run: Run,
    root: Path,
    gates: Sequence[Gate],
    channel: str,
    trained_through: Mapping[str, str],
    memory: str,
    threads: int,
) -> GateReport:
    earlier = earlier_release(root, run.date, channel)
    asked, judged = _asked(run, gates, earlier, trained_through), judged_digest(run)
    with tempfile.TemporaryDirectory(dir=run.folder, prefix=STAGING_PREFIX) as spill:
        figures, measured = figures_of(
            run,
            content_of_run(run),
            content_of_release(earlier.layout, earlier.manifest) if earlier else None,
            trained_through=trained_through,
            limits=Limits(memory, threads, Path(spill)),
        )
    version = earlier.version if earlier else None
    verdicts = judge(gates, figures, earlier=version)
    return GateReport(run.date, run.run_key, judged, asked, version, verdicts, dict(sorted(measured.items())))


def _keep(run: Run, report: GateReport) -> None:
    record = run.layout.record
    try:
        if is_there(record.contents) and any(record_problems(record)):
            remove_file(record.contents)
    except CorruptError:
        remove_file(record.contents)  # the verdict is made anew, and so is the list of what was recorded
    write_record(record, {record.gates: report.document()})
