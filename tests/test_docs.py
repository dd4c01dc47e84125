"""What the documentation says of the code is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
MENTIONED = re.compile(r"`((?:tests|docs|examples|benchmarks|dags)/[\w/.]+)`")


@pytest.mark.parametrize(
    "page", sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")]), ids=lambda path: path.name
)
def test_every_test_and_file_that_is_named_exists(page: Path) -> None:
    """A page names no test and no file that is not there."""
    text = page.read_text("utf-8")
    missing = [
        f"{file}::{name}" for file, name in NAMED.findall(text) if f"def {name}(" not in (ROOT / file).read_text()
    ]
    missing += [name for name in MENTIONED.findall(text) if not (ROOT / name).exists()]

    assert not missing


def test_each_rule_names_its_tests() -> None:
    """All eighteen rules stand in the table, and each is held by a test."""
    rows = [line.split("|") for line in (ROOT / "docs" / "rules.md").read_text("utf-8").splitlines()]
    numbered = {int(row[1]): row[3] for row in rows if len(row) > 3 and row[1].strip().isdigit()}

    assert sorted(numbered) == list(range(1, 19))
    assert all(NAMED.search(held) for held in numbered.values())
