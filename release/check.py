"""The step ``check``: measure a finished run, judge it by the gates, and keep the verdict beside it."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from artifacts.errors import CorruptError, RefusedError
from artifacts.release import record_problems, write_record
from artifacts.run import Run
from artifacts.store import STAGING_PREFIX
from release.content import content_of_release, content_of_run, judged_digest
from release.figures import Limits, figures_of
from release.gates import GATES, Gate, GateReport, judge
from release.pointer import LATEST, earlier_release


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
    judged = judged_digest(run)
    earlier = earlier_release(root, run.date, channel)
    with tempfile.TemporaryDirectory(dir=run.folder, prefix=STAGING_PREFIX) as spill:
        figures, measured = figures_of(
            run,
            content_of_run(run),
            content_of_release(earlier.layout, earlier.manifest) if earlier else None,
            trained_through=trained_through or {},
            limits=Limits(memory, threads, Path(spill)),
        )
    version = earlier.version if earlier else None
    report = GateReport(
        run.date, run.run_key, judged, version, judge(gates, figures, earlier=version), dict(sorted(measured.items()))
    )
    _keep(run, report)
    if report.failed:
        lines = "\n".join(f"  {verdict.line()}" for verdict in report.failed)
        raise RefusedError(f"{run.date}: {len(report.failed)} of {len(gates)} gates refuse run {run.run_key}\n{lines}")
    return report


def _keep(run: Run, report: GateReport) -> None:
    record = run.layout.record
    try:
        if record.contents.exists() and any(record_problems(record)):
            record.contents.unlink()
    except CorruptError:
        record.contents.unlink()  # the verdict is made anew, and so is the list of what was recorded
    write_record(record, {record.gates: report.document()})
