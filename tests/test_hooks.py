"""The hooks of pre-commit: those of ``make lint``, and they stop what it would stop, without a network."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CONFIG = ".pre-commit-config.yaml"


def hooks() -> dict[str, str]:
    """Each hook's command by its id."""
    (local,) = yaml.safe_load((ROOT / CONFIG).read_text("utf-8"))["repos"]
    assert local["repo"] == "local"  # another is fetched from somewhere
    return {hook["id"]: hook["entry"] for hook in local["hooks"]}


def test_the_hooks_are_what_make_lint_asks() -> None:
    """The same tools with the same commands; neither has one that the other lacks."""
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert recipe is not None
    asked = {line.strip().removeprefix("$(BIN)/").split()[0] for line in recipe[1].splitlines()}

    assert {Path(entry.split()[0]).name for entry in hooks().values()} == asked


@pytest.mark.parametrize(
    ("hook", "name", "text", "stopped"),
    [
        ("format", "a.py", '"""A module."""\n\nx = [1,2]\n', True),
        ("lint", "a.py", '"""A module."""\n\nimport os\n', True),
        ("lint", "a.py", '"""A module."""\n\nx = [1, 2]\n', False),
        ("dockerfiles", "Dockerfile", "FROM scratch\nRUN cd /x && ls\n", True),
    ],
)
def test_a_hook_stops_a_commit(tmp_path: Path, hook: str, name: str, text: str, stopped: bool) -> None:
    """In a repository of its own, each hook looks at what is to be committed."""
    for file in (CONFIG, "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    (tmp_path / name).write_text(text)
    environment = {**os.environ, "PRE_COMMIT_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}
    for command in (["git", "init", "--quiet"], ["git", "add", CONFIG, name]):
        subprocess.run(command, check=True, cwd=tmp_path, env=environment)

    finished = subprocess.run(
        [sys.executable, "-m", "pre_commit", "run", hook, "--files", name],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )

    assert (finished.returncode == 1) == stopped, finished.stdout + finished.stderr
    assert f"hook id: {hook}" in finished.stdout or not stopped
