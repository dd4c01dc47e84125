"""``nightrec report``: where the page of a night lies, of a published or of a refused one."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightrec.night import ConfigPath, Json, configured
from nightrec.terminal import answer, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from release.pointer import Release

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def report(
    night: Annotated[
        str | None,
        typer.Argument(
            metavar="[VERSION|DATE]",
            help="A release, or a data date, whose last run is taken; by default the release that the channel names.",
            show_default=False,
        ),
    ] = None,
    *,
    config: ConfigPath,
    channel: Annotated[str, typer.Option("--channel", help="The pointer that readers follow.")] = "LATEST",
    out: Annotated[Path | None, typer.Option("--out", help="Copy the page to this file.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Say where the report of a night lies: one HTML file, for a browser; a refused night has one too."""
    from release.metrics import write_beside

    found = _found(configured(config).root, night, channel)
    page = found.page
    if out is not None:
        write_beside(out, page.read_text("utf-8"))
        page = out
    say(f"nightrec: the report of {found.name} is {page}")
    say(f"nightrec: {found.name} is {found.became}")
    if json:
        answer({"night": found.name, "report": str(page), "release": found.release, "is": found.became})


@dataclass(frozen=True, slots=True)
class _Found:
    """A page, and what has become of its night by now: the page tells what was known when it was made.

    Attributes:
        name: Of the release, or the key of the run, or the date of a night that has neither.
        page: Where it lies, verified.
        release: What was published of the night; None if nothing was.
        became: In words.
    """

    name: str
    page: Path
    release: str | None
    became: str


def _found(root: Path, night: str | None, channel: str) -> _Found:
    """Find the page of a release; or of a date: of its refusal before the gates, its last run, or its release."""
    from artifacts.errors import StaleRunError
    from artifacts.layout import RootLayout
    from artifacts.run import find_run
    from artifacts.store import fetched, is_there
    from release.pointer import find_release, versions
    from release.verdicts import find_report

    if night is None or not _DAY.fullmatch(night):
        return _of_release(find_release(root, night, channel), root, channel)
    of_date = [version for version in versions(root) if version.startswith(night)]
    if is_there(refusal := RootLayout(root).refusal(night)):
        done = f"; {of_date[-1]}, which was made of it before, has a report of its own" if of_date else ""
        return _Found(night, fetched(refusal, anew=True), None, f"refused before its gates{done}")
    try:
        run = find_run(root, night)
    except StaleRunError:
        if not of_date:
            raise
        return _of_release(find_release(root, of_date[-1]), root, channel)
    made = [one for one in of_date if find_release(root, one).manifest.run_key == run.run_key]
    page = find_report(run.layout.record)
    if not made:
        return _Found(run.run_key, page, None, "not published")
    version, readers = _readers(root, made, channel)
    return _Found(run.run_key, page, version, f"published as {version}: {readers}")


def _of_release(release: "Release", root: Path, channel: str) -> _Found:
    """Find the page of a release.

    Raises:
        UsageError: If it has none: a revised one never has.
    """
    from artifacts.errors import UsageError
    from artifacts.store import is_there
    from release.verdicts import find_report

    record, version = release.layout.record, release.version
    if is_there(record.revision) and not is_there(record.report):
        raise UsageError(
            f"{version} is revised, and has no report: the one before may tell of whom was taken out; "
            f"`nightrec releases show {version}` says what it comes from"
        )
    page = find_report(record)
    _, readers = _readers(root, [version], channel)
    return _Found(version, page, version, f"published: {readers}")


def _readers(root: Path, made: "Sequence[str]", channel: str) -> tuple[str, str]:
    """Give the one of the releases *made* that readers have, else the last; and say what they have, if it is known."""
    from artifacts.errors import CorruptError
    from release.pointer import read_pointer

    try:
        pointer = read_pointer(root, channel)
    except CorruptError as error:
        return made[-1], f"what readers have cannot be told ({error})"
    if pointer is None:
        return made[-1], f"{channel} names none yet"
    if pointer.version in made:
        return pointer.version, f"readers of {channel} have it"
    return made[-1], f"readers of {channel} have {pointer.version}"
