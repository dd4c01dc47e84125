"""Pages: whatever texts they hold, the same text comes out, nothing of it is markup, and nothing asks a network."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import vl_convert

from release import page as page_module
from release.page import Chart, Code, Facts, Folded, Heading, Mark, Note, Section, Table, page, shown_number

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)> & \"'"
DATA = [{"name": EVIL, "value": 1.5}, {"name": "b", "value": 2}]
SPEC = {
    "data": {"values": DATA},
    "mark": "bar",
    "encoding": {"x": {"field": "value", "type": "quantitative"}, "y": {"field": "name", "type": "nominal"}},
}
TABLE = Table((EVIL, "value"), [(EVIL, 1.5), (Mark(EVIL, "bad"), None)], EVIL)
CHART = Chart(EVIL, EVIL, SPEC, TABLE)
PARTS = (EVIL, CHART, TABLE, Note(EVIL), Facts([(EVIL, EVIL)]), Folded(EVIL, (EVIL, TABLE)), Code(EVIL), Heading(EVIL))


class Elements(HTMLParser):
    """Collects the elements of a page with their attributes, and the texts of its scripts."""

    def __init__(self, text: str) -> None:
        """Read *text* at once."""
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        (self.scripts if self.found and self.found[-1][0] == "script" else self.words).append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def written() -> str:
    return page(EVIL, EVIL, [Section(EVIL, PARTS)], verdict=Note(EVIL, "bad"))


def test_no_text_becomes_markup() -> None:
    """Whoever wrote a title or a category, it is shown and never obeyed."""
    elements = Elements(written())

    assert not elements.named("img")
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    assert len(elements.named("script")) == 3  # Vega, ours, and the data of the one chart
    assert "".join(elements.words).count("<script>alert(1)</script>") >= len(PARTS)


def test_the_data_of_a_chart_come_out_as_they_went_in() -> None:
    """What is escaped for the page is read back whole by the script."""
    (data,) = re.findall(r'<script type="application/json" id="c1">(.*?)</script>', written(), re.DOTALL)
    spec: dict[str, Any] = json.loads(data)

    assert spec["data"]["values"] == DATA
    assert spec["width"] == "container"


def test_every_chart_has_its_words_and_its_table() -> None:
    """What a chart shows can be read without seeing it and without a script."""
    elements = Elements(written())
    (picture,) = (attributes for _, attributes in elements.found if attributes.get("role") == "img")

    assert picture["aria-label"] == EVIL
    assert len(elements.named("figcaption")) == 1
    assert len(elements.named("table")) == 3  # the chart's, the open one and the folded one


def test_a_page_may_load_nothing() -> None:
    """The page's own policy forbids whatever is not in it, scripts of others too, and it links to nothing outside."""
    text = written()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    elements = Elements(text)

    assert "default-src 'none'" in unescape(policy)
    assert re.search(r"script-src 'sha256-[\w+/=]+' 'sha256-[\w+/=]+';", unescape(policy))
    assert not [
        a for name in ("src", "href") for _, a in elements.found if name in a and not str(a[name]).startswith("#")
    ]


def test_a_page_without_charts_has_no_script() -> None:
    """A page of words and tables stays small."""
    text = page("a", "b", [Section("c", (TABLE,))])

    assert not Elements(text).named("script")
    assert len(text) < 10_000


def test_the_same_page_is_the_same_text() -> None:
    """Nothing of a page comes from a clock or from chance."""
    assert written() == written()


def test_numbers_are_short() -> None:
    """Four digits say enough; thousands are grouped."""
    assert [shown_number(number) for number in (0.123456, 12.0, 1234567.8, 0.00001234)] == [
        "0.1235",
        "12",
        "1,234,568",
        "1.234e-05",
    ]


def test_the_script_of_the_charts_is_that_of_the_pinned_package() -> None:
    """``release/vega.js`` is what ``make vega`` writes, and can be put into a script element as it is."""
    script = Path(page_module.__file__).with_name("vega.js").read_text("utf-8")

    assert script == f"{vl_convert.javascript_bundle()}\n"
    assert "</script" not in script.lower()
