"""A real Chromium, and the pages that it opens: reports of a shop's nights, and the page over sixty of them."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from release.gates import GATES
from release.nights import Outcome, Recorded
from release.trend import trend_page
from tests.night.shop import Shop, run_nightrec, write_bundles, write_data
from tests.release.test_trend import REFUSED, night, verdict

KEPT = Path(__file__).parents[2] / "build" / "browser"  # what the pages look like
PAGES = ("report-published", "report-refused", "report-first", "refusal", "trend", "trend-first")
NO_BUS = "disabled:"  # Chromium asks for none then, and says nothing of it


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Start the browser that this machine has."""
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    if found is None:
        pytest.skip("neither Chromium nor Chrome is there; Debian's package chromium has it")
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=options, env={**os.environ, "DBUS_SESSION_BUS_ADDRESS": NO_BUS}
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def trends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page over sixty nights, and that of a first one alone."""
    folder = tmp_path_factory.mktemp("trends")
    for name, nights in (("trend", _sixty_nights()), ("trend-first", (night(0),))):
        (folder / f"{name}.html").write_text(trend_page(nights, GATES, surface="shop", channel="LATEST"), "utf-8")
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reports of a shop's first and second night, of its third, which was refused, and of one that never came."""
    folder = tmp_path_factory.mktemp("shop")
    shop = Shop(folder)
    write_data(shop.data)
    write_bundles(shop)
    config, store = shop.config(folder), folder / "store"
    for date in ("2026-03-29", "2026-03-30"):
        done = run_nightrec("run", "--config", config, "--date", date)
        assert done.returncode == 0, done.stderr
    first, published = sorted((store / "releases").glob("2026-03-*"))
    config.write_text(f"{config.read_text()}\n[gates]\nrecall = 1.5\nchurn = {{ bound = 0.01, action = 'warn' }}\n")
    refused = run_nightrec("run", "--config", config, "--date", "2026-03-31")
    assert refused.returncode == 3, refused.stderr
    (record,) = (store / "runs" / "2026-03-31").glob("*/record")
    config.write_text(f"{config.read_text()}\n[day]\ndeadline_hours = 1\n")
    never = run_nightrec("prepare", "--config", config, "--date", "2026-04-02")
    assert never.returncode == 3, never.stderr
    return {
        "report-first": first / "record" / "report.html",
        "report-published": published / "record" / "report.html",
        "report-refused": record / "report.html",
        "refusal": store / "runs" / "2026-04-02" / "refused.html",
    }


def _sixty_nights() -> tuple[Recorded, ...]:
    """Nights with all that can happen to one: gaps, a refused, a withdrawn, an unfinished and an unreadable one."""
    names = [name for gate in GATES for name in [gate.name, f"{gate.name}[country=de]"][: 1 + gate.by_segment]]
    figures = ("users", "users_cold", "items", "items_indexed", "rows", "rows_fallback", "events", "recall", "hit_rate")
    found = []
    for day in range(60):
        moved = 1 + day / 40 + (day * 7 % 5) / 20
        one = night(
            day,
            verdicts=tuple(verdict(name, moved * place / 400) for place, name in enumerate(names)),
            figures={name: moved * 10**place for place, name in enumerate(reversed(figures), -2)},
            size=int(moved * 1e9),
        )
        found.append(one)
    found[20] = replace(found[20], outcome=Outcome.STORED)
    found[30] = replace(REFUSED, date=found[30].date)
    found[40] = replace(found[40], outcome=Outcome.UNFINISHED, version="", verdicts=(), figures={}, size=0)
    found[45] = Recorded(
        found[45].date, Outcome.UNREADABLE, problem=f"{'a/long/path/' * 12}manifest.json: was it changed?"
    )
    return tuple(one for day, one in enumerate(found) if day not in {10, 11, 33})


@dataclass
class Opened:
    """A page that is open, and what it did.

    Attributes:
        page: Of the browser.
        said: What it told the console, and errors of its scripts.
        asked: Addresses that it asked for, but for its own.
    """

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def path(name: str, request: pytest.FixtureRequest) -> Path:
    """The page of the test's *name*; only those that are asked for are made."""
    found: dict[str, Path] = request.getfixturevalue("trends" if name.startswith("trend") else "reports")
    return found[name]


@pytest.fixture
def opened(chromium: Browser) -> Callable[..., Any]:
    """Open a file for a while, in a window of a width, a colour scheme, and with scripts allowed or not."""

    @contextmanager
    def opening(path: Path, *, width: int = 1440, scheme: Any = "light", script: bool = True) -> Iterator[Opened]:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script, offline=True
        )
        found = Opened(context.new_page())
        found.page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
        found.page.on("pageerror", lambda error: found.said.append(str(error)))
        found.page.on("request", lambda request: found.asked.append(request.url))
        found.page.goto(path.as_uri())
        found.asked.remove(path.as_uri())
        yield found
        context.close()

    return opening
