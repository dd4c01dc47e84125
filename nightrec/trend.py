"""``nightrec trend``: the last nights on one page, and their numbers for dashboards."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightrec.night import ConfigPath, Json, configured
from nightrec.releases import Channel
from nightrec.terminal import answer, say, show

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nightrec.config import Config
    from release.nights import Recorded

_PAGE = Path("trend.html")


def trend(
    *,
    config: ConfigPath,
    nights: Annotated[int, typer.Option("--nights", min=1, max=3660, help="Days, up to the newest night.")] = 60,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where the page goes; trend.html unless another file is asked for."),
    ] = None,
    prometheus: Annotated[
        Path | None, typer.Option("--prometheus", help="Write the newest night's numbers as Prometheus reads them.")
    ] = None,
    jsonl: Annotated[
        Path | None, typer.Option("--jsonl", help="Write one JSON object a night; what the file has of others stays.")
    ] = None,
    alerts: Annotated[
        Path | None, typer.Option("--alerts", help="Write Prometheus' alert rules for the config's gates.")
    ] = None,
    channel: Channel = "LATEST",
    json: Json = False,
) -> None:
    """Show the last nights: outcomes, gates, counts, metrics and durations, on a page and for dashboards."""
    from nightrec.dashboards import write_lines, write_textfile
    from release.metrics import write_beside

    read = configured(config)
    found = _nights(read, nights, channel)
    show(f"{read.surface.name}, {channel}", ("date", "is", "users", "items", "rows", "seconds", "gates"), _rows(found))
    if alerts is not None:
        write_beside(alerts, _alerts(read))
    if prometheus is not None:
        write_textfile(prometheus, read, channel)
    if jsonl is not None:
        write_lines(jsonl, read, channel, found)
    if out is None and not (alerts or prometheus or jsonl):
        out = _PAGE
    if out is not None:
        write_beside(out, _page(read, channel, found))
    written = [str(path) for path in (out, prometheus, jsonl, alerts) if path is not None]
    say(f"written: {', '.join(written)}")
    if json:
        told = [night.document() for night in found]
        answer({"surface": read.surface.name, "channel": channel, "nights": told, "written": written})


def _nights(config: "Config", nights: int, channel: str) -> "tuple[Recorded, ...]":
    """Give the nights on record, with what was written down of those that were pruned.

    Raises:
        UsageError: If there is none.
    """
    from artifacts.errors import UsageError
    from nightrec.dashboards import of_channel
    from release.metrics import read_json_lines
    from release.nights import recorded_nights

    path, surface = config.metrics.jsonl, config.surface.name
    told = read_json_lines(of_channel(path, channel), surface=surface, channel=channel) if path else ()
    found = recorded_nights(config.root, nights=nights, channel=channel, told=told)
    if not found:
        raise UsageError(f"{config.surface.root}: there is no night yet; run `nightrec run` first")
    return found


def _rows(nights: "Sequence[Recorded]") -> "Iterator[Sequence[object]]":
    for night in nights:
        counts = (int(night.figures[name]) if name in night.figures else None for name in ("users", "items", "rows"))
        seconds = round(night.seconds) if night.steps else None
        says = ", ".join(verdict.name for verdict in (*night.failed, *night.warned)) or night.problem
        yield night.date, str(night.outcome), *counts, seconds, says


def _alerts(config: "Config") -> str:
    from release.alerts import alert_rules
    from release.gates import configured_gates

    return alert_rules(configured_gates(config.gates))


def _page(config: "Config", channel: str, nights: "Sequence[Recorded]") -> str:
    from release.gates import configured_gates
    from release.trend import trend_page

    return trend_page(nights, configured_gates(config.gates), surface=config.surface.name, channel=channel)
