"""The house: which folders there are, what may import what, and what is really loaded."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.pictures import HOUSE, README, draw_house, drawn_in

ROOT = Path(__file__).parents[1]
PACKAGES = ("artifacts", "features", "models", "export", "batch", "release", "nightrec")
FOLDERS = {*PACKAGES, "dags", "tests", "benchmarks", "examples", "deploy", "docs"}
FILES = {
    *("Dockerfile", "Makefile", "mkdocs.yml", "constraints.txt", "pyproject.toml"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", "NOTICE"),
}
MADE = {"build", "mutants"}  # what the Makefile's targets make; git ignores it
HEAVY = ("numpy", "pyarrow", "duckdb", "onnxruntime", "faiss", "torch", "keras", "onnx", "ray", "pydantic", "airflow")
IMPORTED_AS = {"faiss-cpu": "faiss", "faiss-gpu": "faiss", "onnxruntime-gpu": "onnxruntime"}

MODULES = sorted(path for package in (*PACKAGES, "dags") for path in (ROOT / package).rglob("*.py"))
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def loaded_by(code: str) -> set[str]:
    """Which of HEAVY a fresh interpreter has loaded after *code*."""
    report = f"\nimport sys; print('loaded', *(name for name in {HEAVY!r} if name in sys.modules))"
    finished = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    )
    return set(finished.stdout.splitlines()[-1].split()[1:])


def test_only_the_folders_of_the_design_are_at_the_top() -> None:
    """Folders and files at the top are those that the design names."""
    found = {path for path in ROOT.iterdir() if path.name[0] != "." and not path.name.endswith((".egg-info", "__"))}

    assert {path.name for path in found if path.is_dir()} - MADE <= FOLDERS
    assert {path.name for path in found if path.is_file()} <= FILES
    assert {path.name for path in found} >= {*PACKAGES, "dags", "tests", *FILES}


def test_the_import_contracts_hold() -> None:
    """What the table of the design allows is all that is imported."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)

    assert finished.returncode == 0, finished.stdout


def test_the_readme_shows_the_house_as_it_is() -> None:
    """``python -m tests.pictures`` draws it anew."""
    assert drawn_in(README.read_text("utf-8"), HOUSE) == draw_house()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_begins_by_saying_what_lives_there(path: Path) -> None:
    """The first line of a module is its docstring."""
    text = path.read_text()

    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
    assert text.startswith('"""')


def test_no_module_is_named_after_a_dependency() -> None:
    """Packages lie flat, so a module of such a name would sooner or later be imported in place of it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    names = {re.split(r"[\[=<>~ ;]", line)[0] for line in lines}
    dependencies = {IMPORTED_AS.get(name, name).replace("-", "_") for name in names} | {"airflow", "ray"}

    assert not {path for path in MODULES if path.stem in dependencies}


def test_help_loads_nothing_heavy() -> None:
    """``nightrec --help`` answers at once, since it loads the command line alone."""
    code = "from nightrec.main import execute\nassert execute(['--help']) == 0"

    assert loaded_by(code) == set()


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("artifacts.tables", {"torch", "onnxruntime", "faiss", "duckdb"}),
        ("artifacts.release", {"torch", "onnxruntime", "faiss", "duckdb"}),
        ("features.histories", {"torch", "onnxruntime", "faiss", "keras"}),
        ("features.sequences", {"torch", "onnxruntime", "faiss", "keras"}),
        ("batch.prepare", {"torch", "keras", "onnx"}),
        ("batch.items", {"torch", "keras", "onnx", "faiss"}),
        ("batch.interests", {"torch", "keras", "onnx", "faiss"}),
        ("batch.index", {"torch", "keras", "onnx"}),
        ("batch.score", {"torch", "keras", "onnx"}),
        ("release.check", {"torch", "keras", "onnx", "onnxruntime"}),
        ("release.publish", {"torch", "keras", "onnx", "onnxruntime", "faiss", "duckdb"}),
        ("release.releases", {"torch", "keras", "onnx", "onnxruntime", "faiss", "duckdb"}),
        ("release.prune", {"torch", "keras", "onnx", "onnxruntime", "faiss", "duckdb"}),
        ("release.diff", {"torch", "keras", "onnx", "onnxruntime", "faiss"}),
        ("release.revise", {"torch", "keras", "onnx", "onnxruntime", "duckdb"}),
        ("models.mind", {"onnx", "onnxruntime", "faiss"}),
        ("models.fit", {"onnx", "onnxruntime", "faiss"}),
        ("export.write", {"faiss", "ray"}),
    ],
)
def test_a_module_does_not_load_what_it_must_not(module: str, forbidden: set[str]) -> None:
    """What a fresh interpreter has really loaded, through whatever third party, is what the table allows."""
    assert not loaded_by(f"import {module}") & (forbidden | {"airflow"})


LONG = {  # what is longer than a function should be, each with the reason
    "tests/dags/test_containers.py::test_a_pod_gets_what_the_settings_say": "one pod is compared whole, in one literal",
}


def functions_of(path: Path) -> dict[str, int]:
    """Count the lines of each function of a file, without its docstring: what it says of itself makes none too long."""
    lengths = {}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            said = node.body[0] if ast.get_docstring(node) else None
            words = (said.end_lineno or 0) - said.lineno + 1 if said else 0
            lengths[f"{path.relative_to(ROOT)}::{node.name}"] = (node.end_lineno or 0) - node.lineno + 1 - words
    return lengths


def test_no_module_has_more_than_four_hundred_lines() -> None:
    """What is longer says more than one thing; tests too."""
    assert {path: lines for path in SOURCES if (lines := len(path.read_text("utf-8").splitlines())) > 400} == {}


def test_no_function_has_more_than_fifty_lines_without_a_reason() -> None:
    """What is longer does more than one thing; a reason for one that is not long any more is stale."""
    scripts = [
        path for folder in ("benchmarks", "deploy", "examples", "tests") for path in (ROOT / folder).rglob("*.py")
    ]
    lengths = {name: lines for path in [*MODULES, *scripts] for name, lines in functions_of(path).items()}

    assert {name for name, lines in lengths.items() if lines > 50} == LONG.keys()


@pytest.mark.parametrize("folder", [*PACKAGES, "dags/night"])
def test_a_folders_first_file_names_all_that_lives_there(folder: str) -> None:
    """Whoever opens a folder reads there which modules it has, and in which order to read them."""
    said = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text())) or ""
    modules = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"}

    named = set(re.findall(r"``(\w+)``", said))

    assert modules - named == set(), "say what it is for, and where to read it"
    assert named - modules <= {"forward"}
