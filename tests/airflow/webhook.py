"""A real HTTP server on loopback that keeps what is posted to it."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Webhook:
    """The server; it listens from its making until :meth:`close`.

    Attributes:
        received: The documents that were posted, in order.
    """

    def __init__(self) -> None:
        """Listen on a free port."""
        self.received: list[dict[str, Any]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Say nothing: what was received is looked at."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/nights"

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
