"""A step in a container and in a pod: what is asked for, and that its end means what it means in a process."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.dags.conftest import ROOT, Inside
from tests.dags.engines import (
    Container,
    DockerHandler,
    Engine,
    EvictingHandler,
    ForbiddingHandler,
    KubernetesHandler,
    NoImageHandler,
    serving,
    until,
)

pytestmark = pytest.mark.airflow

PREPARED = {"prepare": {"date": "2026-11-25", "run_key": "0a1b"}}
ANSWER = {"date": "2026-11-25", "run_key": "0a1b", "release": None}
ENGINES = {
    "docker": DockerHandler,
    "kubernetes": KubernetesHandler,
    "no image": NoImageHandler,
    "evicting": EvictingHandler,
    "forbidding": ForbiddingHandler,
}
Script = Callable[[str], None]
Run = Callable[..., tuple[dict[str, Any], Engine]]


@pytest.fixture(params=["docker", "kubernetes"])
def run(request: pytest.FixtureRequest, inside: Inside, tmp_path: Path) -> Iterator[Run]:
    """Run a step in Docker or Kubernetes, of which a real server takes the calls; it runs the command here."""
    handler = ENGINES[request.param]
    with serving(handler, str(tmp_path / "nightrec")) as engine:
        kube = tmp_path / "kubeconfig"
        context = {"name": "c", "context": {"cluster": "k", "user": "u"}}
        cluster = {"name": "k", "cluster": {"server": f"http://{engine.address}"}}
        users = [{"name": "u", "user": {}}]
        kube.write_text(
            json.dumps({"contexts": [context], "current-context": "c", "clusters": [cluster], "users": users})
        )
        given = {
            "NIGHTREC_WHERE": "docker" if handler is DockerHandler else "kubernetes",
            "DOCKER_HOST": f"tcp://{engine.address}",
            "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(
                {"conn_type": "kubernetes", "extra": {"kube_config_path": str(kube)}}
            ),
        }

        def call(
            verb: str, answers: dict[str, Any], *, stopped_after: float = 0, **environment: str
        ) -> tuple[dict[str, Any], Engine]:
            return inside("step", verb, answers, {}, stopped_after, **given, **environment), engine

        yield call


def test_the_command_line_log_and_answer_are_those_of_a_process(run: Run, command: Script, tmp_path: Path) -> None:
    command(f"echo items: 10 rows >&2; sleep 0.2; echo '{json.dumps(ANSWER)}'")

    ended, engine = run("items", PREPARED)

    assert ANSWER in (ended["result"], ended["pushed"].get("return_value"))
    assert any("items: 10 rows" in line for line in ended["log"])
    (container,) = engine.containers
    asked = container.asked.get("Cmd") or container.asked["spec"]["containers"][0]["args"]
    config = str(tmp_path / "configs" / "shop.toml")
    assert asked == ["items", "--config", config, "--json", "--date", "2026-11-25", "--run", "0a1b"]
    assert container.removed


@pytest.mark.parametrize(
    ("end", "raised", "says"),
    [
        ("exit 1", "AirflowException", "ended with exit code 1; it may be tried again"),
        ("exit 3", "AirflowFailException", "ended with exit code 3, refused: 2 gates"),
        ("exit 4", "AirflowFailException", "ended with exit code 4, the input is wrong"),
        ("exit 5", "AirflowRescheduleException", ""),
        ("kill -9 $$", "AirflowException", "ended with exit code 137; it may be tried again"),
    ],
)
def test_the_exit_code_means_what_it_means_in_a_process(
    run: Run, command: Script, end: str, raised: str, says: str
) -> None:
    command(f"""echo '{{"error": "2 gates", "refused": ["a: 1"]}}'; {end}""")

    ended, engine = run("check", PREPARED)

    assert ended["raised"] == raised
    assert says in ended["says"]
    assert engine.containers[0].removed


def test_a_task_that_is_stopped_leaves_no_container(run: Run, command: Script) -> None:
    """The container is told to stop, and is removed; the task may be tried again."""
    command("trap 'kill $!; exit 143' TERM; sleep 60 & wait")

    ended, engine = run("score", PREPARED, stopped_after=1)

    (container,) = engine.containers
    assert container.stopped
    assert container.removed
    assert container.wait() == 143
    assert "may be tried again" in ended["says"]


def test_a_step_that_hangs_leaves_no_container(run: Run, command: Script) -> None:
    """At the end of its time the container is told to stop, and is removed; the task may be tried again."""
    command("trap 'kill $!; exit 143' TERM; sleep 60 & wait")

    ended, engine = run("score", PREPARED, NIGHTREC_TIMEOUT_SECONDS="2")

    (container,) = engine.containers
    assert container.removed
    assert container.wait() == 143
    start = "nightrec score was stopped, since it was not done within 2 s (NIGHTREC_TIMEOUT_SECONDS); it may be tried"
    assert start in ended["says"]


@pytest.mark.parametrize("run", ["docker"], indirect=True)
def test_a_container_gets_what_the_settings_say(run: Run, command: Script) -> None:
    """Docker: a mount at the same path, a network, GPUs, and of the worker's variables those that are named."""
    command(f"echo '{json.dumps(ANSWER)}'")
    settings = {
        "NIGHTREC_ENV": "AWS_REGION, NOT_SET",
        "AWS_REGION": "eu-1",
        "NIGHTREC_NETWORK": "inner",
        "NIGHTREC_MOUNT": "/srv/job",
        "NIGHTREC_GPUS": "1",
        "NIGHTREC_GPU_IMAGE": "nightrec:gpu",
    }

    run("items", PREPARED, **settings)
    _, engine = run("check", PREPARED, **settings)

    items, check = (container.asked for container in engine.containers)
    assert (items["Image"], check["Image"]) == ("nightrec:gpu", "nightrec:latest")
    assert items["Env"] == ["AWS_REGION=eu-1"]
    host = items["HostConfig"]
    assert host["NetworkMode"] == "inner"
    assert host["Mounts"] == [{"Target": "/srv/job", "Source": "/srv/job", "Type": "bind", "ReadOnly": False}]
    (device,) = host["DeviceRequests"]
    assert (device["Count"], device["Capabilities"]) == (1, [["gpu"]])
    assert "DeviceRequests" not in check["HostConfig"]
    assert engine.containers[0].volumes_removed  # /tmp is one: spilled data of each step would stay


