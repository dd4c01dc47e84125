"""The surfaces that the nights under Airflow run on: each has a DAG, data and a root of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from artifacts.documents import read_json
from artifacts.layout import SIDECAR_SUFFIX
from examples import demo
from tests.airflow.server import Airflow, wait
from tests.airflow.webhook import Webhook
from tests.night.shop import DATE, Shop, content_of, only_release, run_nightrec

SHARDS = 8  # two groups of four: a group that is stopped at its third shard has two behind it and one before it
LAST_DAY = pa.scalar(datetime(2026, 3, 30, 22, tzinfo=UTC), pa.timestamp("s", tz="UTC"))  # 31 March begins in Berlin
SETTINGS = {
    "SCHEDULE": "none",
    "RETRY_SECONDS": "1",
    "WAIT_SECONDS": "4",
    "TIMEZONE": "Europe/Berlin",
}
OWN_SETTINGS = {  # of single surfaces
    "double": {"GPU_POOL": "nightrec_gpu"},
    "backfill": {"SCHEDULE": "0 2 * * *", "WAIT_SECONDS": "600"},
    "late": {"SCHEDULE": "0 2 * * *"},
    "job": {"SCHEDULE": "0 2 * * *", "WAIT_SECONDS": "600"},
    "demo": {"TIMEZONE": "UTC"},
}


@dataclass(frozen=True)
class Surface:
    """One surface.

    Attributes:
        name: Stem of its config.
        config: The config.
        store: Its root.
    """

    name: str
    config: Path
    store: Path

    @property
    def dag(self) -> str:
        return f"nightrec_{self.name}"

    @property
    def consumer(self) -> str:
        return f"{self.dag}_consumer"

    def run_folder(self, date: str = DATE) -> Path:
        """Wait until the run of *date* is prepared; give its folder."""

        def prepared() -> list[Path]:
            return list(self.store.glob(f"runs/{date}/[!.]*/run.json"))

        return wait(f"{self.name}: the run of {date} is prepared", prepared, every=0.02)[0].parent

    def latest(self) -> str:
        """The version that readers are given; empty if there is none."""
        path = self.store / "LATEST"
        return str(read_json(path)["version"]) if path.exists() else ""

    def releases(self) -> list[str]:
        """The versions that are stored."""
        return sorted(path.parent.name for path in self.store.glob("releases/[!.]*/manifest.json"))

    def finished(self) -> dict[Path, tuple[int, int]]:
        """The finished shards of all runs, with what changes when one is written anew."""
        found = {}
        for sidecar in self.store.glob(f"runs/*/[!.]*/**/[!.]*-of-*{SIDECAR_SUFFIX}"):
            path = sidecar.with_name(sidecar.name.removesuffix(SIDECAR_SUFFIX))
            if path.exists():
                status = path.stat()
                found[path] = (status.st_ino, status.st_mtime_ns)
        return found


@dataclass(frozen=True)
class Stage:
    """What all nights under Airflow share.

    Attributes:
        airflow: The Airflow that runs them.
        webhook: What it calls when a night has ended.
        shop: The data of the small shop, and its bundles.
        folder: Of the configs, and of a folder for each surface.
        wanted: What the release of the shop's ordinary night holds, made by ``nightrec run``.
    """

    airflow: Airflow
    webhook: Webhook
    shop: Shop
    folder: Path
    wanted: Mapping[str, bytes]

    def surface(self, name: str) -> Surface:
        """One of the surfaces that were made beforehand."""
        return Surface(name, self.folder / "configs" / f"{name}.toml", self.folder / name / "store")

    def surfaces(self) -> list[str]:
        """The names of all surfaces."""
        return sorted(config.stem for config in (self.folder / "configs").glob("*.toml"))

    def open(self, name: str) -> Surface:
        """Let the scheduler run the nights of a surface, and what consumes them."""
        surface = self.surface(name)
        self.airflow.unpause(surface.consumer)
        self.airflow.unpause(surface.dag)
        return surface

    def tell(self, address: str) -> None:
        """Have Airflow call the webhook at *address*."""
        name = "nightrec_webhook"
        known = [variable["key"] for variable in self.airflow.call("GET", "/api/v2/variables")["variables"]]
        how, path = ("PATCH", f"/api/v2/variables/{name}") if name in known else ("POST", "/api/v2/variables")
        self.airflow.call(how, path, {"key": name, "value": address})

    def let_notes_be_written(self) -> None:
        """Say in a connection where Airflow's REST API is, and who may write notes on tasks."""
        api, login = urlsplit(self.airflow.address), self.airflow.login
        names = {"connection_id": "nightrec_api", "conn_type": "http", "host": api.hostname, "port": api.port}
        said = {**names, "login": login["username"], "password": login["password"]}
        self.airflow.call("POST", "/api/v2/connections", said)

    def consumed(self, surface: Surface, times: int) -> list[str]:
        """Wait until the consumer of a surface was run so often, and well; give the versions that it was run for."""
        versions = []
        wait(f"{surface.consumer} runs", lambda: len(self.airflow.runs(surface.consumer)) >= times)
        for run in self.airflow.runs(surface.consumer):
            self.airflow.succeeded(surface.consumer, run["dag_run_id"])
            events = self.airflow.events_of(surface.consumer, run["dag_run_id"])
            versions += [event["extra"]["version"] for event in events]
        return versions

    def called(self, surface: Surface, run: str) -> list[dict[str, Any]]:
        """What the webhook was told of a run."""
        return [said for said in self.webhook.received if (said["dag_id"], said["run_id"]) == (surface.dag, run)]


