"""Calling ``nightrec`` in this process, as the tests of its verbs do."""

import json
from pathlib import Path
from typing import Any

import pytest

from nightrec.main import execute

DATE = "2026-03-10"


def run(config: Path, *more: str, date: str = DATE) -> list[str]:
    return ["run", "--config", str(config), "--date", date, *more]


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = execute(arguments)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return code, err


def step(config: Path, capsys: pytest.CaptureFixture[str], verb: str, *more: str) -> Any:
    """Do one step that ends well, and give what it says to machines."""
    code = execute([verb, *run(config, "--json", *more)[1:]])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert len(out.encode()) < 1_000
    assert out.count("\n") == 1
    return json.loads(out)
