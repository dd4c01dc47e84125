"""Faults of the store: not there, slow, cut, failing, throttling, deaf, stale, shut; each against a night in S3."""

import contextlib
import random
import shutil
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.crashes import Trial
from tests.faults.stage import PATIENCE, STEPS, YESTERDAY, Night, Stage, clear, lost
from tests.stores import servers
from tests.stores.servers import BUCKET, Proxy, Request, Server

RETRY_SECONDS = 6  # of the nights that a fault is made for
_LOCK = threading.Lock()
_SERVER: list[Server] = []
_STACK = ExitStack()  # the server lives as long as this process
Meddle = Callable[[Request], None]


@dataclass(frozen=True)
class Remote:
    """A prefix of its own in the server, with yesterday's release in it."""

    server: Server
    prefix: str

    def download(self, folder: Path) -> Path:
        """Copy all that is there into a plain folder, past the proxy; of a version without a manifest nothing."""
        client = _client(self.server)
        for key in _keys(client, self.prefix):
            path = folder / key.removeprefix(f"{self.prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        for version in (folder / "releases").iterdir():
            if not (version / "manifest.json").exists():
                shutil.rmtree(version)  # a killed writer's, which no reader sees
        return folder


def _client(server: Server) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{server.port}",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        region_name="us-east-1",
    )


