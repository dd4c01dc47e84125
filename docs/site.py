"""What mkdocs is told beyond mkdocs.yml: pages that are made from elsewhere, formulas and pictures without a script."""

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from docs.graph import flowchart
from docs.reference import commands_page, config_page

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\((?!https?://|#)([^)]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let fences of ``math`` and ``mermaid`` become what a browser draws by itself."""
    made = {"math": formula, "mermaid": flowchart}
    fences = [{"name": name, "class": name, "format": make} for name, make in made.items()]
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": fences}
    return config


def formula(source: str, *_: Any, **__: Any) -> str:
    """Turn LaTeX into MathML."""
    return f'<div class="math">{convert(source, display="block")}</div>'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README as the home page, and the reference."""
    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def pages() -> dict[str, str]:
    """Give the pages that lie in no file of docs/, by name."""
    return {
        "index.md": from_the_root((ROOT / "README.md").read_text("utf-8")),
        **{name: from_the_root((ROOT / name).read_text("utf-8")) for name in ("CONTRIBUTING.md", "CHANGELOG.md")},
        "reference/commands.md": commands_page(),
        "reference/config.md": config_page(),
    }


def from_the_root(text: str) -> str:
    """Turn the links of a page beside docs/ into those of a page within."""
    return _LINK.sub(lambda found: f"]({found[1].removeprefix('docs/')})", text)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links to the README to the home page."""
    return markdown.replace("](../README.md", "](index.md")
