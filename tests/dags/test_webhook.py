"""The webhook: what it is told by the callbacks of tasks, over HTTP; they run in Airflow's own environment."""

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

    inside("tell", "check", "it failed", None, KNOWN, AIRFLOW_VAR_NIGHTREC_WEBHOOK=address.format(url=url))
