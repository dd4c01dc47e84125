"""The shop, and the ordinary night that other nights are compared with."""

import os
from pathlib import Path

import pytest

from artifacts.store import exclusive
from tests.night.shop import DATE, Shop, run_nightrec, write_bundles, write_data


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Make the shop once, whichever test process comes first."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    shop = Shop(shared / "shop")
    with exclusive(shared / "shop.lock"):
        if not (shop.folder / "ready").exists():
            write_data(shop.data)
            write_bundles(shop)
            (shop.folder / "ready").touch()
    return shop


@pytest.fixture(scope="session")
def plain(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an ordinary night that others are compared with; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("plain")
    finished = run_nightrec("run", "--config", shop.config(folder), "--date", DATE)
    assert finished.returncode == 0, finished.stderr
    return folder
