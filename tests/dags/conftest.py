"""Code that runs in Airflow's own environment, and what it is given there."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-airflow" / "bin" / "python"
INSIDE = Path(__file__).with_name("inside.py")

Inside = Callable[..., Any]


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """One process of Airflow's environment, with a home of its own and no database; it forks for each call."""
    if not PYTHON.exists():
        pytest.skip("there is no .venv-airflow; `make airflow` makes it")
    home = tmp_path_factory.mktemp("airflow")
    given = {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "PATH": os.environ["PATH"]}
    with (home / "log").open("w+") as log:
        process = subprocess.Popen([PYTHON, INSIDE], env=given, stdin=-1, stdout=-1, stderr=log, text=True)

        def call(what: dict[str, Any]) -> Any:
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps(what), file=process.stdin, flush=True)
            for answer in process.stdout:
                if answer.startswith('{"answer"'):
                    return json.loads(answer)["answer"]
                if answer == "null\n":
                    break
            raise AssertionError((home / "log").read_text()[-4_000:])

        with process:
            yield lambda what: call({**what, "environment": {**given, **what["environment"]}})
            process.kill()


@pytest.fixture
def inside(airflow: Callable[[dict[str, Any]], Any], tmp_path: Path) -> Inside:
    """Call a function of ``inside.py``; two configs lie in NIGHTREC_CONFIGS, and a command in PATH."""
    configs = tmp_path / "configs"
    configs.mkdir()
    for name in ("shop.toml", "feed.toml"):
        (configs / name).write_text("this is no TOML: no DAG reads it")
    given = {"NIGHTREC_CONFIGS": str(configs), "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def call(name: str, *arguments: Any, **environment: str) -> Any:
        return airflow({"name": name, "arguments": arguments, "environment": {**given, **environment}})

    return call


@pytest.fixture
def command(tmp_path: Path) -> Callable[[str], None]:
    """Put a command ``nightrec`` into PATH that does what a shell script says."""

    def write(script: str) -> None:
        file = tmp_path / "nightrec"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    return write
