"""The README's pictures, drawn from the code: ``python -m tests.pictures`` draws the house; tests/dags has the DAG."""

import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
HOUSE = "the house, drawn from its imports"


def flowchart(lines: Iterable[str]) -> str:
    """Put the lines of a Mermaid flowchart into a block of Markdown."""
    return "\n".join(["```mermaid", *lines, "```", ""])


def drawn_in(text: str, name: str) -> str:
    """Give the picture of a *name* that stands in a text."""
    begin, end = _frame(name)
    return text.partition(begin)[2].partition(end)[0]


def draw_into_readme(name: str, picture: str) -> None:
    """Put a picture in the place of the one of the same *name*."""
    text = README.read_text("utf-8")
    begin, end = _frame(name)
    README.write_text(text.replace(begin + drawn_in(text, name) + end, begin + picture + end), "utf-8")


def _frame(name: str) -> tuple[str, str]:
    return f"<!-- {name} -->\n", f"<!-- end of {name.partition(',')[0]} -->\n"


def draw_house() -> str:
    """Draw which folder imports which, and what of others: an arrow that follows from two others is left out."""
    imports = folders_imports()
    labels = [
        f'    {folder}["<b>{folder}</b><br/>{", ".join(sorted(imported - imports.keys()))}"]'
        for folder, imported in imports.items()
    ]
    ours = {folder: imported & imports.keys() for folder, imported in imports.items()}
    arrows = [
        f"    {folder} --> {other}"
        for folder, imported in ours.items()
        for other in sorted(imported)
        if not any(other in _reached(ours, between) for between in imported - {other})
    ]
    return flowchart(["flowchart TD", *labels, *arrows])


def folders_imports() -> dict[str, set[str]]:
    """Fold the graph of all imports to folders: each with the folders and the third-party packages that it imports."""
    import grimp

    folders = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["root_packages"]
    graph = grimp.build_graph(
        *folders, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    imports: dict[str, set[str]] = {folder: set() for folder in reversed(folders)}
    for module in graph.modules:
        folder = module.partition(".")[0]
        if folder in imports:
            imports[folder] |= {name.partition(".")[0] for name in graph.find_modules_directly_imported_by(module)}
    return {folder: imported - sys.stdlib_module_names - {folder} for folder, imported in imports.items()}


def _reached(ours: Mapping[str, set[str]], folder: str) -> set[str]:
    return ours[folder].union(*(_reached(ours, other) for other in ours[folder]))


if __name__ == "__main__":
    draw_into_readme(HOUSE, draw_house())
