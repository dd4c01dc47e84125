"""The report of a night: one page that says whether it is good, what changed, where all went, and what people get.

It belongs to the record, is made after the verdict and may fail without the night failing: a part that cannot be made
says so in its place, and ``check`` says it too. What it reads of users is a bounded part, chosen by no chance.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from artifacts.bundle import Bundle
from artifacts.release import write_record
from artifacts.run import Run, recording
from release.history import past_nights
from release.page import Part, page, section
from release.pointer import LATEST, earlier_release
from release.publish import manifest_of
from release.report_catalogue import catalogue
from release.report_flow import flows
from release.report_lists import retrieval, scores
from release.report_people import people
from release.report_verdict import changes, verdict, verdict_of
from release.report_work import made_with, work
from release.subject import Subject
from release.verdicts import GateReport

# In the order in which a person asks.
SECTIONS: tuple[tuple[str, Callable[[Subject], Sequence[Part]]], ...] = (
    ("Passed or refused, and why", verdict),
    ("What changed since the last release", changes),
    ("Where everybody and everything went", flows),
    ("Retrieval", retrieval),
    ("Scores", scores),
    ("Catalogue", catalogue),
    ("Ten users", people),
    ("Time, speed and memory", work),
    ("Versions, digests, config", made_with),
)


def write_report(
    run: Run, root: Path, bundles: Sequence[Bundle], *, sample_users: str, channel: str = LATEST
) -> list[str]:
    """Make the report of a checked run and put it into its record, in place of an older one.

    Args:
        run: Its verdict is in its record.
        root: The surface's root.
        bundles: Its models, verified.
        sample_users: ``"none"``, ``"pseudonym"`` or ``"id"``.
        channel: Whose earlier releases the night is compared with.

    Returns:
        What could not be made, one line each; the report holds the rest.

    Raises:
        CorruptError: If the verdict or the record cannot be read.
        StaleRunError: If a step is not finished.
        OSError: If the report cannot be written.
    """
    with recording(run) as record:
        report = GateReport.read(record)
    earlier = earlier_release(root, run.date, channel)
    past = past_nights(root, run.date, channel)
    version = manifest_of(run, earlier).version
    text, troubles = render(Subject(run, report, past, version, tuple(bundles), sample_users))
    with recording(run) as record:
        if GateReport.read(record).asked == report.asked:  # else judged anew meanwhile, and reported on by that
            write_record(record, {record.report: text.encode()})
    return troubles


def render(subject: Subject) -> tuple[str, list[str]]:
    """Write the page, and say which parts of it could not be made; the same run and timings give the same page."""
    troubles: list[str] = []
    sections = [section(heading, partial(make, subject), troubles) for heading, make in SECTIONS]
    title = f"Night of {subject.run.date}"
    lead = f"Run {subject.run.run_key}; as a release it is {subject.version}."
    return page(title, lead, sections, verdict=verdict_of(subject)), troubles
