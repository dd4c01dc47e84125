"""The figures and formulas of docs/mathematics.md: drawn from the code as it is, and readable without a script."""

import re

import pytest

from docs.figures import FIGURES, FOLDER, multiplications
from docs.site import formula
from tests.blocks import ROOT, Block, blocks_of

PAGE = ROOT / "docs" / "mathematics.md"
FORMULAS = [block for block in blocks_of(PAGE) if block.language == "math"]


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_is_what_the_code_computes_now(name: str) -> None:
    """Whoever changes a formula draws its figure again: ``python -m docs.figures``."""
    assert (FOLDER / f"{name}.svg").read_text("utf-8") == FIGURES[name]()


def test_each_figure_stands_on_the_page_in_words_too() -> None:
    """All, each once, and said for who cannot see them."""
    found = re.findall(r"!\[([^\]]{40,})\]\(figures/(\w+)\.svg\)", PAGE.read_text("utf-8"))

    assert sorted(name for _, name in found) == sorted(FIGURES)
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(FIGURES)


def test_the_numbers_beside_a_figure_are_its_own() -> None:
    """Millions of multiplications at 10 and at 200 behaviours, pair by pair and shared."""
    text = PAGE.read_text("utf-8")
    told = re.search(
        r"from (\d+) million at 10 behaviours to (\d+) million at 200; shared, from (\d+) to (\d+) mil", text
    )
    counted = [multiplications(length, 100, slow=slow) for slow in (True, False) for length in (10, 200)]

    assert told is not None
    assert [int(number) for number in told.groups()] == [round(count / 1e6) for count in counted]


@pytest.mark.parametrize("block", FORMULAS, ids=lambda block: f"line {block.line}")
def test_each_formula_becomes_mathml(block: Block) -> None:
    """No command of LaTeX is left as it was written."""
    text = formula(block.text)

    assert "<math" in text
    assert "\\" not in text
    assert "&amp;" not in text
