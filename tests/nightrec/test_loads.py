"""What each verb really loads, in an interpreter of its own, while it does its work."""

import subprocess
import sys
from pathlib import Path

import pytest

DATE = "2026-03-10"
TRAINING = {"torch", "keras", "onnx", "onnxscript"}
HEAVY = (*TRAINING, "onnxruntime", "faiss", "duckdb", "ray", "airflow")

VERBS: list[tuple[list[str], set[str]]] = [
    (["plan"], {"duckdb"}),
    (["prepare", "--date", DATE], {"duckdb"}),
    (["items", "--date", DATE], {"onnxruntime", "duckdb"}),
    (["index", "--date", DATE], {"onnxruntime", "faiss", "duckdb"}),
    (["interests", "--date", DATE], {"onnxruntime", "duckdb"}),
    (["score", "--date", DATE], {"onnxruntime", "faiss", "duckdb"}),
    (["check", "--date", DATE], {"duckdb", "faiss"}),  # its report shows how full the lists of the index are
    (["publish", "--date", DATE], set()),
    (["releases", "list"], set()),
    (["releases", "show"], set()),
    (["releases", "verify"], set()),
    (["recommend", "3"], {"duckdb"}),
]


def test_a_verb_loads_what_it_needs_and_no_more(surface: Path) -> None:
    """The night never loads torch, publishing loads no runtime, looking at releases loads no engine."""
    for arguments, allowed in VERBS:
        code = (
            "import sys\nfrom nightrec.main import execute\n"
            f"code = execute({[*arguments, '--config', str(surface)]!r})\n"
            f"print('loaded', *(name for name in {HEAVY!r} if name in sys.modules))\nsys.exit(code)"
        )
        finished = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
        )

        assert finished.returncode == 0, finished.stderr
        loaded = set(finished.stdout.splitlines()[-1].split()[1:])
        assert loaded <= allowed, f"nightrec {arguments[0]} loads {sorted(loaded - allowed)}"


@pytest.mark.parametrize("verb", ["fit", "export"])
def test_help_of_training_loads_no_torch(verb: str) -> None:
    """Who only asks what a verb does waits for no library."""
    code = (
        "import sys\nfrom nightrec.main import execute\n"
        f"execute([{verb!r}, '--help'])\nsys.exit(bool(set({HEAVY!r}) & sys.modules.keys()))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0
