"""The servers, each started once in a test process, and roots in them where nothing is yet."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifacts.mirror import open_mirror
from artifacts.remote import Remote
from tests.night import conftest as nights
from tests.stores import servers
from tests.stores.servers import Proxy, Server

shop, plain = nights.shop, nights.plain  # a shop, and an ordinary night of it in a folder

for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "AZURITE_", "GOOGLE_"))]:
    del os.environ[name]  # whoever runs the tests is nobody here


@pytest.fixture(scope="session")
def s3() -> Iterator[Server]:
    """A server of S3."""
    with servers.s3() as server:
        yield server


@pytest.fixture(scope="session")
def azure() -> Iterator[Server]:
    """A server of Azure's blob store."""
    if not servers.AZURITE.exists():
        pytest.skip("no azurite: run `make .venv-azurite/installed`, which needs npm")
    with servers.azure() as server:
        yield server


@pytest.fixture(params=["s3", "azure"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Each of the servers; this process knows how to reach it."""
    found: Server = request.getfixturevalue(request.param)
    for key, value in found.environment.items():
        monkeypatch.setenv(key, value)
    return found


@pytest.fixture
def remote(server: Server) -> Remote:
    """An empty prefix of each server."""
    return Remote(server.root(), 5)


@pytest.fixture
def root(server: Server, tmp_path: Path) -> Path:
    """A root in each server."""
    return open_mirror(server.root(), cache=tmp_path / "cache", retry_seconds=5, most_bytes=1 << 40)


@pytest.fixture
def proxy(s3: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What stands between this process and the server of S3."""
    with servers.between(s3) as found:
        for key, value in found.environment.items():
            monkeypatch.setenv(key, value)
        yield found


@pytest.fixture
def behind(proxy: Proxy) -> Remote:
    """An empty prefix behind the proxy."""
    return Remote(proxy.server.root(), 3)
