"""What people and machines get to see: progress and tables on standard error, one JSON object on standard output."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_LOG_WIDTH = 160


def say(text: str) -> None:
    """Tell people a line, on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def answer(document: dict[str, Any]) -> None:
    """Give machines the one object that ``--json`` promises, on standard output."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Show people a table, on standard error; whole numbers stand to the right, with thousands apart."""
    from rich.console import Console
    from rich.table import Table

    listed = [list(row) for row in rows]
    # A log has no width of its own: nothing is folded there that a search should find.
    console = Console(stderr=True) if sys.stderr.isatty() else Console(stderr=True, width=_LOG_WIDTH)
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, name in enumerate(columns):
        numbers = bool(listed) and all(isinstance(row[place], int | float | None) for row in listed)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in listed:
        table.add_row(*(_cell(value) for value in row))
    console.print(table, markup=False)


def _cell(value: object) -> Any:
    from rich.text import Text

    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(f"{value:,}")
    return Text(f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value))


@contextmanager
def progress(step: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show rows done, rows a second and time left while the block runs, if standard error is a terminal.

    Args:
        step: What is being done.
        total: Rows in all; None where they are not known.

    Yields:
        A function that takes the number of rows done since it was called last.
    """
    if not sys.stderr.isatty():
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.completed:>12,.0f} rows"),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(step, total=total, speed="")

        def advance(rows: int) -> None:
            bar.advance(task, rows)
            speed = bar.tasks[0].speed
            bar.update(task, speed=f"{speed:>10,.0f} rows/s" if speed else "")

        yield advance