def settings(folder: Path, command: Path) -> dict[str, str]:
    """The environment of the DAGs of all surfaces under *folder*."""
    own = {
        f"NIGHTREC_{key}__{surface.upper()}": value
        for surface, values in OWN_SETTINGS.items()
        for key, value in values.items()
    }
    return {
        "NIGHTREC_CONFIGS": str(folder / "configs"),
        "NIGHTREC_COMMAND": str(command),
        **{f"NIGHTREC_{key}": value for key, value in SETTINGS.items()},
        **own,
    }


def write_surfaces(shop: Shop, folder: Path) -> Path:
    """Make every surface under *folder*, and one of which Airflow knows nothing; give the config of that one."""
    for name in ("killed", "cleared", "drained", "zombie", "scheduler", "double", "backfill", "future", "job"):
        write_config(shop, folder, name)
    shared = shop.data / "items.parquet"
    items = folder / "cut" / "items.parquet"
    items.parent.mkdir()
    items.write_bytes(shared.read_bytes())
    write_config(shop, folder, "cut", tables={"items": items})
    write_config(shop, folder, "late", tables={"interactions": folder / "late" / "interactions.parquet"})
    gap = folder / "gap" / "interactions.parquet"
    gap.parent.mkdir()
    interactions = pq.read_table(shop.data / "interactions.parquet")
    pq.write_table(interactions.filter(pc.less(interactions["time"], LAST_DAY)), gap)
    write_config(shop, folder, "gap", tables={"interactions": gap}, more="\n[day]\ndeadline_hours = 1\n")
    write_demo(folder, "demo")
    return write_config(shop, folder / "beside", "ordinary")


def write_config(
    shop: Shop, folder: Path, name: str, *, tables: Mapping[str, Any] | None = None, more: str = ""
) -> Path:
    """Make a surface of the shop; *tables* lie elsewhere than the shop's, *more* is added to its config."""
    written = shop.config(folder / name, tables=tables)
    text = written.read_text()
    for ours, theirs in (
        ("shards = 3", f"shards = {SHARDS}"),
        ("lists = 3", "lists = 0"),  # a catalogue that was cut has fewer
        ('"store"', f'"{folder}/{name}/store"'),
    ):
        text = text.replace(ours, theirs)
    config = folder / "configs" / f"{name}.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(text + more)
    written.unlink()
    return config


def write_demo(folder: Path, name: str) -> Path:
    """Make a surface of the demo's data and bundles."""
    made = demo.FOLDER.resolve()
    text = demo.JOB.replace('"store"', f'"{folder}/{name}/store"')
    for part in ("data", "bundles"):
        text = text.replace(f'"{part}/', f'"{made}/{part}/')
    config = folder / "configs" / f"{name}.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(text)
    return config


def ordinary_night(config: Path, store: Path, date: str) -> dict[str, bytes]:
    """Run a night by ``nightrec run``; give what its release holds."""
    finished = run_nightrec("run", "--config", config, "--date", date)
    assert finished.returncode == 0, finished.stderr
    return content_of(only_release(store))
