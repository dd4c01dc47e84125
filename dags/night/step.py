"""A step of the night as a task of Airflow: and what its exit code means there."""

import json
import os
import shlex
import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from airflow.sdk import Asset, AssetAlias, BaseOperator
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowTaskTimeout,
)

from night.command import Command
from night.settings import MAPPED_STEPS, Surface, said
from night.told import tell_failure, tell_release

LIMIT = 1_000  # bytes of an XCom
_NOT_YET = 5
_NOT_RETRIED = {
    2: "wrong usage or config",
    3: "refused",
    4: "the input is wrong, or someone else published meanwhile",
}


class Step(BaseOperator):
    """Runs ``nightrec`` in a process on the worker."""

    template_fields = ("arguments",)

    def __init__(self, *, arguments: list[str], command: list[str], wait_seconds: int, **options: Any) -> None:
        """Take the arguments, the command that they are for, and how long to wait for a day that is not there."""
        super().__init__(**options)
        self.arguments = arguments
        self.command = command
        self.wait_seconds = wait_seconds
        self._running: Command | None = None

    def execute(self, context: Any) -> dict[str, Any]:
        """Run it; its standard error is the task's log, and its answer the task's XCom."""
        line = [*self.command, *said(self.arguments)]
        self.log.info("$ %s", shlex.join(line))
        self._running = Command(line, os.environ)
        try:
            with in_time(self, self.arguments[0]):
                code, output = self._running.run(partial(self.log.info, "%s"))
        except OSError as error:
            if error.filename != self.command[0]:
                raise
            said_by = f"NIGHTREC_COMMAND: expected a command of this worker, found {self.command[0]!r}"
            raise AirflowFailException(f"{said_by} ({error.strerror})") from error
        return settle(context, self.arguments[0], code, output, self.wait_seconds)

    def on_kill(self) -> None:
        """Pass on that the task is to stop."""
        if self._running is not None:
            self._running.stop()


def step(verb: str, surface: Surface) -> Any:
    """Make the task of a step, or, for a step that is mapped over groups of shards, its tasks."""
    lines = surface.lines(verb)
    if verb in MAPPED_STEPS:
        operator, given = _operator(verb, surface)
        in_flight = surface.numbers["IN_FLIGHT"]
        return operator.partial(task_id=verb, max_active_tis_per_dagrun=in_flight, **given).expand(arguments=lines)
    if verb == "publish":
        released = partial(tell_release, surface)
        return call(verb, lines[0], surface, outlets=[AssetAlias(surface.dag_id)], on_success_callback=released)
    return call(verb, lines[0], surface)


def call(task_id: str, arguments: list[str], surface: Surface, **options: Any) -> Any:
    """Make a task that calls ``nightrec`` with *arguments*, which are templates, where the surface's steps run."""
    operator, given = _operator(task_id, surface)
    return operator(task_id=task_id, arguments=arguments, **given, **options)


def _operator(verb: str, surface: Surface) -> tuple[Any, dict[str, Any]]:
    """Choose the operator that runs a step where the settings say; a provider is imported only if it is asked for."""
    given = {
        "wait_seconds": surface.numbers["WAIT_SECONDS"],
        "pool": surface.pool(verb),
        "retries": surface.numbers["RETRIES"],
        "retry_delay": timedelta(seconds=surface.numbers["RETRY_SECONDS"]),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(hours=1),
        "execution_timeout": timedelta(seconds=surface.numbers["TIMEOUT_SECONDS"]),
        "on_failure_callback": partial(tell_failure, surface),
    }
    if surface.texts["WHERE"] == "docker":
        from night.container import DockerStep, container

        return DockerStep, {**given, **container(verb, surface)}
    if surface.texts["WHERE"] == "kubernetes":
        from night.pod import PodStep, pod

        return PodStep, {**given, **pod(verb, surface)}
    return Step, {**given, "command": shlex.split(surface.texts["COMMAND"])}


