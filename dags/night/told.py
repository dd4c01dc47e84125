"""Who is told how a task ended: the webhook, and whoever looks at the task in Airflow, by a note on it."""

import http.client
import json
import logging
import urllib.request
from typing import Any
from urllib.parse import quote

from airflow.sdk import Connection, Variable
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowRuntimeError

from night.settings import Surface

WEBHOOK = "nightrec_webhook"  # the Airflow variable with its address
API = "nightrec_api"  # the Airflow connection with the address of Airflow's own REST API, and who may write notes
NOTE_LIMIT = 1_000  # characters that Airflow takes
_SECONDS = 10
_TROUBLE = (OSError, ValueError, LookupError, http.client.HTTPException)  # of any exchange over HTTP
_log = logging.getLogger(__name__)


def tell_failure(surface: Surface, context: Any) -> None:
    """Tell that a task has failed for good."""
    error = context.get("exception") or "Airflow lost the task; it was killed, or its worker died"
    _tell(surface, context, "failed", str(error), None)


def tell_release(surface: Surface, context: Any) -> None:
    """Tell what was published."""
    answer = context["ti"].xcom_pull(task_ids="publish")
    (done,) = answer.get("steps") or [{"about": answer["release"]}]  # what was too long is not in it
    _tell(surface, context, "success", done["about"], answer["release"])


def _tell(surface: Surface, context: Any, state: str, detail: str, release: str | None) -> None:
    """Tell both; one that does not answer is logged, and changes nothing."""
    ti, dag_run, params = context["ti"], context.get("dag_run"), context["params"]
    night = dag_run and "date" in params  # a consumer has no date, and Airflow may have lost sight of the run
    day = surface.date_of(dag_run, params) if night else None
    _call_webhook(
        {
            "text": f"{ti.dag_id}{f', night of {day}' if day else ''}: {ti.task_id}, {state}: {detail}",
            "state": state,
            "dag_id": ti.dag_id,
            "task_id": ti.task_id,
            "map_index": ti.map_index,
            "run_id": ti.run_id,
            "date": day,
            "release": release,
            "log": ti.log_url,
        }
    )
    _write_note(ti, detail)


def _call_webhook(document: dict[str, Any]) -> None:
    url = Variable.get(WEBHOOK, default=None)
    if not url:
        return
    try:
        _send("POST", url, document)
        _log.info("told the webhook: %s", document["text"])
    except _TROUBLE as problem:
        _log.warning("the webhook was not told: %s", problem)


def _write_note(ti: Any, text: str) -> None:
    """Write a note on a task, by Airflow's REST API: a task has no other way to it."""
    try:
        api = Connection.get(API)
        address = _address(api)
        token = api.password if not api.login else _token(address, api)
        run = f"{address}/api/v2/dags/{quote(ti.dag_id)}/dagRuns/{quote(ti.run_id, safe='')}"
        note = text if len(text) <= NOTE_LIMIT else f"{text[: NOTE_LIMIT - 1]}…"
        path = f"{run}/taskInstances/{quote(ti.task_id)}/{ti.map_index}?update_mask=note"
        _send("PATCH", path, {"note": note}, Authorization=f"Bearer {token}")
    except AirflowNotFoundException:
        _log.info("no note on the task: Airflow has no connection %s", API)
    except (*_TROUBLE, AirflowRuntimeError) as problem:
        _log.warning("no note on the task, connection %s: %s", API, problem)


def _address(api: Any) -> str:
    """Build the address that a connection names, as ``https://airflow.example.com:8080``."""
    host = api.host or ""
    secure = "https" in {api.conn_type, api.schema}
    return (host if "://" in host else f"http{'s' if secure else ''}://{host}") + (f":{api.port}" if api.port else "")


def _token(address: str, api: Any) -> str:
    login = {"username": api.login, "password": api.password}
    token: str = json.loads(_send("POST", f"{address}/auth/token", login))["access_token"]
    return token


def _send(method: str, url: str, document: dict[str, Any], **headers: str) -> bytes:
    """Send one JSON object, and give what is answered."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("its address does not begin with http:// or https://")
    headers["Content-Type"] = "application/json"
    request = urllib.request.Request(url, json.dumps(document).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=_SECONDS) as response:
        answer: bytes = response.read()
    return answer
