"""What people and machines get to see: progress and tables on standard error, one JSON object on standard output."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

SHORT = 1_000  # bytes of a short answer, its line feed counted
_LOG_WIDTH = 100_000  # characters: a log has no width of its own
_BAR_FROM = 90  # characters of a terminal that has room for a bar beside the numbers
_FOLDED = 24  # characters that a column of long texts is not folded below while another can be left out
_READABLE = 12  # characters of a column, below which words fall apart: then each row is told line by line
_LEAST_TEXT = 40  # characters that a text is never cut below


def say(text: str) -> None:
    """Tell people a line, on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def answer(document: dict[str, Any], *, short: bool = False) -> None:
    """Give machines the one object that ``--json`` promises, on standard output, in one line.

    Args:
        document: The object.
        short: Whether it must stay under ``SHORT`` bytes, which a scheduler keeps of a task: what people were told on
            standard error is cut here, and counts that do not fit are left out, those of nothing first.
    """
    line = _line(document)
    if short:
        document = json.loads(line)
        while len(line.encode()) >= SHORT and _shorten(document, len(line.encode()) - SHORT):
            line = _line(document)
    sys.stdout.write(line)
    sys.stdout.flush()


def _line(document: dict[str, Any]) -> str:
    return json.dumps(_finite(document), ensure_ascii=False, default=str, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """Say in words what JSON has no number for: a power may be infinite, a figure of nothing is none."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def _shorten(document: dict[str, Any], excess: int) -> bool:
    """Take something away that can be missed, *excess* bytes or less; say whether there was something."""
    texts = [(table, key) for table, key in _texts(document) if len(table[key]) > _LEAST_TEXT]
    if texts:
        table, key = max(texts, key=lambda place: len(place[0][place[1]]))
        kept = max(len(table[key]) - excess // 4 - 2, _LEAST_TEXT - 1)  # a character has 4 bytes at most
        table[key] = table[key][:kept] + "…"
        return True
    for step in document.get("steps", ()):
        counts = step["counts"]
        if counts:
            step["counts"] = {name: count for name, count in counts.items() if count} if 0 in counts.values() else {}
            return True
    return bool(document.pop("run", None))  # its key and its date say where it lies


def _texts(document: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Give the places of the texts that people have been told."""
    yield from ((document, key) for key in ("error",) if key in document)
    yield from ((step, "about") for step in document.get("steps", ()))
    refused = document.get("refused", [])
    yield from ((refused, place) for place in range(len(refused)))


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, needed: int | None = None) -> None:
    """Show people a table, on standard error; numbers stand to the right, whole ones with thousands apart.

    A terminal gets a frame, and of the columns after the first *needed* only those that it is wide enough for; by
    default all are needed, and where they are not readable beside each other each row stands over several lines. A log
    gets plain lines, in which nothing is folded or left out that a search should find.
    """
    from rich.console import Console

    listed = [list(row) for row in rows]
    texts = [[_cell(value) for value in row] for row in listed]
    framed = sys.stderr.isatty()
    console = Console(stderr=True) if framed else Console(stderr=True, width=_LOG_WIDTH)
    kept = _that_fit(columns, texts, console.width, needed) if framed and needed else len(columns)
    if framed and not needed and _least_width(columns, texts, _READABLE) > console.width:
        table = _row_by_row(title, columns, texts)
    else:
        numbers = [
            bool(listed) and all(isinstance(cell, int | float | None) for cell in one)
            for one in zip(*listed, strict=True)
        ]
        table = _side_by_side(title, columns[:kept], texts, numbers, framed=framed)
    with console.capture() as captured:
        console.print(table, markup=False)
    say("\n".join(line.rstrip() for line in captured.get().splitlines()))
    if kept < len(columns):
        say(f"not shown on so narrow a terminal: {', '.join(columns[kept:])}")


def _side_by_side(
    title: str, columns: Sequence[str], texts: Sequence[Sequence[str]], numbers: Sequence[bool], *, framed: bool
) -> "Table":
    from rich.box import HEAVY_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=HEAVY_HEAD if framed else None)
    table.pad_edge = framed
    for place, name in enumerate(columns):
        number = bool(texts) and numbers[place]
        table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in texts:
        table.add_row(*(Text(text) for text in row[: len(columns)]))
    return table


def _row_by_row(title: str, columns: Sequence[str], texts: Sequence[Sequence[str]]) -> "Table":
    """Name each cell of a row beside it, one below the other; those without a word are left out."""
    from rich.box import HEAVY_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=HEAVY_HEAD, show_header=False)
    for row in texts:
        for name, text in zip(columns, row, strict=True):
            if text:
                table.add_row(Text(name), Text(text))
        table.add_section()
    return table


def _least_width(columns: Sequence[str], texts: Sequence[Sequence[str]], folded: int) -> int:
    """Count the characters of a framed table whose columns are folded to *folded* characters where they are longer."""
    from rich.cells import cell_len

    widths = [min(max(cell_len(row[place]) for row in (columns, *texts)), folded) for place in range(len(columns))]
    return sum(widths) + 3 * len(columns) + 1  # a frame, and a blank on both sides


def _that_fit(columns: Sequence[str], texts: Sequence[Sequence[str]], width: int, needed: int) -> int:
    """Say how many columns fit into *width*, of which the long ones may be folded; *needed* of them at least."""
    kept = len(columns)
    while kept > needed and _least_width(columns[:kept], texts, _FOLDED) > width:
        kept -= 1
    return kept


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)


@contextmanager
def progress(step: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show rows done, rows a second and time left while the block runs, if standard error is a terminal.

    Args:
        step: What is being done.
        total: Rows in all; None where they are not known: then there is no time left, and no rows before the first.

    Yields:
        A function that takes the number of rows done since it was called last.
    """
    if not sys.stderr.isatty():
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    of = "" if total is None else f"/{total:,}"
    columns = (
        TextColumn("{task.description:<10}"),
        *((BarColumn(),) if console.width >= _BAR_FROM else ()),
        TextColumn("{task.fields[rows]}"),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        *((TextColumn("left"), TimeRemainingColumn()) if total is not None else ()),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(step, total=total, rows=f"{0:>12}{of} rows" if of else "", speed="")

        def advance(rows: int) -> None:
            bar.advance(task, rows)
            one = bar.tasks[0]
            speed = f"{one.speed:>10,.0f} rows/s" if one.speed else ""
            bar.update(task, rows=f"{one.completed:>12,.0f}{of} rows", speed=speed)

        yield advance
