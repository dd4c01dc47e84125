"""Object stores on this machine: a server of S3, one of Azure, and what goes wrong between them and us."""

import base64
import hashlib
import hmac
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BUCKET = "bucket"
AZURITE = Path(__file__).parents[2] / ".venv-azurite" / "node_modules" / ".bin" / "azurite-blob"
SECRET = "aVerySecretKeyNobodyMayRead"
KEY_ID = "AKIDNOBODYMAYREAD"
_ACCOUNT = "devstoreaccount1"
_ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # public


@dataclass(frozen=True)
class Server:
    """A store that answers.

    Attributes:
        scheme: Of its addresses.
        environment: What a process needs to reach it.
        port: Where it listens, on the loopback.
    """

    scheme: str
    environment: dict[str, str]
    port: int

    def root(self) -> str:
        """Give an address where nothing is yet."""
        return f"{self.scheme}://{BUCKET}/{uuid.uuid4().hex}"


@contextmanager
def s3() -> Iterator[Server]:
    """Run moto's server."""
    port = _free_port()
    with _running([Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port)], port):
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")).close()
        yield Server("s3", s3_environment(port), port)


def s3_environment(port: int) -> dict[str, str]:
    """Say where S3 is; the credentials are such that a test finds them wherever they leak."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def azure() -> Iterator[Server]:
    """Run Azurite."""
    port = _free_port()
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck"]
    with _running([AZURITE, *options, "--disableTelemetry", "--silent"], port):
        _make_container(port)
        yield Server("az", azure_environment(port, _ACCOUNT_KEY), port)


def azure_environment(port: int, key: str) -> dict[str, str]:
    """Say where Azure is."""
    return {
        "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{_ACCOUNT}",
        "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": key,
    }


def _make_container(port: int) -> None:
    now, version = formatdate(usegmt=True), "2021-08-06"
    said = f"x-ms-date:{now}\nx-ms-version:{version}\n/{_ACCOUNT}/{_ACCOUNT}/{BUCKET}\nrestype:container"
    digest = hmac.new(base64.b64decode(_ACCOUNT_KEY), ("PUT" + "\n" * 12 + said).encode(), hashlib.sha256).digest()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/{_ACCOUNT}/{BUCKET}?restype=container",
        method="PUT",
        headers={
            "x-ms-date": now,
            "x-ms-version": version,
            "Content-Length": "0",
            "Authorization": f"SharedKey {_ACCOUNT}:{base64.b64encode(digest).decode()}",
        },
    )
    urllib.request.urlopen(request).close()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def _running(command: list[object], port: int) -> Iterator[None]:
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(3000):
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(120)


@dataclass
class Request:
    """What passes the proxy, and may be changed there.

    Attributes:
        method: ``GET``, ``PUT`` ...
        path: With its query.
        headers: Names as they were sent.
        body: What is sent.
        answer: Sent in place of what the store would answer, which is then not asked: status and body.
        lose_answer: The store does as it is asked, and nobody hears of it.
        cut_after: The answer breaks off after so many bytes.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    answer: tuple[int, bytes] | None = None
    lose_answer: bool = False
    cut_after: int | None = None


@dataclass
class Proxy:
    """Stands between us and a store; *meddle* may change each request."""

    server: Server
    meddle: Callable[[Request], None] = lambda request: None
    seen: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """How the store is reached through it."""
        return {**self.server.environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}


@contextmanager
def between(server: Server) -> Iterator[Proxy]:
    """Put a proxy in front of a server of S3."""
    proxy = Proxy(server)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            request = Request(self.command, self.path, dict(self.headers), self.rfile.read(length))
            proxy.seen.append((self.command, self.path))
            proxy.meddle(request)
            status, headers, body = (
                _forward(server.port, request)
                if request.answer is None
                else (
                    request.answer[0],
                    {},
                    request.answer[1],
                )
            )
            if request.lose_answer:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(status)
            size = headers.pop("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", size)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: request.cut_after])
            if request.cut_after is not None and request.cut_after < len(body):
                self.close_connection = True

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 - the names that the base class looks for

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    proxy.port = listening.server_address[1]
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        listening.shutdown()
        listening.server_close()


def _forward(port: int, request: Request) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        headers = {name: value for name, value in request.headers.items() if name.lower() != "content-length"}
        headers["Content-Length"] = str(len(request.body))
        connection.request(request.method, request.path, request.body, headers)
        found = connection.getresponse()
        hop = {"connection", "transfer-encoding", "server", "date"}
        return found.status, {n: v for n, v in found.getheaders() if n.lower() not in hop}, found.read()
    finally:
        connection.close()


def environment_of(server: "Server | Proxy", cache: Path) -> dict[str, str]:
    """Say all that a process needs."""
    return {**server.environment, "NIGHTREC_CACHE": str(cache), "PATH": os.environ["PATH"]}


def put_behind_our_back(server: Server, url: str, key: str, content: bytes, **headers: str) -> None:
    """Write an object as others do, or as a broken disk of the store would."""
    path = url.removeprefix("s3:/")
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}/{key}", content, method="PUT")
    for name, value in {
        "Content-Type": "application/octet-stream",
        "Authorization": "AWS someone:else",
        **headers,
    }.items():
        request.add_header(name, value)
    urllib.request.urlopen(request).close()
