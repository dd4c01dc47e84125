"""The command ``nightrec``: which verbs there are, and how each of them may end."""

import os
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer

from artifacts.errors import NightrecError, RefusedError, UsageError, trouble_of
from nightrec import (
    config_verbs,
    doctor,
    evaluate,
    export,
    fit,
    init,
    night,
    plan,
    recommend,
    releases,
    report,
    trend,
    why,
)
from nightrec.stopping import Stopped, catch_signals, stopping_as_itself
from nightrec.terminal import answer, say

_GROUPS: dict[str, dict[str, Callable[..., int | None]]] = {
    "To begin with": {"init": init.init},
    "Models": {"fit": fit.fit, "export": export.export},
    "The night": {"run": night.run},
    "One step of it": {
        "prepare": night.prepare,
        "items": night.items,
        "index": night.index,
        "interests": night.interests,
        "score": night.score,
        "check": night.check,
        "publish": night.publish,
    },
    "Looking": {
        "recommend": recommend.recommend,
        "why": why.why,
        "report": report.report,
        "evaluate": evaluate.evaluate,
        "plan": plan.plan,
        "trend": trend.trend,
        "doctor": doctor.doctor,
    },
}
_EXTRAS = {
    "torch": "train",
    "keras": "train",
    "onnx": "train",
    "onnxscript": "train",
    "onnxruntime": "cpu",
    "faiss": "cpu",
    "ray": "ray",
}
_NOT_SAID = threading.Lock()  # taken by whoever says that this process was stopped
_REASONS = 3  # gates that an answer names; standard error and the record have all


def make_app() -> typer.Typer:
    """Put the verbs together."""
    app = typer.Typer(
        name="nightrec",
        help="The nightly job of a two-stage recommender: trained models in, one verified release out.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for group, verbs in _GROUPS.items():
        for name, verb in verbs.items():
            app.command(name, rich_help_panel=group)(verb)
    app.add_typer(config_verbs.app, name="config", rich_help_panel="Looking")
    app.add_typer(releases.app, name="releases", rich_help_panel="Looking")
    return app


def _version(asked: bool) -> None:
    """Say which version this is, and end."""
    if asked:
        from importlib.metadata import version

        typer.echo(f"nightrec {version('nightrec')}")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")] = False,
) -> None:
    """Take what stands before the verb."""


def main() -> NoReturn:
    """Run the command line, and end with its exit code."""
    arguments = sys.argv[1:]
    catch_signals(signal.SIGINT, signal.SIGTERM, farewell=lambda number: _say_stopped(arguments, number, " by force"))
    sys.exit(execute(arguments))


def execute(arguments: Sequence[str]) -> int:
    """Run one command; every way to end is one message at most, and an exit code of the table in the README."""
    try:
        return _invoke(arguments)
    except NightrecError as error:
        return _fail(arguments, error)
    except Stopped as stop:
        _say_stopped(arguments, stop.number)
        return 128 + stop.number
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # the one place that may catch anything
        trouble = trouble_of(error)
        return _fail(arguments, trouble) if trouble else _fail_unexpected(arguments, error)


def _invoke(arguments: Sequence[str]) -> int:
    try:
        with stopping_as_itself():
            code = make_app()(args=list(arguments), prog_name="nightrec", standalone_mode=False)
    except typer.TyperException as error:
        raise UsageError(_usage(error)) from error
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        extra = _EXTRAS[error.name]
        raise UsageError(f"this verb needs {error.name}: pip install 'nightrec[{extra}]'") from error
    return code if isinstance(code, int) else 0


def _usage(error: typer.TyperException) -> str:
    message = error.format_message().strip().rstrip(".").replace("Value error, ", "")
    context: Any = getattr(error, "ctx", None)
    if not message or context is None:
        return message  # without a message, the help was asked for by saying nothing
    return f"{message}{'' if message.endswith('?') else ';'} see {context.command_path} --help"


def _say_stopped(arguments: Sequence[str], number: int, how: str = "") -> None:
    """Say once why this process ends, and how to go on."""
    if not _NOT_SAID.acquire(blocking=False):
        return
    said = f"stopped by {signal.Signals(number).name}{how}; what is finished stays"
    say(f"nightrec: {said}. To go on: {shlex.join(['nightrec', *arguments])}")
    if "--json" in arguments:
        answer({"error": said, "kind": Stopped.__name__, "exit_code": 128 + number})


def _fail(arguments: Sequence[str], error: NightrecError) -> int:
    if str(error):
        say(f"nightrec: {error}")
    document = {"error": str(error), "kind": type(error).__name__, "exit_code": error.exit_code}
    if isinstance(error, RefusedError) and error.reasons:
        document |= {"error": str(error).partition("\n")[0], "refused": error.reasons[:_REASONS]}
    if "--json" in arguments:
        answer(document, short=True)
    return error.exit_code


def _fail_unexpected(arguments: Sequence[str], error: Exception) -> int:
    text = "".join(traceback.format_exception(error))
    if "--debug" in arguments:
        say(text)
        where = "its traceback stands above"
    else:
        try:
            with tempfile.NamedTemporaryFile("w", prefix="nightrec-", suffix=".txt", delete=False) as file:
                file.write(text)
            where = f"its traceback lies in {file.name}"
        except OSError as trouble:
            where = f"its traceback could not be kept: {trouble.strerror}; --debug shows it"
    words = " ".join(str(error).split())
    return _fail(arguments, NightrecError(f"unexpected {type(error).__name__}: {words[:300]} ({where})"))


if __name__ == "__main__":
    main()
