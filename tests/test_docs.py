"""What the documentation says of the code is there."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from nightrec.config import Config
from nightrec.rates import Prices, Rates, read_rates
from release.gates import configured_gates
from tests.blocks import PAGES, ROOT, RUNS, Block, blocks_for, blocks_of, commands_in

PAGE_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
CHECKED = {"toml", "json"}
OUTPUT = {"text", "math", "mermaid"}
WHOLE = {
    "surface": {"name": "shop", "root": "store"},
    "inputs": {
        "interactions": {"path": "interactions.parquet"},
        "items": {"path": "items.parquet", "features": {"category": "category"}},
        "users": {"path": "users.parquet", "features": {"country": "country", "device": "device"}},
    },
}
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
MENTIONED = re.compile(r"`((?:tests|docs|examples|benchmarks|dags)/[\w/.]+)`")


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
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


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    """No command and no code stands on a page that no test runs, but for a reason that stands there too."""
    strangers = []
    for block in blocks_of(page):
        where = f"{block.page}:{block.line}"
        assert block.language in CHECKED | OUTPUT | {"sh", "python"}, f"{where}: what is {block.language!r}?"
        if block.language not in {"sh", "python"}:
            continue
        assert block.mark, f"{where}: say by which test it is run, or why it is only shown"
        assert all((ROOT / test).exists() for test in block.tests), where
        if block.mark == "run" and block.language == "sh":
            programs = set.union(*(RUNS[test] for test in block.tests))
            strangers += [one.line for one in commands_in(block) if one.words[0] not in programs and not one.shown]

    assert not strangers


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_no_command_hides_in_what_is_only_output(page: Path) -> None:
    """A block of text holds no line that begins with one of our commands; and no block is indented out of sight."""
    text = page.read_text("utf-8")
    lines = [line for block in blocks_of(page) if block.language in OUTPUT for line in block.text.splitlines()]

    assert [line for line in lines if line.split(" ")[0] in {"nightrec", "make", "python", "airflow", "docker"}] == []
    assert text.count("```") == 2 * len(blocks_of(page))


@pytest.mark.parametrize("test", RUNS)
def test_a_test_that_runs_a_page_takes_its_commands_from_there(test: str) -> None:
    """What is marked with the name of a test is what that test is given."""
    assert re.search(r"(blocks_for|commands_of)\(__file__\)", (ROOT / test).read_text("utf-8"))
    assert blocks_for(str(ROOT / test))


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def _of(language: str) -> list[Any]:
    return [pytest.param(one, id=f"{one.page}:{one.line}") for one in BLOCKS if one.language == language]


@pytest.mark.parametrize("block", _of("toml"))
def test_each_toml_block_is_a_config_or_a_part_of_one(block: Block, tmp_path: Path) -> None:
    """Beside the few keys that every config has, it is taken as it stands; a model's spec is one of the examples'.

    What a plan assumes is read as the plan reads it.
    """
    said = tomllib.loads(block.text)
    if "gpu_pairs" in said:
        (tmp_path / "rates.toml").write_text(block.text)
        assert read_rates(tmp_path / "rates.toml") != (Rates(), Prices())
        return
    if "item_features" in said:
        assert any(block.text in spec.read_text() for spec in (ROOT / "examples" / "own").glob("*.toml"))
        return
    config = Config.model_validate(WHOLE | said, context={"folder": ROOT})

    configured_gates(config.gates)


@pytest.mark.parametrize("block", _of("json"))
def test_each_json_block_is_json(block: Block) -> None:
    """It can be read, and holds something."""
    assert json.loads(block.text)


def test_each_target_of_make_is_one() -> None:
    """What the pages tell to make can be made."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    told = {
        command.words[1]
        for block in BLOCKS
        if block.language == "sh"
        for command in commands_in(block)
        if command.words[0] == "make"
    }
    told |= {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)", page.read_text("utf-8"))}

    assert told
    assert told <= targets


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_each_outside_link_has_the_form_of_one(page: Path) -> None:
    """Scheme, host and no blanks; whether it answers is not asked, since CI may have no network."""
    links = re.findall(r"(?:\]\(|<)(https?:[^)>]*)[)>]", page.read_text("utf-8"))

    assert [link for link in links if not re.fullmatch(r"https://[\w.-]+\.[a-z]+(/[^\s()]*)?", link)] == []
