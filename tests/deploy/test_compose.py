"""`deploy/compose.yaml`: valid by its schema, nothing open to the world, no password in the file."""

import base64
import json
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from nightrec.config import read_config

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose.yaml"
ONE_SHOT = {"secrets", "bucket", "nightrec", "init"}  # they end, so nobody asks for their health


def compose(path: Path) -> subprocess.CompletedProcess[str]:
    """Read a compose file as `docker compose config` does; the entry point of the package drops the exit code."""
    (folder,) = find_spec("compose").submodule_search_locations  # type: ignore[union-attr, misc]
    command = [Path(folder) / "docker-compose", "-f", path, "config", "--format", "json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    finished = compose(COMPOSE)
    assert finished.returncode == 0, finished.stderr
    return dict(json.loads(finished.stdout)["services"])


def test_a_key_that_is_none_is_found(tmp_path: Path) -> None:
    """The schema is really asked: a slip in a key fails."""
    path = tmp_path / "compose.yaml"
    path.write_text("services:\n  a:\n    image: x\n    comand: y\n")

    assert "comand" in compose(path).stderr


def test_ports_are_open_to_this_machine_alone(services: dict[str, Any]) -> None:
    """What is published is published on the loopback address."""
    ports = [port for service in services.values() for port in service.get("ports", [])]

    assert [(port["host_ip"], port["published"]) for port in ports] == [("127.0.0.1", "8080")]


def test_images_are_pinned_or_built_here(services: dict[str, Any]) -> None:
    """An image from a registry is named with its full version."""
    for name, service in services.items():
        assert "build" in service or re.search(r":(RELEASE\.|\d+\.\d+)", service["image"]), name


def test_what_stays_up_is_asked_for_its_health(services: dict[str, Any]) -> None:
    """Every service that does not end by itself has a healthcheck and is started again."""
    for name in services.keys() - ONE_SHOT:
        assert services[name]["healthcheck"]["test"], name
        assert services[name]["restart"] == "unless-stopped", name


def test_no_secret_is_in_the_file(services: dict[str, Any]) -> None:
    """Whatever is secret is read from a file that the first start makes."""
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY|CREDENTIALS|SQL_ALCHEMY", variable):
                assert variable.endswith(("_FILE", "_CMD")), (name, variable)
                assert value.removeprefix("cat ").startswith("/secrets/"), (name, variable)


def test_the_settings_are_those_of_the_dag(services: dict[str, Any]) -> None:
    """Each NIGHTREC_ variable is one that the table of settings, or the command, knows."""
    known = {*re.findall(r"NIGHTREC_[A-Z_]+", (ROOT / "docs" / "airflow.md").read_text()), "NIGHTREC_CACHE"}
    said = {name for service in services.values() for name in service.get("environment", {})}

    assert {name for name in said if name.startswith("NIGHTREC_")} <= known


def test_secrets_are_made_once_and_are_of_use(services: dict[str, Any], tmp_path: Path) -> None:
    """The first start makes every file that the others read; the second leaves them; two installations share none."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second, first):
        folder.mkdir(exist_ok=True)
        script = services["secrets"]["command"][0].replace("$$", "$").replace("/secrets", str(folder))
        script = script.replace("chown 50000:0", "true")
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        subprocess.run(["bash", "-euc", script], check=True)
        made = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert not before or made == before

    asked = {name for service in services.values() for name in re.findall(r"/secrets/(\w[\w.]*)", json.dumps(service))}
    other = {path.name: path.read_bytes() for path in second.iterdir()}
    assert asked == made.keys() - {"made"}
    assert all(made[name] != other[name] for name in made.keys() - {"made", "store_user"})
    assert len(base64.urlsafe_b64decode(made["fernet_key"])) == 32
    assert json.loads(made["passwords.json"]).keys() == {"admin"}
    assert made["postgres_password"] in made["sql_alchemy_conn"]
    assert made["store_password"] in made["aws"]


def test_the_config_is_one_that_we_read() -> None:
    """The example's keys are all known, and its root is a store."""
    assert read_config(ROOT / "deploy" / "config" / "shop.toml").surface.root == "s3://nightrec/shop"
