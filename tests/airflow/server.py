"""Airflow on this machine's loopback: its four services, started fresh, driven over the REST API, and ended."""

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

REPOSITORY = Path(__file__).parents[2]
BIN = REPOSITORY / ".venv-airflow" / "bin"
SERVICES: Mapping[str, tuple[str, ...]] = {
    "api-server": ("api-server", "--apps", "core"),
    "execution-api": ("api-server", "--apps", "execution"),  # of its own: one waits for SQLite without the other
    "dag-processor": ("dag-processor",),
    "scheduler": ("scheduler", "--skip-serve-logs"),  # the servers of logs would listen on every interface
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
PATIENCE = 240.0  # seconds until a wait is a failure; a busy machine is no failure
SETTINGS = {
    "CORE__LOAD_EXAMPLES": "False",
    "CORE__PARALLELISM": "4",
    "API__HOST": "127.0.0.1",
    "API__WORKERS": "1",
    "DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",  # from here down: who is dead is noticed soon
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
}
ENDED = ("success", "failed")
ENDING = threading.Event()  # set when nobody waits any more
Found = TypeVar("Found")


class ApiError(Exception):
    """The REST API answered with an error; ``status`` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        """Keep *status* beside the *message*."""
        super().__init__(f"{status}: {message}")
        self.status = status


def wait(what: str, found: Callable[[], Found], *, seconds: float = PATIENCE, every: float = 0.25) -> Found:
    """Ask until *found* gives something true, and give that.

    Raises:
        AssertionError: If it has not within *seconds*; it names *what* was waited for.
    """
    stop = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < stop, f"{what}: not within {seconds:g} s"
        assert not ENDING.wait(every), f"{what}: waited for in vain, all is being ended"
    return answer


def processes(*words: str) -> list[int]:
    """The ids of the running processes whose command line has all *words* as arguments."""
    running = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_text(errors="replace").split("\0")
        except OSError:  # it has ended meanwhile
            continue
        if set(words) <= set(arguments):
            running.append(int(folder.name))
    return sorted(running)


def parent_of(pid: int) -> int:
    """The id of the process that started *pid*."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class Airflow:
    """One Airflow with a fresh home.

    Attributes:
        home: Its ``AIRFLOW_HOME``: database and logs, also ``NAME.log`` of each service.
        address: Of the REST API.
        login: Name and password of the operator, once it is started.
    """

    def __init__(self, home: Path, dags: Path, environment: Mapping[str, str]) -> None:
        """Say where it lives, whose *dags* it runs, and what else its processes find in their environment."""
        self.home = home
        self.login: dict[str, str] = {}
        self._services: dict[str, subprocess.Popen[bytes]] = {}
        self._sessions: set[int] = set()  # of all services that were ever started
        self._token = ""
        self._ports = {"api-server": _free_port(), "execution-api": _free_port()}
        self.address, execution = (f"http://127.0.0.1:{port}" for port in self._ports.values())
        self._one_change = threading.Lock()  # on SQLite, two requests that write would wait for each other
        self._reviving = threading.Lock()
        settings = SETTINGS | {
            "CORE__DAGS_FOLDER": str(dags),
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",  # seconds
            "CORE__EXECUTION_API_SERVER_URL": f"{execution}/execution/",
            "API_AUTH__JWT_SECRET": secrets.token_hex(32),
        }
        self._environment = {
            "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "AIRFLOW_HOME": str(home),
            **{f"AIRFLOW__{name}": value for name, value in settings.items()},
            **environment,
        }

    def start(self) -> None:
        """Make the database, start all services, and log in as the operator."""
        self.home.mkdir(parents=True)
        self.command("db", "migrate")
        for name in SERVICES:
            self.start_service(name)
        wait("Airflow is healthy", self._healthy)
        passwords = json.loads((self.home / "simple_auth_manager_passwords.json.generated").read_text())
        self.login = {"username": "admin", "password": passwords["admin"]}
        self._token = self.call("POST", "/auth/token", self.login)["access_token"]

    def start_service(self, name: str) -> None:
        """Start one of ``SERVICES``, in a session of its own: Ctrl-C reaches this process alone."""
        port = ["--port", str(self._ports[name])] if name in self._ports else []
        with (self.home / f"{name}.log").open("ab") as log:
            self._services[name] = subprocess.Popen(
                [BIN / "airflow", *SERVICES[name], *port],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._sessions.add(self._services[name].pid)

    def revive(self) -> None:
        """Start a scheduler again that has ended by itself, as a supervisor would: on SQLite Airflow's own may."""
        with self._reviving:
            if self._services["scheduler"].poll() not in {None, -signal.SIGKILL}:
                sys.stderr.write(f"the scheduler has ended by itself, see {self.home}/scheduler.log; started again\n")
                self.start_service("scheduler")

    def kill_service(self, name: str) -> None:
        """Kill one of ``SERVICES`` with -9, and nothing that it has started."""
        self._services[name].kill()
        self._services[name].wait()

    def stop(self) -> None:
        """End every service and whatever else was started with this home, such as the work of a killed scheduler."""
        for service in self._services.values():
            service.terminate()  # the main process alone: it ends its own workers
        for service in self._services.values():
            try:
                service.wait(20)
            except subprocess.TimeoutExpired:
                service.kill()
                service.wait()
        for pid in self.left_running():
            os.kill(pid, signal.SIGKILL)
        wait("all has ended", lambda: not self.left_running(), seconds=20)

    def left_running(self) -> list[int]:
        """The ids of all processes that have this home in their environment, or the session of a service.

        The workers of a scheduler that was killed go on, and their title is written over their environment.
        """
        mark = f"AIRFLOW_HOME={self.home}".encode()
        running = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                session = int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[3])
                if session in self._sessions or mark in (folder / "environ").read_bytes().split(b"\0"):
                    running.append(int(folder.name))
            except OSError:  # it has ended meanwhile
                continue
        return running

    def python(self, *arguments: str) -> str:
        """Run Airflow's own Python with *arguments*, and give what it printed."""
        return self._run("python", *arguments)

    def command(self, *arguments: str) -> str:
        """Run ``airflow`` with *arguments* and give what it printed."""
        return self._run("airflow", *arguments)

    def _run(self, program: str, *arguments: str) -> str:
        finished = subprocess.run(
            [BIN / program, *arguments], env=self._environment, capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, f"{program} {' '.join(arguments)}: {finished.stdout}{finished.stderr}"
        return finished.stdout

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Call the REST API.

        Raises:
            ApiError: If it answers with an error.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}{path}", data, headers, method=method)
        with self._one_change if method != "GET" else contextlib.nullcontext():
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    return json.loads(response.read() or b"null")
            except urllib.error.HTTPError as error:
                raise ApiError(error.code, error.read().decode(errors="replace")) from error

    def _healthy(self) -> bool:
        for name, service in self._services.items():
            log = self.home / f"{name}.log"
            assert service.poll() is None, f"{name} has ended: {log.read_text(errors='replace')[-2000:]}"
        try:
            health = self.call("GET", "/api/v2/monitor/health")
        except OSError:  # it does not listen yet
            return False
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))

    def unpause(self, dag: str) -> None:
        """Let the scheduler run *dag*, as soon as it is known."""
        self.known(dag)
        self.call("PATCH", f"/api/v2/dags/{dag}?update_mask=is_paused", {"is_paused": False})

    def known(self, dag: str) -> None:
        """Wait until the DAG processor has read *dag*."""
        wait(f"the DAG {dag} is known", lambda: dag in self._dags())

    def _dags(self) -> list[str]:
        return [dag["dag_id"] for dag in self.call("GET", "/api/v2/dags?limit=100")["dags"]]

    def trigger(self, dag: str, **body: object) -> str:
        """Start a run by hand, without a logical date unless *body* has one; give its id."""
        run: str = self.call("POST", f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None, **body})["dag_run_id"]
        return run

    def runs(self, dag: str) -> list[dict[str, Any]]:
        """All runs of *dag*, oldest first."""
        runs: list[dict[str, Any]] = self.call("GET", f"/api/v2/dags/{dag}/dagRuns?order_by=id")["dag_runs"]
        return runs

    def ended(self, dag: str, run: str) -> str:
        """Wait until a run has ended; give its state."""
        path = f"/api/v2/dags/{dag}/dagRuns/{_quoted(run)}"

        def state() -> str:
            self.revive()
            now: str = self.call("GET", path)["state"]
            return now if now in ENDED else ""

        return wait(f"{dag} {run} ends", state, seconds=2 * PATIENCE, every=0.5)

    def succeeded(self, dag: str, run: str) -> None:
        """Wait until a run has ended well.

        Raises:
            AssertionError: If it has failed; it says what the tasks that failed said last.
        """
        if self.ended(dag, run) != "success":
            failed = [task for task in self.tasks(dag, run) if task["state"] == "failed"]
            raise AssertionError(
                f"{dag} {run} has failed: {'; '.join(self._last_words(dag, run, ti) for ti in failed)}"
            )

    def _last_words(self, dag: str, run: str, task: Mapping[str, Any]) -> str:
        log = self.log(dag, run, task["task_id"], task["map_index"], task["try_number"])
        errors = re.findall(r'"exc_value": "(.*?)", "', log)
        return f"{task['task_id']}: {errors[-1] if errors else log[-500:]}"

    def tasks(self, dag: str, run: str) -> list[dict[str, Any]]:
        """The task instances of a run."""
        path = f"/api/v2/dags/{dag}/dagRuns/{_quoted(run)}/taskInstances?limit=100"
        tasks: list[dict[str, Any]] = self.call("GET", path)["task_instances"]
        return tasks

    def task(self, dag: str, run: str, task: str, index: int = -1) -> dict[str, Any]:
        """One task instance of a run; *index* is that of a mapped one."""
        (found,) = (ti for ti in self.tasks(dag, run) if (ti["task_id"], ti["map_index"]) == (task, index))
        return found

    def note(self, dag: str, run: str, task: str) -> str:
        """Wait until somebody has written a note on a task instance; give it."""
        return wait(f"{dag} {run}: {task} has a note", lambda: str(self.task(dag, run, task)["note"] or ""))

    def log(self, dag: str, run: str, task: str, index: int = -1, attempt: int = 1) -> str:
        """What the log of one try of a task says, line by line."""
        path = f"/api/v2/dags/{dag}/dagRuns/{_quoted(run)}/taskInstances/{task}/logs/{attempt}?map_index={index}"
        content = self.call("GET", f"{path}&full_content=true")["content"]
        return "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in content)

    def events_of(self, dag: str, run: str) -> list[dict[str, Any]]:
        """The updates of assets that have started a run."""
        path = f"/api/v2/dags/{dag}/dagRuns/{_quoted(run)}/upstreamAssetEvents"
        events: list[dict[str, Any]] = self.call("GET", path)["asset_events"]
        return events

    def result(self, dag: str, run: str, task: str, *, key: str = "return_value") -> Any:
        """What a task handed on: the XCom that it returned, or another *key*."""
        path = f"/api/v2/dags/{dag}/dagRuns/{_quoted(run)}/taskInstances/{task}/xcomEntries/{key}"
        return self.call("GET", f"{path}?deserialize=true")["value"]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _quoted(run: str) -> str:
    return urllib.parse.quote(run, safe="")
