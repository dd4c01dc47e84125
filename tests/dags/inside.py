"""Functions that run in Airflow's own environment: calls on standard input, or one in the arguments; JSON out."""

import json
import logging
import os
import runpy
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

DAGS = Path(__file__).parents[2] / "dags"
NOW = datetime(2026, 11, 26, 1, tzinfo=UTC)


def parsed(file: str) -> dict[str, Any]:
    """Run a DAG file as Airflow does, and give its DAGs by id."""
    from airflow.sdk import DAG

    made = []
    remember = DAG.__enter__
    DAG.__enter__ = lambda dag: made.append(dag) or remember(dag)
    sys.path.append(str(DAGS))
    runpy.run_path(str(DAGS / file))
    DAG.__enter__ = remember
    return {dag.dag_id: dag for dag in made}


def parse(file: str) -> dict[str, Any]:
    """Say what a DAG file touches and loads while it is parsed; Airflow itself is loaded before."""
    from airflow.sdk import DAG, Asset, AssetAlias, BaseOperator, CronDataIntervalTimetable, Param, Variable

    DAG("warm", schedule=CronDataIntervalTimetable("0 2 * * *", "UTC"), params={"a": Param("", type="string")})
    assert all((Asset, AssetAlias, BaseOperator, Variable))
    touched: list[tuple[str, str]] = []
    own = (sys.prefix, sys.base_prefix, str(DAGS))

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event in {"open", "os.listdir"}:
            if not str(arguments[0]).startswith(own):
                touched.append((event, str(arguments[0])))
        elif event.partition(".")[0] in {"socket", "subprocess", "sqlite3"}:
            touched.append((event, ""))

    sys.dont_write_bytecode = True  # the first to load a module would write its cache
    before = set(sys.modules)
    sys.addaudithook(look)
    dags = sorted(parsed(file))
    seen = list(touched)
    roots = {name.partition(".")[0] for name in set(sys.modules) - before}
    providers = [name for name in sys.modules if name.startswith("airflow.providers.")]
    return {
        "dags": dags,
        "touched": seen,
        "strangers": sorted(roots - sys.stdlib_module_names - {"airflow", "night"}),
        "providers": providers,
    }


def graph(file: str) -> dict[str, Any]:
    """Describe the DAGs of a file, task by task."""
    described = {}
    for dag_id, dag in parsed(file).items():
        tasks = {}
        for task in dag.tasks:
            given = task.partial_kwargs if task.is_mapped else vars(task)
            tasks[task.task_id] = {
                "next": sorted(task.downstream_task_ids),
                "mapped": len(task.expand_input.value["arguments"]) if task.is_mapped else 0,
                "pool": given["pool"],
                "retries": given["retries"],
                "in_flight": given.get("max_active_tis_per_dagrun"),
                "outlets": [outlet.name for outlet in task.outlets],
            }
        described[dag_id] = {
            "tasks": tasks,
            "runs_at_once": dag.max_active_runs,
            "catchup": dag.catchup,
            "start": dag.start_date.isoformat() if dag.start_date else None,
            "schedule": type(dag.timetable).__name__,
            "params": {name: dag.params[name] for name in dag.params},
        }
    return described


def integrity() -> dict[str, Any]:
    """Load the folder as the DAG processor does, warnings and import errors included."""
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.serialization.serialized_objects import DagSerialization

    bag = BundleDagBag(dag_folder=str(DAGS), bundle_path=DAGS, bundle_name="dags-folder")
    stored = {dag_id: DagSerialization.to_dict(dag) for dag_id, dag in bag.dags.items()}
    return {
        "dags": sorted(stored),
        "errors": {str(Path(name).name): text.strip().splitlines()[-1] for name, text in bag.import_errors.items()},
        "warnings": {name: list(found) for name, found in bag.captured_warnings.items()},
    }


def understood(lines: list[str]) -> list[str]:
    """Give the command lines that Airflow's own parser takes."""
    import shlex

    from airflow.cli.cli_parser import get_parser

    parser = get_parser()
    for line in lines:
        assert parser.parse_args(shlex.split(line)[1:]).func
    return lines


def not_settings(variables: list[str]) -> list[str]:
    """Give the variables that Airflow would not read: no option of it, or a command for what is no secret."""
    from airflow.configuration import conf

    found = []
    for variable in variables:
        _, section, option = variable.lower().split("__")
        secret = option.removesuffix("_cmd")
        known = secret in conf.configuration_description[section]["options"]
        if not known or (secret != option and (section, secret) not in conf.sensitive_config_values):
            found.append(variable)
    return found


def nights(zone: str, cron: str, first: str, count: int) -> list[Any]:
    """Give so many nights from a data date on: when each runs, in local time, and the day it is for."""
    from zoneinfo import ZoneInfo

    import pendulum
    from airflow.serialization.encoders import coerce_to_core_timetable
    from airflow.timetables.base import TimeRestriction

    os.environ |= {"NIGHTREC_TIMEZONE": zone, "NIGHTREC_SCHEDULE": cron, "NIGHTREC_START": first}
    dag = parsed("nightly.py")["nightrec_shop"]
    timetable = coerce_to_core_timetable(dag.timetable)
    restriction = TimeRestriction(pendulum.instance(dag.start_date), None, catchup=dag.catchup)
    interval, found = None, []
    for _ in range(count):
        run = timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction)
        interval = run.data_interval
        dag_run = SimpleNamespace(data_interval_end=interval.end, run_after=run.run_after, conf=None)
        day = dag.user_defined_macros["data_date"](dag_run, {"date": None})
        found.append([run.run_after.astimezone(ZoneInfo(zone)).isoformat(), day])
    return found