@pytest.mark.parametrize("run", ["docker"], indirect=True)
def test_a_container_that_outlived_its_worker_is_ended(run: Run, command: Script) -> None:
    """By the next try of the same task; that of another group of the same step goes on."""
    command(f"echo '{json.dumps(ANSWER)}'")
    _, engine = run("score", PREPARED)
    labels = engine.containers[0].asked["Labels"]
    left, other = (Container({"Labels": {**labels, "nightrec.map_index": n}}, ["sleep", "60"]) for n in ("1", "0"))
    engine.containers += [left, other]

    ended, _ = run("score", PREPARED)

    assert (left.stopped, left.removed, left.volumes_removed) == (True, True, True)
    assert (other.stopped, other.removed) == (False, False)
    other.stop()
    assert other.wait() == left.wait() == 143
    assert ended["result"] == ANSWER
    assert any("an earlier try left the container 1: it is ended" in line for line in ended["log"])


@pytest.mark.parametrize(
    ("run", "why"),
    [
        ("no image", "Image cannot be pulled, unable to start: ErrImagePull nightrec:latest: not found"),
        ("evicting", "Evicted: the node was low on memory; Pod "),
        ("forbidding", "pods is forbidden: no right to create"),
    ],
    indirect=["run"],
)
def test_a_pod_that_did_not_run_says_why(run: Run, command: Script, why: str) -> None:
    """In one line, the failure's message and so the webhook's; the node or the registry may be well at the next try."""
    command("sleep 1")

    ended, engine = run("items", PREPARED)

    for container in engine.containers:
        container.wait()
    start = "the pod did not run the command to its end; it may be tried again: "
    assert (ended["raised"], ended["says"][: len(start) + len(why)]) == ("AirflowException", start + why)
    assert "\n" not in ended["says"]


@pytest.mark.parametrize("run", ["kubernetes"], indirect=True)
def test_a_pod_that_outlived_its_worker_is_found_again(run: Run, command: Script, tmp_path: Path) -> None:
    """The next try starts no other; it waits for this one's end, and takes its answer."""
    command(f"echo '{json.dumps(ANSWER)}'")
    _, engine = run("items", PREPARED)
    later = {**ANSWER, "run_key": "2c3d"}
    script = f"until [ -e {tmp_path}/end ]; do sleep 0.1; done; echo '{json.dumps(later)}'"
    left = Container(engine.containers[0].asked, ["sh", "-c", script])
    engine.containers.append(left)

    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(run, "items", PREPARED)
        until(lambda: left.followed or asked.done())
        (tmp_path / "end").touch()
        ended, _ = asked.result()

    assert engine.containers[1:] == [left]
    assert ended["pushed"]["return_value"] == later
    assert left.removed


