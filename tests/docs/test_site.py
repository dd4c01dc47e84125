"""The site: it is built without a warning, asks no network, and its reference has all that the code has."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.reference import commands_page, config_page
from docs.site import from_the_root
from nightrec.keys import known_keys, network_keys
from tests.blocks import ROOT

FETCHED = re.compile(r"""<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=["']?([^"'\s>]+)""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it, as ``make docs`` does."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return folder


def test_no_page_asks_the_network_for_anything(site: Path) -> None:
    """Scripts, styles, fonts and pictures all lie in the site."""
    pages = list(site.rglob("*.html"))
    for page in pages:
        fetched = FETCHED.findall(page.read_text("utf-8"))
        assert len(fetched) > 3
        assert [found for found in fetched if re.match(r"(https?:)?//", found)] == [], page.name
    assert len(pages) > len(list((ROOT / "docs").glob("*.md")))


def test_the_home_page_is_the_readme(site: Path) -> None:
    """Its headings stand there, its links lead to pages of the site, and its pictures are drawn without a script."""
    home = (site / "index.html").read_text("utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    headings = re.findall(r"^## (.*)$", readme, re.MULTILINE)

    assert home.count('<svg class="flowchart"') == readme.count("```mermaid\n") == 2
    assert headings
    assert all(heading in home for heading in headings)
    assert (
        from_the_root("[a](docs/b.md#c) [d](https://e.f/docs/g) [h](#i)")
        == "[a](b.md#c) [d](https://e.f/docs/g) [h](#i)"
    )


def test_the_reference_has_every_verb_and_option() -> None:
    """Among them one of a group, one with arguments, and an option with its default."""
    page = commands_page()

    assert {"## nightrec run", "## nightrec releases rollback", "## nightrec fit"} <= set(page.splitlines())
    assert "`nightrec recommend USER`" in page
    assert "| `--channel` | `str` | `LATEST` |" in page


def test_the_reference_has_every_key() -> None:
    """Each stands in the table that it belongs to, with its meaning."""
    page = config_page()
    sections = {part.partition("\n")[0]: part for part in page.split("\n## ")[1:]}
    paths = [key.path for key in (*known_keys(), *network_keys()) if "." in key.path]

    assert len(paths) > 100
    for path in paths:
        table, _, name = path.rpartition(".")
        assert f"| `{name}` |" in sections[table]