class Ti(SimpleNamespace):
    """Stands for the running task instance: it keeps what is pushed."""

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    def xcom_pull(self, task_ids: str) -> Any:
        return self.answers.get(task_ids)


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:  # noqa: D107
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def step(verb: str, answers: dict[str, Any], params: dict[str, str], stopped_after: float = 0) -> dict[str, Any]:
    """Run the task of a step as the task runner does: render its templates, execute it, and say how that ended.

    After so many seconds it is told to stop, if it is asked for.
    """
    from airflow.sdk.definitions._internal import logging_mixin as sdk_logging
    from airflow.sdk.execution_time.context import OutletEventAccessors
    from airflow.sdk.execution_time.task_runner import _run_execute_callable
    from airflow.utils.log import logging_mixin as provider_logging

    dag = parsed("nightly.py")["nightrec_shop"]
    task = dag.task_dict[verb]
    ti = Ti(
        task_id=verb,
        dag_id=dag.dag_id,
        run_id="night",
        map_index=1 if task.is_mapped else -1,
        try_number=1,
        log_url="http://airflow/log",
        answers=answers,
        pushed={},
    )
    dag_run = SimpleNamespace(data_interval_end=NOW, run_after=NOW, conf=params)
    context: dict[str, Any] = {
        "ti": ti,
        "task_instance": ti,
        "run_id": "night",
        "dag": dag,
        "dag_run": dag_run,
        "params": {"date": None, "seen_future": "", "supersede": "", **params},
        "outlet_events": OutletEventAccessors(),
        "task": task,
    }
    ti.task = task
    lines = Lines()
    told = logging.getLogger("the log of the task")
    told.setLevel(logging.INFO)
    told.addHandler(lines)
    try:
        task.render_template_fields(context)
        task = context["task"]
        type(task).log = sdk_logging.LoggingMixin.log = provider_logging.LoggingMixin.log = told
        signal.signal(signal.SIGTERM, lambda number, frame: task.on_kill())  # as the task runner does
        if stopped_after:
            threading.Timer(stopped_after, os.kill, (os.getpid(), signal.SIGTERM)).start()
        ended: dict[str, Any] = {"result": _run_execute_callable(context, task.execute, task)}
    except Exception as error:
        ended = {"raised": type(error).__name__, "says": str(error), "later": _seconds_until(error)}
    events = [event for accessor in context["outlet_events"]._dict.values() for event in accessor.asset_alias_events]
    ended["events"] = [[event.source_alias_name, event.dest_asset_key.uri, event.extra] for event in events]
    return {"result": None, **ended, "pushed": ti.pushed, "log": lines.lines}


def _seconds_until(error: Exception) -> float | None:
    later = getattr(error, "reschedule_date", None)
    return (later - datetime.now(UTC)).total_seconds() if later else None


def tell(task_id: str, error: str, answer: dict[str, Any] | None, known: list[str]) -> list[str]:
    """Call the callback of a task that failed, or, with an *answer*, of publish; *known* is in its context.

    Returns:
        What was logged.
    """
    lines = Lines()
    logging.getLogger("night").addHandler(lines)
    logging.getLogger("night").setLevel(logging.INFO)
    dag = parsed("nightly.py")["nightrec_shop"]
    task = dag.task_dict[task_id]
    ti = Ti(task_id=task_id, dag_id=dag.dag_id, run_id="night", map_index=-1, log_url="http://airflow/log")
    ti.answers = {task_id: answer}
    context = {
        "ti": ti,
        "dag_run": SimpleNamespace(data_interval_end=NOW, run_after=NOW),
        "params": {"date": None},
        "exception": RuntimeError(error),
    }
    (callback,) = task.on_failure_callback if answer is None else task.on_success_callback
    callback({name: context[name] for name in known})
    return lines.lines


def pod(verb: str, arguments: list[str]) -> dict[str, Any]:
    """Give the pod that a step would be run in, as the JSON that Kubernetes is sent."""
    from kubernetes.client import ApiClient

    task = parsed("nightly.py")["nightrec_shop"].task_dict[verb]
    task = task.unmap({"arguments": arguments}) if task.is_mapped else task
    task.arguments = arguments
    document: dict[str, Any] = ApiClient().sanitize_for_serialization(task.build_pod_request_obj(dry_run=True))
    return document


def serve() -> None:
    """Answer each line of standard input, a call, with a line of standard output; each in a process of its own."""
    import airflow.sdk.execution_time.task_runner  # noqa: F401 - it takes seconds; what is loaded here is loaded once

    for line in sys.stdin:
        call = json.loads(line)
        if child := os.fork():
            if os.waitpid(child, 0)[1]:
                sys.stdout.write("null\n")
                sys.stdout.flush()
            continue
        os.environ.clear()
        os.environ.update(call["environment"])
        sys.stdout.write(json.dumps({"answer": globals()[call["name"]](*call["arguments"])}) + "\n")
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        serve()
    else:
        sys.stdout.write(json.dumps(globals()[sys.argv[1]](*map(json.loads, sys.argv[2:]))) + "\n")
