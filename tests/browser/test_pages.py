"""Our pages in a real Chromium: sound on a phone and on a desk, light and dark, readable without a script.

What they look like is kept in build/browser/, for people.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import KEPT, PAGES

pytestmark = pytest.mark.browser

CUT = """() => {
  const cut = [];
  for (const text of document.querySelectorAll(".chart svg text")) {
    const part = text.getBoundingClientRect(), whole = text.closest(".chart").getBoundingClientRect();
    const across = part.left >= whole.left - 1 && part.right <= whole.right + 1;
    const along = part.top >= whole.top - 1 && part.bottom <= whole.bottom + 1;
    const hidden = !part.width || text.getAttribute("opacity") === "0"; // a label that would lie on another
    if (!hidden && !(across && along)) cut.push("chart: " + text.textContent);
  }
  const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (words.nextNode()) {
    const owner = words.currentNode.parentElement, range = document.createRange();
    if (owner.closest(".scroll, pre, svg, script, style, details:not([open]) > :not(summary)")) continue;
    range.selectNodeContents(words.currentNode);
    const box = range.getBoundingClientRect();
    if (box.width && (box.left < -1 || box.right > innerWidth + 1)) cut.push("page: " + words.currentNode.textContent);
  }
  return cut;
}"""  # texts that stand out of their chart, or of the window where nothing scrolls


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound(name: str, width: int, scheme: str, path: Path, opened: Callable[..., Any]) -> None:
    """It asks for nothing, says nothing to the console, scrolls down only, cuts no text, and axe finds no fault."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with opened(path, width=width, scheme=scheme) as found:
        charts = found.page.locator("[data-chart]")
        expect(charts.locator("svg")).to_have_count(charts.count())
        found.page.screenshot(path=KEPT / f"{name}-{width}-{scheme}.png", full_page=True)
        faults = Axe().run(found.page).response["violations"]
        found.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        wide = found.page.evaluate("document.documentElement.scrollWidth")

        assert (found.said, found.asked) == ([], [])
        assert wide <= width
        assert found.page.evaluate(CUT) == []
        assert [
            (one["id"], one["nodes"][0]["html"]) for one in faults if one["impact"] in {"serious", "critical"}
        ] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_reads_without_a_script(name: str, path: Path, opened: Callable[..., Any]) -> None:
    """The verdict and the tables are there, and what is folded opens, where scripts are forbidden."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with opened(path, width=375, script=False) as found:
        page = found.page
        page.screenshot(path=KEPT / f"{name}-375-no-script.png", full_page=True)

        expect(page.locator(".verdict")).to_be_visible()
        expect(page.locator("main section h2").first).to_be_visible()
        unfolded = page.locator("table:not(details table)")
        assert unfolded.count() > 0
        for place in range(unfolded.count()):
            expect(unfolded.nth(place)).to_be_visible()
        for folded in page.locator("main > section > figure > details").all()[:1]:  # the refusal's page folds nothing
            expect(folded.locator("table")).not_to_be_visible()
            folded.locator("summary").click()
            expect(folded.locator("table")).to_be_visible()
        assert page.locator("[data-chart] svg").count() == 0


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_printed_with_all_its_tables(name: str, path: Path, opened: Callable[..., Any]) -> None:
    """On paper it is light, whatever the screen is, and nothing is folded."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with opened(path, scheme="dark") as found:
        found.page.emulate_media(media="print")
        found.page.pdf(path=KEPT / f"{name}.pdf", format="A4")
        background = found.page.evaluate("getComputedStyle(document.body).backgroundColor")

        assert background == "rgb(255, 255, 255)"
        expect(found.page.locator("details table, table").first).to_be_visible()
