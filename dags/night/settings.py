"""What the environment says of each surface, its data date, and the command line of each step. No Airflow here.

The table in docs/airflow.md explains every name.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import PurePath
from typing import Any
from zoneinfo import ZoneInfo

MODEL_STEPS = frozenset({"prepare", "items", "index", "interests", "score"})  # they open the models on the device
MAPPED_STEPS = frozenset({"interests", "score"})
RUN = ("--date", "{{ prepared(ti)['date'] }}", "--run", "{{ prepared(ti)['run_key'] }}")  # in Airflow's templates

DEFAULTS = {
    "COMMAND": "nightrec",
    "WHERE": "process",
    "SCHEDULE": "0 2 * * *",
    "TIMEZONE": "UTC",
    "START": "",
    "CHANNEL": "LATEST",
    "GROUPS": "2",
    "IN_FLIGHT": "2",
    "RETRIES": "3",
    "RETRY_SECONDS": "60",
    "WAIT_SECONDS": "600",
    "TIMEOUT_SECONDS": "43200",
    "POOL": "default_pool",
    "GPUS": "0",
    "GPU_POOL": "",
    "IMAGE": "nightrec:latest",
    "GPU_IMAGE": "",
    "MOUNT": "/job",
    "ENV": "",
    "NETWORK": "",
    "NAMESPACE": "default",
    "CLAIM": "",
    "SERVICE_ACCOUNT": "default",
    "ENV_SECRET": "",
    "CPUS": "",
    "MEMORY": "",
    "POD_TEMPLATE": "",
}
_PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")  # Airflow's words for cron
_LEAST = {
    "GROUPS": 1,
    "IN_FLIGHT": 1,
    "RETRIES": 0,
    "RETRY_SECONDS": 1,
    "WAIT_SECONDS": 1,
    "TIMEOUT_SECONDS": 1,
    "GPUS": 0,
}


class SettingError(ValueError):
    """A setting that cannot be read; Airflow shows it as the import error of the DAG file."""


@dataclass(frozen=True)
class Surface:
    """One surface, which is one config and one DAG.

    Attributes:
        config: Path of its config, where the command sees it.
        zone: Time zone of schedule and data date.
        start: First data date whose night is made up for; None if only the latest night is.
        numbers: The settings that are whole numbers, by name.
        texts: All other settings, by name.
    """

    config: str
    zone: ZoneInfo
    start: date | None
    numbers: Mapping[str, int]
    texts: Mapping[str, str]

    @property
    def name(self) -> str:
        """The stem of the config's name."""
        return PurePath(self.config).stem

    @property
    def dag_id(self) -> str:
        """The DAG's name; the alias of the surface's asset has the same."""
        return f"nightrec_{self.name}"

    def date_of(self, dag_run: Any, params: Any) -> str:
        """The data date of a run of the DAG, of which a person may have said something in *params*."""
        return data_date(self.zone, params["date"], dag_run.data_interval_end, dag_run.run_after)

    def on_gpu(self, verb: str) -> bool:
        """Whether GPUs are asked for a step."""
        return verb in MODEL_STEPS and self.numbers["GPUS"] > 0

    def pool(self, verb: str) -> str:
        """The pool of a step: that of the GPUs for what opens a model there."""
        pool = self.texts["POOL"]
        if verb not in MODEL_STEPS:
            return pool
        return self.texts["GPU_POOL"] or ("nightrec_gpu" if self.numbers["GPUS"] else pool)

    def image(self, verb: str) -> str:
        """The image of a step."""
        image = self.texts["IMAGE"]
        return self.texts["GPU_IMAGE"] or image if self.on_gpu(verb) else image

    def lines(self, verb: str) -> list[list[str]]:
        """Build the arguments of a step for ``nightrec``, as templates: one list, or one for each group of shards."""
        line = [verb, "--config", self.config, "--json"]
        if verb == "prepare":
            return [[*line, "--date", "{{ data_date(dag_run, params) }}", "--seen-future={{ params.seen_future }}"]]
        line += RUN
        if verb in MAPPED_STEPS:
            groups = self.numbers["GROUPS"]
            return [[*line, "--group", f"{group}/{groups}"] for group in range(groups)]
        if verb in {"check", "publish"}:
            line += ["--channel", self.texts["CHANNEL"]]
        return [[*line, "--supersede={{ params.supersede }}"] if verb == "publish" else line]


