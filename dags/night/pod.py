"""A step in a Kubernetes pod; imported only where a surface asks for it, since it needs Airflow's provider."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout
from kubernetes.client import models as k8s
from kubernetes.client.exceptions import ApiException

from night.settings import Surface, said
from night.step import in_time, settle

_LAST_LINES = 20  # of the log; the answer is among them
_STARTUP_SECONDS = 1_800  # a node with a GPU may have to be made first
_USER = 10_001  # the image's own


class PodStep(KubernetesPodOperator):
    """Runs the image of ``nightrec``; its exit code means what it means in a process."""

    def __init__(self, *, wait_seconds: int, **options: Any) -> None:
        """Take the options of the operator, and how long to wait for a day that is not there."""
        super().__init__(**options)
        self.wait_seconds = wait_seconds
        self._ended: tuple[int, str] | None = None
        self._lost = ""  # why a pod ended that did not come to the command's end

    def execute(self, context: Any) -> None:
        """Run it; what it says is the task's log, and its answer the task's XCom."""
        self.arguments = said(self.arguments)
        template = self.pod_template_file
        if template and not Path(template).is_file():  # the operator would go on without it
            raise AirflowFailException(f"NIGHTREC_POD_TEMPLATE: expected a file on the worker, found {template!r}")
        with in_time(self, self.arguments[0]):
            self._run(context)
        if self._ended is None:
            raise AirflowException("the pod is gone, and nobody saw how it ended; it may be tried again")
        answer = settle(context, self.arguments[0], *self._ended, self.wait_seconds)
        context["ti"].xcom_push(key="return_value", value=answer)

    def _run(self, context: Any) -> None:
        try:
            super().execute(context)
        except (AirflowException, ApiException) as error:
            if isinstance(error.__context__, AirflowTaskTimeout):  # the operator speaks of what it removed then
                raise error.__context__ from None
            if self._killed:
                raise AirflowException("the pod was told to stop; it may be tried again") from error
            if self._ended is None:
                why = "; ".join(filter(None, [self._lost, reason_of(error)]))
                raise AirflowException(
                    f"the pod did not run the command to its end; it may be tried again: {why}"
                ) from error

    def cleanup(self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Any = None) -> None:
        """Look at how the command ended and what it answered, before the pod is deleted."""
        code = exit_code(remote_pod, self.base_container_name)
        if code is not None:
            self._ended = code, self._log_of(remote_pod)
        elif remote_pod and remote_pod.status and remote_pod.status.reason:
            self._lost = f"{remote_pod.status.reason}: {remote_pod.status.message}"
        super().cleanup(pod, remote_pod, xcom_result, context)

    def _log_of(self, pod: Any) -> str:
        try:
            response = self.client.read_namespaced_pod_log(
                pod.metadata.name,
                pod.metadata.namespace,
                container=self.base_container_name,
                tail_lines=_LAST_LINES,
                _preload_content=False,  # or a log that is JSON comes back as Python
            )
        except ApiException as error:
            self.log.warning("the pod's answer could not be read: %s", error.reason)
            return ""
        log: bytes = response.data
        return log.decode(errors="replace")


def reason_of(error: BaseException) -> str:
    """Say in a line why a pod failed: what came first, before what the operator says of its removal."""
    first = error.__context__ or error
    text = first.body or first.reason if isinstance(first, ApiException) else str(first)
    with suppress(ValueError, TypeError, KeyError):  # the API answers with a document that has a message
        text = json.loads(text)["message"]
    return " ".join(str(text).split())


def exit_code(pod: Any, container: str) -> int | None:
    """Read from a pod's status how a container of it ended; None if it has not."""
    statuses = (pod.status.container_statuses or []) if pod and pod.status else []
    states = [status.state for status in statuses if status.name == container and status.state]
    return next((state.terminated.exit_code for state in states if state.terminated), None)


def pod(verb: str, surface: Surface) -> dict[str, Any]:
    """Say what the pod of a step is like: not root, nothing to write to but ``/tmp`` and the claim, secrets by name."""
    texts = surface.texts
    volumes = [k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource())]
    mounts = [k8s.V1VolumeMount(name="tmp", mount_path="/tmp")]
    if texts["CLAIM"]:
        claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=texts["CLAIM"])
        volumes.append(k8s.V1Volume(name="job", persistent_volume_claim=claim))
        mounts.append(k8s.V1VolumeMount(name="job", mount_path=texts["MOUNT"]))
    secret = k8s.V1SecretEnvSource(name=texts["ENV_SECRET"])
    return {
        "image": surface.image(verb),
        "name": f"nightrec-{verb}",
        "namespace": texts["NAMESPACE"],
        "service_account_name": texts["SERVICE_ACCOUNT"],
        "automount_service_account_token": False,
        "pod_template_file": texts["POD_TEMPLATE"] or None,
        "env_vars": [k8s.V1EnvVar(name="HOME", value="/tmp")],
        "env_from": [k8s.V1EnvFromSource(secret_ref=secret)] if texts["ENV_SECRET"] else [],
        "volumes": volumes,
        "volume_mounts": mounts,
        "container_resources": _resources(verb, surface),
        "security_context": k8s.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=_USER,
            run_as_group=_USER,
            fs_group=_USER,
            seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
        ),
        "container_security_context": k8s.V1SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=k8s.V1Capabilities(drop=["ALL"]),
        ),
        "startup_timeout_seconds": _STARTUP_SECONDS,
        "container_name_log_prefix_enabled": False,
        "log_events_on_failure": True,
        "log_pod_spec_on_failure": False,
    }


def _resources(verb: str, surface: Surface) -> k8s.V1ResourceRequirements:
    cpus, memory = surface.texts["CPUS"], surface.texts["MEMORY"]
    requests = {name: amount for name, amount in (("cpu", cpus), ("memory", memory)) if amount}
    limits = {"memory": memory} if memory else {}
    if surface.on_gpu(verb):
        limits["nvidia.com/gpu"] = str(surface.numbers["GPUS"])
    return k8s.V1ResourceRequirements(requests=requests or None, limits=limits or None)
