"""The page of a night that was refused before its gates could judge it: in which step, why, and what readers have."""

from collections.abc import Callable, Sequence
from datetime import date as calendar_date
from datetime import timedelta
from functools import partial
from pathlib import Path

from artifacts.documents import write_whole
from artifacts.errors import NightrecError, RefusedError
from artifacts.layout import RootLayout
from release.history import NIGHTS
from release.nights import Outcome, Recorded, night_of
from release.page import Code, Facts, Note, Part, Section, Table, page, section
from release.pointer import LATEST, find_release, read_pointer, versions
from release.trend import NIGHT_COLUMNS, night_row


def write_refusal(root: Path, date: str, step: str, error: NightrecError, *, channel: str = LATEST) -> list[str]:
    """Write the page of a refused night in place of an older one, beside the runs of its date.

    Args:
        root: The surface's root.
        date: The data date, ISO.
        step: Which step of the night refused it.
        error: What it said.
        channel: Whose readers are spoken of.

    Returns:
        What could not be made, one line each; the page holds the rest.

    Raises:
        OSError, StoreError: If the page cannot be written.
    """
    troubles: list[str] = []
    parts: tuple[tuple[str, Callable[[], Sequence[Part]]], ...] = (
        ("Refused, and why", partial(_why, date, step, error, channel)),
        ("What readers have", partial(_readers, root, date, channel)),
        (f"The last {NIGHTS} days", partial(_nights, root, date, step, channel)),
    )
    sections: list[Section] = [section(heading, make, troubles) for heading, make in parts]
    lead = "It did not come to its gates. This page goes once the night is prepared, or judged, after all."
    verdict = Note(f"Refused in the step {step}: {error}", "bad")
    text = page(f"Night of {date}", lead, sections, verdict=verdict)
    write_whole(RootLayout(root).refusal(date), text.encode())
    return troubles


def _why(date: str, step: str, error: NightrecError, channel: str) -> list[Part]:
    rule = isinstance(error, RefusedError)
    again = (
        "The line above says what was expected, what was found and what to do. When that is put right, do the night "
        "again: what is finished is skipped, and a late night is an ordinary night."
    )
    what = "a rule said no" if rule else "an input or a stored file is wrong: trying again changes nothing"
    of_channel = "" if channel == LATEST else f" --channel {channel}"
    return [
        Facts((("data date", date), ("step", step), ("exit code", f"{error.exit_code}: {what}"))),
        again,
        Code(f"nightrec run --date {date}{of_channel}"),
    ]


def _readers(root: Path, date: str, channel: str) -> list[Part]:
    """Say which release stands, and whether the date has one that was made before."""
    parts: list[Part] = []
    pointer = read_pointer(root, channel)
    if pointer is None:
        parts.append(f"{channel} names no release yet: readers have nothing.")
    else:
        release = find_release(root, pointer.version)
        held = f"by {pointer.hold.who}: {pointer.hold.why}" if pointer.hold else "no"
        parts += [
            f"What {channel} names stands; a refused night takes nothing from its readers.",
            Facts(
                (
                    ("release", pointer.version),
                    ("data date", pointer.date),
                    ("recommendations", release.manifest.rows(release.layout.scores.name)),
                    ("held", held),
                )
            ),
        ]
    stored = [version for version in versions(root) if version.startswith(date)]
    if stored:
        said = f"{date} was done before, as {', '.join(stored)}: `nightrec report {stored[-1]}` says what of it."
        parts.append(Note(said))
    return parts


def _nights(root: Path, date: str, step: str, channel: str) -> list[Part]:
    """Show the days before, newest first, below the refused one; a day without a night is a row too."""
    last = calendar_date.fromisoformat(date)
    days = [(last - timedelta(days=before)).isoformat() for before in range(1, NIGHTS + 1)]
    refused = Recorded(date, Outcome.REFUSED, problem=f"in {step}, before its gates")
    rows = [night_row(date, refused), *(night_row(day, night_of(root, day, channel)) for day in days)]
    return [Table(NIGHT_COLUMNS, rows, "Newest first")]