@contextmanager
def in_time(task: Any, verb: str) -> Iterator[None]:
    """End what a task runs when Airflow says that its time is over, and say which setting that was.

    Raises:
        AirflowException: It may be tried again.
    """
    try:
        yield
    except AirflowTaskTimeout as error:
        task.on_kill()
        seconds = f"{task.execution_timeout.total_seconds():g} s (NIGHTREC_TIMEOUT_SECONDS)"
        raise AirflowException(
            f"nightrec {verb} was stopped, since it was not done within {seconds}; it may be tried again and goes on "
            "where it stopped"
        ) from error


def settle(context: Any, verb: str, code: int, output: str, wait_seconds: int) -> dict[str, Any]:
    """Turn the end of a command into what Airflow is to do.

    Returns:
        Its answer, the task's XCom.

    Raises:
        AirflowRescheduleException: If the day's input is not there yet: tried later, and no slot is held meanwhile.
        AirflowFailException: If another try changes nothing.
        AirflowException: If it may be tried again.
    """
    answer = answer_of(output)
    if code == 0:
        if answer is None:
            raise AirflowException(f"nightrec {verb} ended well, but without its one line of JSON")
        if answer.get("current"):
            _say_released(context, answer)
        return answer
    if code == _NOT_YET:
        raise AirflowRescheduleException(datetime.now(UTC) + timedelta(seconds=wait_seconds))
    if answer is not None:
        context["ti"].xcom_push(key="error", value=answer)
    why = "\n".join([str((answer or {}).get("error") or "it said no more"), *(answer or {}).get("refused", [])])
    if code in _NOT_RETRIED:
        raise AirflowFailException(f"nightrec {verb} ended with exit code {code}, {_NOT_RETRIED[code]}: {why}")
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    raise AirflowException(f"nightrec {verb} {how}; it may be tried again and goes on where it stopped: {why}")


def answer_of(output: str) -> dict[str, Any] | None:
    """Read the one JSON object that ends the output; of what is too long for an XCom only plain values are kept."""
    line = next((line for line in reversed(output.split("\n")) if line.startswith("{")), "")
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    if len(json.dumps(answer)) >= LIMIT:
        answer = {key: value for key, value in answer.items() if not isinstance(value, dict | list)}
    if len(json.dumps(answer)) >= LIMIT:
        answer = {key: value[:100] if isinstance(value, str) else value for key, value in answer.items()}
    return answer


def _say_released(context: Any, answer: dict[str, Any]) -> None:
    """Update the surface's asset: readers are given this release.

    It may have been said before: what moved the pointer may have died before it said so.
    """
    for alias in context["task"].outlets:
        surface = alias.name.removeprefix("nightrec_")
        extra = {"version": answer["release"], "manifest_sha256": answer["manifest_sha256"], "date": answer["date"]}
        context["outlet_events"][alias].add(asset_of(surface), extra=extra)


def asset_of(surface: str) -> Asset:
    """Name what ``publish`` updates: the release that readers of a surface are given."""
    return Asset(name=f"nightrec_{surface}_release", uri=f"nightrec://{surface}")


def asked_date(surface: Surface, known: Collection[str], dag_run: Any, params: Any) -> str:
    """Say which day a run of the DAG is for, if all that its conf says is *known*: a slip would do another night."""
    if unknown := sorted((dag_run.conf or {}).keys() - known):
        raise AirflowFailException(f"conf: expected {', '.join(known)}, found {', '.join(unknown)}; start the run anew")
    return surface.date_of(dag_run, params)


def prepared(ti: Any) -> dict[str, Any]:
    """Give what ``prepare`` answered, which all later steps go on with."""
    answer = ti.xcom_pull(task_ids="prepare")
    if not isinstance(answer, dict):
        raise AirflowFailException("the task prepare left no answer to go on with; clear it, so that it runs")
    return answer
