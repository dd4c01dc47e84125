"""``nightrec report``: where the page of a night lies, of a published or of a refused one."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightrec.night import ConfigPath, Json, configured
from nightrec.terminal import answer, say

if TYPE_CHECKING:
    from artifacts.layout import RecordLayout

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
    from release.verdicts import find_report

    record = _record(configured(config).root, night, channel)
    page = find_report(record)
    if out is not None:
        write_beside(out, page.read_text("utf-8"))
        page = out
    say(f"nightrec: the report of {record.folder.parent.name} is {page}")
    if json:
        answer({"night": record.folder.parent.name, "report": str(page)})


def _record(root: Path, night: str | None, channel: str) -> "RecordLayout":
    """Find the record of the last run of a date, of a release of that date if no run is left, or of a release."""
    from artifacts.errors import StaleRunError
    from artifacts.run import find_run
    from release.pointer import find_release, versions

    if night is None or not _DAY.fullmatch(night):
        return find_release(root, night, channel).layout.record
    try:
        return find_run(root, night).layout.record
    except StaleRunError:
        stored = [version for version in versions(root) if version.startswith(night)]
        if not stored:
            raise
        return find_release(root, stored[-1]).layout.record