@pytest.mark.parametrize("run", ["kubernetes"], indirect=True)
def test_a_template_that_is_not_there_is_an_error(run: Run) -> None:
    """Without it the pod would run elsewhere, and find no config."""
    ended, engine = run("items", PREPARED, NIGHTREC_POD_TEMPLATE="/nightrec/pod.yaml")

    assert (ended["raised"], ended["says"]) == (
        "AirflowFailException",
        "NIGHTREC_POD_TEMPLATE: expected a file on the worker, found '/nightrec/pod.yaml'",
    )
    assert engine.containers == []


def test_a_pod_gets_what_the_settings_say(inside: Inside) -> None:
    """Not root, nothing to write to but ``/tmp`` and the claim, secrets by name, a GPU for what opens a model."""
    settings = {
        "NIGHTREC_WHERE": "kubernetes",
        "NIGHTREC_GPUS": "2",
        "NIGHTREC_GPU_IMAGE": "registry/nightrec:gpu",
        "NIGHTREC_NAMESPACE": "night",
        "NIGHTREC_SERVICE_ACCOUNT": "nightrec",
        "NIGHTREC_CLAIM": "job",
        "NIGHTREC_ENV_SECRET": "store",
        "NIGHTREC_CPUS": "4",
        "NIGHTREC_MEMORY": "16Gi",
    }

    pods = {verb: inside("pod", verb, [verb, "--json"], **settings) for verb in ("prepare", "score", "publish")}

    for verb, pod in pods.items():
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        assert pod["metadata"]["namespace"] == "night"
        assert pod["metadata"]["name"].startswith(f"nightrec-{verb}-")
        spec = pod["spec"]
        assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("nightrec", False)
        assert spec["restartPolicy"] == "Never"
        assert spec["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert spec["volumes"] == [
            {"name": "tmp", "emptyDir": {}},
            {"name": "job", "persistentVolumeClaim": {"claimName": "job"}},
        ]
        (container,) = spec["containers"]
        assert container["args"] == [verb, "--json"]
        assert container["command"] == []  # the image's own entry point
        assert container["volumeMounts"] == [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "job", "mountPath": "/job"},
        ]
        assert container["envFrom"] == [{"secretRef": {"name": "store"}}]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        gpu = {} if verb == "publish" else {"nvidia.com/gpu": "2"}
        assert container["image"] == ("nightrec:latest" if verb == "publish" else "registry/nightrec:gpu")
        assert container["resources"] == {
            "requests": {"cpu": "4", "memory": "16Gi"},
            "limits": {"memory": "16Gi", **gpu},
        }


def test_a_pod_is_built_on_a_template(inside: Inside, tmp_path: Path) -> None:
    """What the settings have no name for is said by a file on the worker, which is read when the task runs."""
    template = tmp_path / "pod.yaml"
    template.write_text(
        "{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {nodeSelector: {gpu: h100}, "
        "tolerations: [{key: nvidia.com/gpu, operator: Exists}], containers: [{name: base, image: none}]}}"
    )

    pod = inside("pod", "items", ["items"], NIGHTREC_WHERE="kubernetes", NIGHTREC_POD_TEMPLATE=str(template))

    assert pod["spec"]["nodeSelector"] == {"gpu": "h100"}
    assert pod["spec"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert pod["spec"]["containers"][0]["image"] == "nightrec:latest"


def test_the_pods_of_the_example_are_what_kubernetes_takes(inside: Inside) -> None:
    """Settings and template of `deploy/kubernetes/` make one valid pod, with all that either says."""
    folder = ROOT / "deploy" / "kubernetes"
    settings = yaml.safe_load((folder / "airflow.yaml").read_text())["data"]
    settings |= {"NIGHTREC_POD_TEMPLATE": str(folder / "pod.yaml")}

    pod = inside("pod", "items", ["items"], **settings)

    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    (container,) = pod["spec"]["containers"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {"config": "/config", "cache": "/cache", "tmp": "/tmp", "job": "/job"}
    assert {volume["name"] for volume in pod["spec"]["volumes"]} == mounted.keys()
    assert {"name": "NIGHTREC_CACHE", "value": "/cache"} in container["env"]
    assert container["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/gpu": "1"}
    assert pod["spec"]["serviceAccountName"] == "nightrec-shop"
