"""What callbacks of tasks tell, over HTTP: the webhook, and Airflow's API, of which a real server takes the calls here.

They run in Airflow's own environment.
"""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from tests.dags.conftest import Inside

pytestmark = pytest.mark.airflow

KNOWN = ["ti", "params", "dag_run", "exception"]  # of a context, to a callback in the task's own process


@pytest.fixture
def posted() -> Any:
    """A real HTTP server: its address, and what was posted to it; the path says its answer."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(int(self.path[1:]))
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()


@pytest.fixture
def api() -> Any:
    """Airflow's API in miniature: its port, and the method, path, authorization and document of each call.

    It knows one login, and takes notes with the token ``t``.
    """
    received: list[tuple[str, str, str | None, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            login = self._take()
            known = login == {"username": "ann", "password": "p"}
            self._answer(201 if known else 401, {"access_token": "t"} if known else {"detail": "who?"})

        def do_PATCH(self) -> None:
            self._take()
            self._answer(200 if self.headers["Authorization"] == "Bearer t" else 403, {})

        def _take(self) -> Any:
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append((self.command, self.path, self.headers["Authorization"], document))
            return document

        def _answer(self, status: int, document: Any) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, received
        server.shutdown()


PATH = "/api/v2/dags/nightrec_shop/dagRuns/night/taskInstances/check/-1?update_mask=note"


@pytest.mark.parametrize("login", [True, False])
def test_a_note_is_written_on_the_task(inside: Inside, api: Any, *, login: bool) -> None:
    """By a user with a password, who is given a token first, or with a token that is there."""
    port, received = api
    connection = f"http://{'ann:p' if login else ':t'}@127.0.0.1:{port}"

    inside("tell", "check", "churn: 0.9, expected at most 0.5", None, KNOWN, AIRFLOW_CONN_NIGHTREC_API=connection)

    note = ("PATCH", PATH, "Bearer t", {"note": "churn: 0.9, expected at most 0.5"})
    first = ("POST", "/auth/token", None, {"username": "ann", "password": "p"})
    assert received == ([first, note] if login else [note])


def test_a_note_has_no_more_characters_than_airflow_takes(inside: Inside, api: Any) -> None:
    port, received = api

    inside("tell", "check", "ü" * 1_001, None, KNOWN, AIRFLOW_CONN_NIGHTREC_API=f"http://:t@127.0.0.1:{port}")
    inside("tell", "check", "ü" * 1_000, None, KNOWN, AIRFLOW_CONN_NIGHTREC_API=f"http://:t@127.0.0.1:{port}")

    assert [document["note"] for *_, document in received] == ["ü" * 999 + "…", "ü" * 1_000]


@pytest.mark.parametrize(
    ("connection", "why"),
    [
        ("", "no note on the task: Airflow has no connection nightrec_api"),
        ("http://bob:p@127.0.0.1:{port}", "connection nightrec_api: HTTP Error 401: Unauthorized"),
        ("http://:u@127.0.0.1:{port}", "connection nightrec_api: HTTP Error 403: Forbidden"),
        ("http://ann:p@127.0.0.1:9", "connection nightrec_api: <urlopen error [Errno 111] Connection refused>"),
        ("https://ann:p@127.0.0.1:{port}", "connection nightrec_api: <urlopen error [SSL"),
        ("ftp://ann:p@ftp%3A%2F%2Fhost", "connection nightrec_api: its address does not begin with http"),
    ],
)
def test_without_a_note_one_line_says_why(inside: Inside, api: Any, connection: str, why: str) -> None:
    """No callback raises, whatever the connection is like, and the log holds no secret of it."""
    given = {"AIRFLOW_CONN_NIGHTREC_API": connection.format(port=api[0])} if connection else {}

    log = inside("tell", "check", "it failed", None, KNOWN, **given)

    (line,) = (line for line in log if "note on the task" in line)
    assert why in line
    assert ":p" not in line


def test_the_webhook_is_told_of_a_failure(inside: Inside, posted: Any) -> None:
    url, received = posted

    inside("tell", "check", "churn: 0.9, expected at most 0.5", None, KNOWN, AIRFLOW_VAR_NIGHTREC_WEBHOOK=f"{url}/204")

    assert received == [
        {
            "text": "nightrec_shop, night of 2026-11-25: check, failed: churn: 0.9, expected at most 0.5",
            "state": "failed",
            "dag_id": "nightrec_shop",
            "task_id": "check",
            "map_index": -1,
            "run_id": "night",
            "date": "2026-11-25",
            "release": None,
            "log": "http://airflow/log",
        }
    ]


def test_the_webhook_is_told_of_a_release(inside: Inside, posted: Any) -> None:
    url, received = posted
    answer = {"release": "2026-11-25-aa", "steps": [{"about": "2026-11-25-aa: LATEST names it"}]}

    inside("tell", "publish", "", answer, KNOWN, AIRFLOW_VAR_NIGHTREC_WEBHOOK=f"{url}/200")

    inside("tell", "publish", "", {"release": "2026-11-25-aa"}, KNOWN, AIRFLOW_VAR_NIGHTREC_WEBHOOK=f"{url}/200")

    told, cut = received
    assert (told["state"], told["release"]) == ("success", "2026-11-25-aa")
    assert told["text"] == "nightrec_shop, night of 2026-11-25: publish, success: 2026-11-25-aa: LATEST names it"
    assert cut["text"] == "nightrec_shop, night of 2026-11-25: publish, success: 2026-11-25-aa"


def test_the_webhook_is_told_of_a_task_that_was_lost(inside: Inside, posted: Any) -> None:
    """The DAG processor tells it, and knows no exception, and sometimes not the run either."""
    url, received = posted

    inside("tell", "score", "", None, KNOWN[:3], AIRFLOW_VAR_NIGHTREC_WEBHOOK=f"{url}/200")
    inside("tell", "score", "", None, KNOWN[:2], AIRFLOW_VAR_NIGHTREC_WEBHOOK=f"{url}/200")

    lost = "Airflow lost the task; it was killed, or its worker died"
    assert [told["text"] for told in received] == [
        f"nightrec_shop, night of 2026-11-25: score, failed: {lost}",
        f"nightrec_shop: score, failed: {lost}",
    ]


@pytest.mark.parametrize("address", ["{url}/500", "http://127.0.0.1:9/", "ftp://x", "file:///etc/passwd", "nonsense"])
def test_a_dead_webhook_changes_nothing(inside: Inside, posted: Any, address: str) -> None:
    """No callback raises, whatever the address is like."""
    url, _ = posted

    log = inside("tell", "check", "it failed", None, KNOWN, AIRFLOW_VAR_NIGHTREC_WEBHOOK=address.format(url=url))

    assert log[0].startswith("the webhook was not told: ")
