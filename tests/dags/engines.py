"""A Docker engine and a Kubernetes API in miniature, on loopback: they run the command as a process of this machine."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

STARTED = "2026-11-26T01:00:00.000000000Z"


class Container:
    """What was asked for, and the process that runs it.

    Attributes:
        asked: The document that described it.
        removed: Whether it was removed again.
        volumes_removed: Whether its own volumes were removed with it.
        stopped: Whether it was told to stop.
        followed: Whether somebody has asked for its log.
    """

    def __init__(self, asked: dict[str, Any], line: list[str]) -> None:  # noqa: D107
        self.asked = asked
        self.removed = self.volumes_removed = self.stopped = self.followed = False
        self.said: list[tuple[int, bytes]] = []  # stream and line, in the order of their coming
        self._process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1)
        self._readers = [
            threading.Thread(target=self._read, args=(stream, pipe), daemon=True)
            for stream, pipe in ((1, self._process.stdout), (2, self._process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: int, pipe: Any) -> None:
        with pipe:
            for line in pipe:
                self.said.append((stream, line))

    def wait(self) -> int:
        """Wait for its end; give its exit code as a shell does."""
        code = self._process.wait()
        for reader in self._readers:
            reader.join()
        return code if code >= 0 else 128 - code

    def code_now(self) -> int | None:
        """Its exit code; None while it runs."""
        return None if self._process.poll() is None else self.wait()

    def stop(self) -> None:
        """Tell it to stop."""
        self.stopped = True
        self._process.terminate()


class Engine:
    """A server, and the containers that it has run.

    Attributes:
        containers: In the order of their making.
        address: ``host:port``.
        entrypoint: That of every image, a command of this machine.
    """

    def __init__(self, address: str, entrypoint: str) -> None:  # noqa: D107
        self.address = address
        self.entrypoint = entrypoint
        self.containers: list[Container] = []


class Handler(BaseHTTPRequestHandler):
    """What both APIs have in common."""

    protocol_version = "HTTP/1.1"
    engine: Engine

    def body(self) -> Any:
        length = int(self.headers.get("Content-Length") or 0)
        return json.loads(self.rfile.read(length) or b"{}")

    def answer(self, document: Any, status: int = 200) -> None:
        self.send(b"" if document is None else json.dumps(document).encode(), "application/json", status)

    def send(self, content: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.handle_call()

    def do_POST(self) -> None:
        self.handle_call()

    def do_PATCH(self) -> None:
        self.handle_call()

    def do_DELETE(self) -> None:
        self.handle_call()

    def handle_call(self) -> None:
        raise NotImplementedError


class DockerHandler(Handler):
    """The calls of the Docker Engine API that an operator makes."""

    pending: dict[str, Any]

    def handle_call(self) -> None:
        parts = urlsplit(self.path)
        *_, kind, name = ["", *parts.path.strip("/").split("/")]
        asked = self.body()
        if name == "_ping":
            self.send(b"OK", "text/plain")
        elif name == "version":
            self.answer({"ApiVersion": "1.48", "Version": "28"})
        elif parts.path.endswith("/images/json"):
            self.answer([{"Id": "sha256:0"}])
        elif parts.path.endswith("/containers/create"):
            type(self).pending = asked
            self.answer({"Id": str(len(self.engine.containers)), "Warnings": []}, 201)
        elif parts.path.endswith("/containers/json"):
            self._list(json.loads(parse_qs(parts.query)["filters"][0])["label"])
        elif name == "attach":
            self._attach(int(kind))
        elif name == "json" and int(kind) == len(self.engine.containers):
            self.answer({"Id": kind, "Config": {"Tty": False}, "State": {}})
        elif name == "start":
            self.engine.containers.append(Container(self.pending, [self.engine.entrypoint, *self.pending["Cmd"]]))
            self.answer(None, 204)
        else:
            number = int(name if self.command == "DELETE" else kind)
            self._with_container(self.engine.containers[number], name, parse_qs(parts.query))

    def _list(self, labels: list[str]) -> None:
        """Answer with the containers that have all *labels*."""
        there = [(str(number), one) for number, one in enumerate(self.engine.containers) if not one.removed]
        said = {number: {f"{name}={value}" for name, value in one.asked["Labels"].items()} for number, one in there}
        self.answer([{"Id": number} for number, _ in there if {*labels} <= said[number]])

    def _with_container(self, container: Container, name: str, query: dict[str, list[str]]) -> None:
        if name == "wait":
            self.answer({"StatusCode": container.wait()})
        elif name == "json":
            self.answer({"Id": "", "Config": {"Tty": False}, "State": {"ExitCode": container.wait()}})
        elif name == "logs":
            streams = {number for number, key in ((1, "stdout"), (2, "stderr")) if query[key][0] in {"1", "True"}}
            frames = b"".join(_frame(*said) for said in container.said if said[0] in streams)
            self.send(frames, "application/vnd.docker.multiplexed-stream")
        elif name == "stop":
            container.stop()
            self.answer(None, 204)
        else:
            assert self.command == "DELETE"
            container.removed = True
            container.volumes_removed = query["v"][0] in {"1", "True"}
            self.answer(None, 204)

    def _attach(self, number: int) -> None:
        """Take the connection over, and send what the container says, in frames."""
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "tcp")
        self.end_headers()
        self.close_connection = True
        until(lambda: len(self.engine.containers) > number)
        container = self.engine.containers[number]
        container.wait()
        for said in container.said:
            self.wfile.write(_frame(*said))


def _frame(stream: int, line: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(line).to_bytes(4, "big") + line


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is sure to come."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.02)


class KubernetesHandler(Handler):
    """The calls of the Kubernetes API that an operator makes for one pod at a time."""

    def handle_call(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        name = parts.path.rpartition("/")[2]
        asked = self.body()
        pods = [pod for pod in self.engine.containers if not pod.removed]
        if self.command == "POST":
            container = asked["spec"]["containers"][0]
            pods = [Container(asked, [self.engine.entrypoint, *container["args"]])]
            self.engine.containers += pods
            self.answer(self._document(pods[0]), 201)
        elif name == "pods":
            self.answer(
                {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(map(self._document, pods))}
            )
        elif name == "events":
            self.answer({"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": []})
        elif not pods:
            self.answer({"kind": "Status", "code": 404, "reason": "NotFound"}, 404)
        elif name == "log":
            self._log(pods[0], stamped=query.get("timestamps") == ["True"])
        else:
            if self.command == "DELETE":
                pods[0].stop()
                pods[0].removed = True
            self.answer(self._document(pods[0]))

    def _log(self, pod: Container, *, stamped: bool) -> None:
        pod.followed = True
        pod.wait()
        stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z ".encode() if stamped else b""
        self.send(b"".join(stamp + line for _, line in pod.said), "text/plain")

    def _document(self, pod: Container) -> dict[str, Any]:
        code = pod.code_now()
        ended = {"exitCode": code, "startedAt": STARTED, "finishedAt": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        state = {"running": {"startedAt": STARTED}} if code is None else {"terminated": ended}
        phase = "Running" if code is None else "Failed" if code else "Succeeded"
        status = {
            "name": "base",
            "image": "i",
            "imageID": "i",
            "ready": code is None,
            "restartCount": 0,
            "state": state,
        }
        return {**pod.asked, "status": {"phase": phase, "containerStatuses": [status]}}


class NoImageHandler(KubernetesHandler):
    """A cluster that has no such image."""

    def _document(self, pod: Container) -> dict[str, Any]:
        waiting = {"reason": "ErrImagePull", "message": "nightrec:latest: not found"}
        status = {"name": "base", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        return {
            **pod.asked,
            "status": {"phase": "Pending", "containerStatuses": [{**status, "state": {"waiting": waiting}}]},
        }


class EvictingHandler(KubernetesHandler):
    """A cluster whose node runs out of memory; what ran there is not seen again."""

    def _document(self, pod: Container) -> dict[str, Any]:
        if pod.code_now() is None:
            return super()._document(pod)
        return {
            **pod.asked,
            "status": {"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"},
        }


class ForbiddingHandler(KubernetesHandler):
    """A cluster in which we may start nothing."""

    def handle_call(self) -> None:
        self.body()
        if self.command == "POST":
            self.answer({"kind": "Status", "message": "pods is forbidden: no right to create", "code": 403}, 403)
        else:
            self.answer({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []})


@contextmanager
def serving(handler: type[Handler], entrypoint: str) -> Iterator[Engine]:
    """Serve one of the APIs on a free port of loopback."""

    class Own(handler):  # type: ignore[misc,valid-type]
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        server.daemon_threads = True
        Own.engine = Engine(f"127.0.0.1:{server.server_port}", entrypoint)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Own.engine
        server.shutdown()
