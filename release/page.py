"""Pages for people: one HTML file with its charts, that asks no network for anything and reads without a script too.

Every text is escaped, whoever wrote it. Charts are Vega-Lite; its script, ``vega.js``, is what ``make vega`` takes from
a pinned vl-convert-python, and stands in the page once.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

_MOST_PRINTED = 100  # rows of a table

Kind = Literal["good", "warn", "bad", "none"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A word in a coloured field, such as a gate's verdict.

    Attributes:
        text: The word; it says all that the colour says.
        kind: Its colour.
    """

    text: str
    kind: Kind


Cell = str | int | float | Mark | None  # None: there is no such number


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of numbers and words.

    Attributes:
        columns: Their names.
        rows: As many cells each; floats are shown with four significant digits.
        caption: What they are.
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture of numbers, with what it shows in words and as a table.

    Attributes:
        title: Of what.
        says: The text alternative: what is to be seen in it.
        spec: Vega-Lite, its data as values within it; without a width it is as wide as the page.
        table: The same numbers.
    """

    title: str
    says: str
    spec: dict[str, Any]
    table: Table


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence that stands out."""

    text: str
    kind: Kind = "none"


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and what they are."""

    pairs: Sequence[tuple[str, Cell]]


@dataclass(frozen=True, slots=True)
class Folded:
    """What is shown when it is asked for.

    Attributes:
        title: Of what.
        parts: What is shown then.
    """

    title: str
    parts: "Sequence[Part]"


@dataclass(frozen=True, slots=True)
class Code:
    """Lines that are shown as they are."""

    text: str


@dataclass(frozen=True, slots=True)
class Heading:
    """The name of what follows within a section."""

    text: str


Part = str | Chart | Table | Note | Facts | Folded | Code | Heading  # a bare text is a paragraph


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page with a heading, to which its table of contents leads."""

    heading: str
    parts: Sequence[Part]


def page(title: str, lead: str, sections: Sequence[Section], *, verdict: Note | None = None) -> str:
    """Write a page: one HTML document; the same arguments give the same text.

    Args:
        title: Its name.
        lead: One sentence below it.
        sections: In order.
        verdict: What is to be seen first.
    """
    writer = _Writer()
    body = "".join(writer.section(number, section) for number, section in enumerate(sections))
    contents = "".join(
        f'<li><a href="#s{number}">{escape(section.heading)}</a></li>' for number, section in enumerate(sections)
    )
    first = _verdict(verdict) if verdict else ""
    scripts = [_asset("vega.js"), _asset("page.js")] if writer.charts else []
    allowed = " ".join(_digest(script) for script in scripts) or "'none'"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; form-action 'none'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1><p>{escape(lead)}</p>{first}</header>\n"
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>\n<main>\n{body}</main>\n'
        + "".join(f"<script>{script}</script>\n" for script in scripts)
        + "</body>\n</html>\n"
    )


def section(heading: str, make: Callable[[], Sequence[Part]], troubles: list[str]) -> Section:
    """Make a section; what cannot be made says so in its place, and in a line that is added to *troubles*."""
    try:
        return Section(heading, make())
    except Exception as error:  # whatever it is: a night is worth more than a picture of it
        said = f"{type(error).__name__}: {error}"
        troubles.append(f"{heading}: {said}")
        return Section(heading, [Note(f"This part could not be made: {said}", "warn")])


def told(text: str, note: Note) -> str:
    """Put *note* below the verdict of a page that was written before there was this to tell."""
    return text.replace("</header>", f"{_verdict(note)}</header>", 1)


def _verdict(note: Note) -> str:
    return f'<p class="note verdict {note.kind}">{escape(note.text)}</p>'


class _Writer:
    """Writes parts, and counts the charts, whose data need a name."""

    def __init__(self) -> None:
        self.charts = 0

    def section(self, number: int, section: Section) -> str:
        body = "".join(self.part(part) for part in section.parts)
        heading = f'<h2 id="h{number}">{escape(section.heading)}</h2>'
        return f'<section id="s{number}" aria-labelledby="h{number}">{heading}\n{body}</section>\n'

    def part(self, part: Part) -> str:
        match part:
            case Chart():
                written = self.chart(part)
            case Folded():
                body = "".join(self.part(inner) for inner in part.parts)
                written = f"<details><summary>{escape(part.title)}</summary>\n{body}</details>"
            case Table():
                written = _table(part, part.caption or ", ".join(part.columns))
            case Facts():
                pairs = "".join(f"<dt>{escape(name)}</dt><dd>{_shown(value)}</dd>" for name, value in part.pairs)
                written = f"<dl>{pairs}</dl>"
            case Note():
                written = f'<p class="note {part.kind}">{escape(part.text)}</p>'
            case Code():
                written = f'<pre tabindex="0">{escape(part.text)}</pre>'
            case Heading():
                written = f"<h3>{escape(part.text)}</h3>"
            case str():
                written = f"<p>{escape(part)}</p>"
        return f"{written}\n"

    def chart(self, chart: Chart) -> str:
        self.charts += 1
        name, says = f"c{self.charts}", escape(chart.says)
        spec = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}, **chart.spec}
        data = json.dumps(spec, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
        return (
            f'<figure><figcaption>{escape(chart.title)}</figcaption><p class="says">{says}</p>'
            f'<div class="chart" role="img" aria-label="{says}" data-chart="{name}"></div>'
            f'<script type="application/json" id="{name}">{data}</script>\n'
            f"<details{_length(chart.table)}><summary>The same as a table</summary>\n"
            f"{_table(chart.table, chart.title)}</details></figure>"
        )


def _length(table: Table) -> str:
    """Mark what is too long for paper: it is not unfolded there."""
    return ' class="long"' if len(table.rows) > _MOST_PRINTED else ""


def _table(table: Table, label: str) -> str:
    kinds = [_kind_of([row[place] for row in table.rows]) for place in range(len(table.columns))]
    classes = [f' class="{kind}"' if kind else "" for kind in kinds]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(table.columns, classes, strict=True)
    )
    rows = "".join(
        "<tr>" + "".join(f"<td{kind}>{_shown(cell)}</td>" for cell, kind in zip(row, classes, strict=True)) + "</tr>\n"
        for row in table.rows
    )
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}"><table>{caption}'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
    )


def _kind_of(cells: Sequence[Cell]) -> str:
    """Say how a column is set: numbers to the right, short words unbroken, prose not too narrow."""
    there = [cell for cell in cells if cell is not None]
    if there and all(isinstance(cell, int | float) for cell in there):
        return "number"
    words = [cell.text if isinstance(cell, Mark) else str(cell) for cell in there]
    if all(len(word) <= 28 and " " not in word for word in words):
        return "name"
    return "prose" if any(len(word) > 100 for word in words) else ""


def _shown(cell: Cell) -> str:
    match cell:
        case None:
            return "-"
        case Mark():
            return f'<span class="mark {cell.kind}">{escape(cell.text)}</span>'
        case int():
            return f"{cell:,}"
        case float():
            return shown_number(cell)
        case _:
            return escape(cell)


def shown_number(number: float) -> str:
    """Show a number with four significant digits, as people write it."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def _asset(name: str) -> str:
    """Read a file beside this module; nothing in it may end the element that it is put into."""
    return Path(__file__).with_name(name).read_text("utf-8")


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