def _keys(client: Any, prefix: str) -> list[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
    return [entry["Key"] for page in pages for entry in page.get("Contents", ())]


def _first(stage: Stage) -> Server:
    """Start the server once, and let it hold yesterday's release under ``first``."""
    with _LOCK:
        if not _SERVER:
            server = _STACK.enter_context(servers.s3())
            night = _night(stage, server, "first", stage.base.parent / "first-in-store", server.environment, 60)
            _run(night, server.environment, date=YESTERDAY)
            _SERVER.append(server)
    return _SERVER[0]


def _night(
    stage: Stage, server: Server, prefix: str, folder: Path, environment: dict[str, str], seconds: int = RETRY_SECONDS
) -> Night:
    folder.mkdir(parents=True, exist_ok=True)
    config = stage.shop.config(folder)
    text = config.read_text().replace('root = "store"', f'root = "s3://{BUCKET}/{prefix}"')
    config.write_text(f'{text}\n[store]\ncache = "{folder / "cache"}"\nretry_seconds = {seconds}\n')
    return Night(stage.shop, folder / "store", config)


def _run(night: Night, environment: dict[str, str], **options: Any) -> None:
    night.start(environment=environment, **options)
    if night.wait():
        raise RuntimeError(f"a night with nothing in its way failed: {night.said()[-500:]}")


def _fresh(stage: Stage) -> Remote:
    server, prefix = _first(stage), uuid.uuid4().hex
    client = _client(server)
    for key in _keys(client, "first"):
        copy = f"{prefix}/{key.removeprefix('first/')}"
        client.copy_object(Bucket=BUCKET, Key=copy, CopySource={"Bucket": BUCKET, "Key": key})
    return Remote(server, prefix)


def _outcome(stage: Stage, remote: Remote, folder: Path, night: Night, code: int, *, must: bool) -> str:
    """Judge what the fault left, then let the night be done again with nothing in its way, from another cache."""
    said = night.said()
    if code and (must or (wrong := clear(said))):
        return f"it failed with {code}: {said[-400:]}" if must else wrong
    if leaked := [secret for secret in (servers.SECRET, servers.KEY_ID) if secret in said]:
        return f"it told {leaked}"
    if problem := lost(stage, remote.download(folder / "left")):
        return problem
    again = _night(stage, remote.server, remote.prefix, folder / "again", remote.server.environment, 60)
    again.start(environment=remote.server.environment)
    if again.wait():
        return f"the rerun failed: {again.said()[-400:]}"
    return lost(stage, remote.download(folder / "done"), whole=True)


@contextmanager
def _through(remote: Remote, meddle: Meddle) -> Iterator[Proxy]:
    with servers.between(remote.server) as proxy:
        proxy.meddle = meddle
        yield proxy


def _meddled(make: Callable[[random.Random], Meddle], *, must: bool = False) -> Trial:
    """A trial in which each request passes *make*'s function; *must* the night get through all the same?"""

    def trial(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
        remote = _fresh(stage)
        with _through(remote, make(random_)) as proxy:
            seconds = 60 if must else RETRY_SECONDS
            night = _night(stage, remote.server, remote.prefix, folder / "night", proxy.environment, seconds)
            night.start(environment=proxy.environment)
            code = night.wait(2 * PATIENCE)
        return _outcome(stage, remote, folder, night, code, must=must)

    return trial


def refused(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """Nobody listens there any more, from a random step on."""
    remote = _fresh(stage)
    with servers.between(remote.server) as proxy:
        night = _night(stage, remote.server, remote.prefix, folder / "night", proxy.environment)
        night.start(environment=proxy.environment)
        night.wait_into(STEPS[number % len(STEPS)], random_.uniform(0, 0.5))
    code = night.wait(2 * PATIENCE)
    return _outcome(stage, remote, folder, night, code, must=False)


def killed(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """The night is killed with -9 while it speaks with the store."""
    remote = _fresh(stage)
    night = _night(stage, remote.server, remote.prefix, folder / "night", remote.server.environment)
    night.start(environment=remote.server.environment)
    night.wait_into(STEPS[number % len(STEPS)], random_.uniform(0, 0.5))
    night.end(signal.SIGKILL, group=True)
    return _outcome(stage, remote, folder, night, 0, must=False)


def _slow(random_: random.Random) -> Meddle:
    return lambda request: time.sleep(random_.choice([0, 0, 0, 0.02, 0.2]))


def _cut(random_: random.Random) -> Meddle:
    def meddle(request: Request) -> None:
        if request.method == "GET" and "list-type" not in request.path and random_.random() < 0.2:
            request.cut_after = random_.choice([0, 1, 100, 5_000])

    return meddle


def _cut_upload(random_: random.Random) -> Meddle:
    def meddle(request: Request) -> None:
        if request.method == "PUT" and request.body and random_.random() < 0.15:
            request.answer, request.lose_answer = (500, b""), True  # the store has not heard of it, nor we of the store

    return meddle


def _answers(random_: random.Random, share: float, *answers: tuple[int, str]) -> Meddle:
    def meddle(request: Request) -> None:
        if random_.random() < share:
            status, code = random_.choice(answers)
            said = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
            request.answer = (status, said.encode())

    return meddle


def _deaf(random_: random.Random) -> Meddle:
    def meddle(request: Request) -> None:
        if request.method in {"PUT", "POST", "DELETE"} and random_.random() < 0.2:
            request.lose_answer = True

    return meddle


def _expired(random_: random.Random) -> Meddle:
    left = [random_.randint(0, 250)]

    def meddle(request: Request) -> None:
        left[0] -= 1
        if left[0] < 0:
            request.answer = (
                403,
                b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>old</Message></Error>",
            )

    return meddle


def stale(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """Listings tell what was there before: each is as it was when it was asked for first."""
    remote = _fresh(stage)
    listed: dict[str, bytes] = {}

    def meddle(request: Request) -> None:
        if request.method != "GET" or "list-type" not in request.path:
            return
        if request.path not in listed:
            _, _, listed[request.path] = servers._forward(remote.server.port, request)
        request.answer = (200, listed[request.path])

    with _through(remote, meddle) as proxy:
        night = _night(stage, remote.server, remote.prefix, folder / "night", proxy.environment)
        night.start(environment=proxy.environment)
        code = night.wait(2 * PATIENCE)
    return _outcome(stage, remote, folder, night, code, must=False)


def unreachable(stage: Stage, folder: Path, random_: random.Random, number: int) -> str:
    """There is no store at all: the night ends soon, and says so."""
    with contextlib.closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        environment = servers.s3_environment(listening.getsockname()[1])
    remote = _fresh(stage)
    night = _night(stage, remote.server, remote.prefix, folder / "night", environment)
    night.start(environment=environment)
    code = night.wait(2 * PATIENCE)
    if code != 1 or "cannot be reached" not in night.said():
        return f"expected the code 1 and why, found {code}: {night.said()[-300:]}"
    return _outcome(stage, remote, folder, night, code, must=False)


_BUSY = ((503, "SlowDown"), (429, "SlowDown"))
_BROKEN = ((500, "InternalError"), (503, "ServiceUnavailable"))

KINDS: dict[str, tuple[Trial, int, int]] = {
    "not there": (unreachable, 2, 1),
    "refused from a step on": (refused, 7, 1),
    "killed while it is spoken with": (killed, 14, 1),
    "slow": (_meddled(_slow, must=True), 3, 1),
    "cut in the middle of an answer": (_meddled(_cut, must=True), 5, 1),
    "cut in the middle of an upload": (_meddled(_cut_upload, must=True), 5, 1),
    "500s and 503s, one in eight": (_meddled(lambda r: _answers(r, 0.12, *_BROKEN), must=True), 5, 1),
    "500s and 503s, always": (_meddled(lambda r: _answers(r, 1.0, *_BROKEN)), 2, 1),
    "throttling, one in eight": (_meddled(lambda r: _answers(r, 0.12, *_BUSY), must=True), 5, 1),
    "lost answers to writes": (_meddled(_deaf, must=True), 7, 1),
    "stale listings": (stale, 3, 1),
    "expired credentials": (_meddled(_expired), 7, 1),
}
