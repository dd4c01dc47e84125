"""`deploy/kubernetes/`: valid by its schemas, one prefix to write to, and at one with the other examples."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
MANIFESTS = sorted(KUBERNETES.glob("*.yaml"))


def validate(path: Path) -> subprocess.CompletedProcess[str]:
    """Ask the schemas of Kubernetes; unknown keys are errors."""
    command = [Path(sys.executable).with_name("kubernetes-validate"), "--strict", path]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def resources() -> dict[str, dict[str, Any]]:
    found = [one for path in MANIFESTS for one in yaml.safe_load_all(path.read_text())]
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in found}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_is_valid(path: Path) -> None:
    """No wrong type and no unknown key."""
    finished = validate(path)

    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_a_key_that_is_none_is_found(tmp_path: Path) -> None:
    """The schemas are really asked: a slip in a key fails."""
    path = tmp_path / "pod.yaml"
    path.write_text((KUBERNETES / "pod.yaml").read_text().replace("nodeSelector:", "nodeSelektor:"))

    assert validate(path).returncode == 1


def test_the_pod_is_what_a_step_needs() -> None:
    """One GPU's model is chosen, the cache and the config are mounted, and what is secret is not here."""
    pod = resources()["Pod/nightrec"]["spec"]
    (container,) = pod["containers"]

    assert container["name"] == "base"  # the name that Airflow's operator merges with
    assert pod["nodeSelector"].keys() == {"nvidia.com/gpu.product"}
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {"config": "/config", "cache": "/cache"}
    assert {volume["name"] for volume in pod["volumes"]} == mounted.keys()
    assert {one["kind"] for one in resources().values()}.isdisjoint({"Secret"})


def test_the_names_fit_together() -> None:
    """The settings of the DAG name the account, the claim and the namespace that are made."""
    made = resources()
    settings = made["ConfigMap/nightrec-airflow"]["data"]

    assert f"Namespace/{settings['NIGHTREC_NAMESPACE']}" in made
    assert f"ServiceAccount/{settings['NIGHTREC_SERVICE_ACCOUNT__SHOP']}" in made
    assert f"PersistentVolumeClaim/{settings['NIGHTREC_CLAIM']}" in made
    known = {*re.findall(r"NIGHTREC_[A-Z_]+", (ROOT / "docs" / "airflow.md").read_text())}
    assert {name.split("__")[0] for name in settings} <= known


def test_the_configs_are_named_where_the_pods_have_them() -> None:
    """A ConfigMap is mounted in its own namespace alone: Airflow sees no folder to list, so each file is named."""
    made = resources()
    pod = made["Pod/nightrec"]["spec"]
    folders = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    maps = {volume["name"]: volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    there = {f"{folders[name]}/{key}" for name, of in maps.items() for key in made[f"ConfigMap/{of}"]["data"]}

    assert {*made["ConfigMap/nightrec-airflow"]["data"]["NIGHTREC_CONFIGS"].split(",")} == there


def test_the_config_is_that_of_compose() -> None:
    """Both examples run the same surface from the same file."""
    config = resources()["ConfigMap/nightrec-config"]["data"]["shop.toml"]

    assert config == (ROOT / "deploy" / "config" / "shop.toml").read_text()


def test_the_account_writes_under_one_prefix() -> None:
    """Its role may write where the surface's root is, and is given to that account alone."""
    policy, trust = (json.loads((KUBERNETES / name).read_text()) for name in ("policy.json", "trust.json"))
    root = re.search(r'root = "s3://(.+)"', (ROOT / "deploy" / "config" / "shop.toml").read_text())
    account = resources()["ServiceAccount/nightrec-shop"]["metadata"]

    writes, lists = policy["Statement"]
    assert writes["Resource"] == f"arn:aws:s3:::{root[1]}/*"  # type: ignore[index]
    assert lists["Action"] == "s3:ListBucket"
    (subject,) = (
        text for key, text in trust["Statement"][0]["Condition"]["StringEquals"].items() if key[-4:] == ":sub"
    )
    assert subject == f"system:serviceaccount:{account['namespace']}:{account['name']}"
