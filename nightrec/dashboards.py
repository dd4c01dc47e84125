"""A night's numbers for dashboards, written where ``[metrics]`` or the command line asks for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.errors import NightrecError, UsageError
from artifacts.store import exclusive
from nightrec.config import Config
from nightrec.terminal import say

if TYPE_CHECKING:
    from release.nights import Recorded


def tell_dashboards(config: Config, date: str, channel: str) -> None:
    """Write what ``[metrics]`` asks for, now that the night of *date* was refused or published.

    A night is worth more than its numbers: what cannot be written is said, and the night goes on.
    """
    if not config.metrics.textfile and not config.metrics.jsonl:
        return
    try:
        with exclusive(config.root / ".metrics.lock"):
            _tell(config, date, channel)
    except (NightrecError, OSError) as error:
        say(f"nightrec: the numbers of the night could not be written: {error}; `nightrec trend` writes them again")


def _tell(config: Config, date: str, channel: str) -> None:
    from release.nights import night_of

    if config.metrics.textfile:
        write_textfile(of_channel(config.metrics.textfile, channel), config, channel)
    night = night_of(config.root, date, channel)
    if config.metrics.jsonl and night is not None:
        write_lines(of_channel(config.metrics.jsonl, channel), config, channel, [night])


def of_channel(path: str, channel: str) -> Path:
    """Name the file of a channel: ``nights.jsonl`` is that of LATEST, ``nights-shadow.jsonl`` that of the shadow."""
    named = Path(path)
    return named if channel == "LATEST" else named.with_stem(f"{named.stem}-{channel}")


def write_textfile(path: Path, config: Config, channel: str) -> None:
    """Write the newest night that was judged, for Prometheus.

    Raises:
        UsageError: If none was.
        CorruptError: If a pointer is changed.
    """
    from release.metrics import prometheus_text, write_beside
    from release.nights import newest_night

    night = newest_night(config.root, channel)
    if night is None:
        raise UsageError(f"{config.surface.root}: no night is judged yet; run `nightrec check` first")
    write_beside(path, prometheus_text(night, surface=config.surface.name, channel=channel))


def write_lines(path: Path, config: Config, channel: str, nights: "Sequence[Recorded]") -> None:
    """Write *nights* as JSON lines, in the place of what the file at *path* says of their dates.

    One that cannot be read any more takes no line's place.

    Raises:
        CorruptError: If the file holds something else, or is another surface's or channel's.
    """
    from release.metrics import json_lines, read_json_lines, with_nights, write_beside
    from release.nights import Outcome

    nights = [night for night in nights if night.outcome is not Outcome.UNREADABLE]
    told = read_json_lines(path, surface=config.surface.name, channel=channel)
    write_beside(path, json_lines(with_nights(told, nights), surface=config.surface.name, channel=channel))