def read_surfaces(environment: Mapping[str, str], names_in: Any) -> list[Surface]:
    """Read the settings of all surfaces, in the order of their names.

    Args:
        environment: Variables by name.
        names_in: Lists the names in a folder; no file is opened.

    Raises:
        SettingError: If one cannot be read.
    """
    said = environment.get("NIGHTREC_CONFIGS", "/job")
    if said.endswith(".toml"):
        configs = [path.strip() for path in said.split(",")]
    else:
        try:
            names = sorted(names_in(said))
        except OSError as error:
            raise SettingError(f"NIGHTREC_CONFIGS: expected a folder of configs, found {said!r} ({error})") from error
        configs = [f"{said.rstrip('/')}/{name}" for name in names if name.endswith(".toml") and name[0] != "."]
    return [_read_surface(environment, config) for config in configs]


def _read_surface(environment: Mapping[str, str], config: str) -> Surface:
    own = re.sub(r"[^A-Z0-9]", "_", PurePath(config).stem.upper())
    variables = {name: f"NIGHTREC_{name}" for name in DEFAULTS}
    variables |= {name: f"{of_all}__{own}" for name, of_all in variables.items() if f"{of_all}__{own}" in environment}
    values = {name: environment.get(variables[name], default).strip() for name, default in DEFAULTS.items()}
    numbers = {name: _whole_number(variables[name], values.pop(name), least) for name, least in _LEAST.items()}
    _require_readable(variables, values)
    try:
        zone = ZoneInfo(values["TIMEZONE"])
    except (ValueError, KeyError) as error:  # it raises ZoneInfoNotFoundError, a KeyError, or says what is no name
        raise SettingError(f"{variables['TIMEZONE']}: no time zone is called {values['TIMEZONE']!r}") from error
    try:
        start = date.fromisoformat(values["START"]) if values["START"] else None
    except ValueError as error:
        raise SettingError(f"{variables['START']}: expected a day as YYYY-MM-DD, found {values['START']!r}") from error
    return Surface(config, zone, start, numbers, values)


def _require_readable(variables: Mapping[str, str], values: Mapping[str, str]) -> None:
    """Look at the texts that Airflow or a shell would complain of without naming the variable."""
    where, cron, command = values["WHERE"], values["SCHEDULE"], values["COMMAND"]
    if where not in {"process", "docker", "kubernetes"}:
        raise SettingError(f"{variables['WHERE']}: expected process, docker or kubernetes, found {where!r}")
    if cron not in {"none", *_PRESETS} and not (len(cron.split()) == 5 and re.fullmatch(r"[\w*/,# -]+", cron)):
        raise SettingError(f"{variables['SCHEDULE']}: expected the five fields of cron, or none, found {cron!r}")
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if not words:
        raise SettingError(f"{variables['COMMAND']}: expected a command, in the words of a shell, found {command!r}")


def _whole_number(variable: str, text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise SettingError(f"{variable}: expected a whole number of at least {least}, found {text!r}")
    return int(text)


def data_date(zone: ZoneInfo, asked: str | None, interval_end: datetime | None, run_after: datetime) -> str:
    """Say which day a run of the DAG is for; never "now".

    It is the day that was asked for; else the local day before the one on which the run's data interval ends; and for
    a run without an interval, started by hand, the local day before the one it was to run on.
    """
    if asked:
        return date.fromisoformat(asked).isoformat()
    moment = interval_end or run_after
    return (moment.astimezone(zone).date() - timedelta(days=1)).isoformat()


def said(words: list[str]) -> list[str]:
    """Leave out of a command line what nobody said: words, and values of options, whose template came out empty."""
    return [word for word in words if word and not re.fullmatch(r"--[a-z-]+=", word)]
