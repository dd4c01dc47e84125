"""The DAG, without Airflow: what it may import, which edges it draws, which date it hands on, how it ends."""

import ast
import importlib.util
import signal
import sys
import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "dags" / "nightly.py"


class FailError(Exception):
    """Stands for Airflow's exception of that name."""


class Task:
    """Stands for a task of a DAG: it notes what comes after it."""

    drawn: dict[str, set[str]]

    def __init__(self, name: str) -> None:  # noqa: D107
        self.name = name
        Task.drawn.setdefault(name, set())

    def __rshift__(self, other: "Task | list[Task]") -> "Task | list[Task]":
        for task in other if isinstance(other, list) else [other]:
            Task.drawn[self.name].add(task.name)
        return other

    def __rrshift__(self, others: "list[Task]") -> "Task":
        for task in others:
            Task.drawn[task.name].add(self.name)
        return self


class Decorated:
    """Stands for a function under ``@task``."""

    def __init__(self, function: Callable[..., Any], name: str = "") -> None:  # noqa: D107
        self.function, self.name = function, name

    def override(self, *, task_id: str) -> "Decorated":
        return Decorated(self.function, task_id)

    def __call__(self, verb: str) -> Task:
        assert verb == self.name
        return Task(self.name)


@pytest.fixture
def nightly(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, loaded with stand-ins for the few names of Airflow that it uses."""
    before = signal.getsignal(signal.SIGTERM)
    Task.drawn = {}
    sdk = types.ModuleType("airflow.sdk")
    sdk.Param = lambda default, **schema: default  # type: ignore[attr-defined]
    sdk.task = Decorated  # type: ignore[attr-defined]
    sdk.dag = lambda **options: lambda function: function  # type: ignore[attr-defined]
    exceptions = types.ModuleType("airflow.sdk.exceptions")
    exceptions.AirflowFailException = FailError  # type: ignore[attr-defined]
    for name, module in (
        ("airflow", types.ModuleType("airflow")),
        ("airflow.sdk", sdk),
        ("airflow.sdk.exceptions", exceptions),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("nightly_under_test", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    signal.signal(signal.SIGTERM, before)


def test_it_imports_the_standard_library_and_the_task_sdk_alone() -> None:
    """A DAG file is parsed every few seconds, in an environment that has neither our packages nor theirs."""
    tree = ast.parse(FILE.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    strangers = {
        name for name in names if name.split(".")[0] not in sys.stdlib_module_names and name[:11] != "airflow.sdk"
    }

    assert strangers == set()


def test_it_never_asks_for_the_present() -> None:
    """The data date is explicit: no clock is read anywhere in the file."""
    calls = {
        node.func.attr
        for node in ast.walk(ast.parse(FILE.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }

    assert not calls & {"now", "utcnow", "today", "time"}


def test_the_edges_are_those_of_the_design(nightly: Any) -> None:
    """Items and interests wait for prepare alone; score waits for index and interests."""
    assert Task.drawn == {
        "prepare": {"items", "interests"},
        "items": {"index"},
        "index": {"score"},
        "interests": {"score"},
        "score": {"check"},
        "check": {"publish"},
        "publish": set(),
    }


def test_the_data_date_is_the_one_asked_for(nightly: Any) -> None:
    """A run that was triggered with a date needs no logical date."""
    assert nightly.data_date({"date": "2026-11-25"}, None) == "2026-11-25"


def test_the_data_date_is_else_the_day_before_the_logical_date(nightly: Any) -> None:
    """The logical date is read in UTC, whatever its zone."""
    early = datetime(2026, 11, 26, 1, tzinfo=timezone(timedelta(hours=2)))

    assert nightly.data_date({"date": None}, datetime(2026, 11, 26, 3, tzinfo=UTC)) == "2026-11-25"
    assert nightly.data_date({"date": None}, early) == "2026-11-24"


def test_a_run_with_neither_is_refused(nightly: Any) -> None:
    """Without a date and a logical date there is nothing to guess from."""
    with pytest.raises(FailError, match="YYYY-MM-DD"):
        nightly.data_date({"date": None}, None)


@pytest.mark.parametrize(
    ("code", "raised"),
    [(1, RuntimeError), (5, RuntimeError), (2, FailError), (3, FailError), (4, FailError)],
)
def test_the_exit_code_decides_whether_it_is_tried_again(
    nightly: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, raised: type[Exception]
) -> None:
    """Codes 1 and 5 may pass with time; wrong usage, a refusal and wrong input do not."""
    command = tmp_path / "nightrec"
    command.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\nexit {code}\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(raised, match=f"exit code {code}"):
        nightly.call("items", {"params": {"config": "job.toml", "date": "2026-11-25"}})

    assert (tmp_path / "said").read_text() == "items --config job.toml --date 2026-11-25\n"
