"""A step in a Docker container; imported only where a surface asks for it, since it needs Airflow's provider."""

import os
from contextlib import suppress
from typing import Any

from airflow.providers.docker.exceptions import DockerContainerFailedException
from airflow.providers.docker.operators.docker import DockerOperator
from docker.errors import APIError
from docker.types import DeviceRequest, Mount

from night.settings import Surface, said
from night.step import in_time, settle

_LAST_LINES = 20  # of standard output; the answer is the last one


class DockerStep(DockerOperator):
    """Runs the image of ``nightrec``; its exit code means what it means in a process."""

    def __init__(self, *, arguments: list[str], passed_on: list[str], wait_seconds: int, **options: Any) -> None:
        """Take the arguments, the names of variables to pass on, and how long to wait for a day that is not there."""
        super().__init__(command=arguments, **options)
        self.passed_on = passed_on
        self.wait_seconds = wait_seconds

    def execute(self, context: Any) -> dict[str, Any]:
        """Run it; what it says is the task's log, and its answer the task's XCom."""
        self.command = said(self.command)
        self._private_environment = {name: os.environ[name] for name in self.passed_on if name in os.environ}
        self._end_earlier_tries(context["ti"])
        try:
            with in_time(self, self.command[0]), suppress(DockerContainerFailedException):  # the exit code says more
                super().execute(context)
            container = self.container["Id"]
            code = self.cli.inspect_container(container)["State"]["ExitCode"]
            output = self.cli.logs(container, stdout=True, stderr=False, tail=_LAST_LINES)
        finally:
            if self.container:
                self._remove(self.container["Id"])
        return settle(context, self.command[0], code, output.decode(errors="replace"), self.wait_seconds)

    def _end_earlier_tries(self, ti: Any) -> None:
        """End what a try left running whose worker died: it would hold the GPU, and nobody would remove it."""
        names = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": str(ti.map_index)}
        self.labels = {f"nightrec.{name}": value for name, value in names.items()}
        ours = {"label": [f"{name}={value}" for name, value in self.labels.items()]}
        for left in self.cli.containers(all=True, filters=ours):
            self.log.warning("an earlier try left the container %s: it is ended", left["Id"])
            with suppress(APIError):  # whoever runs it removes it at this moment
                self.cli.stop(left["Id"])
            self._remove(left["Id"])

    def _remove(self, container: str) -> None:
        """Remove a container, and with it the volume ``/tmp`` that the image asks for."""
        try:
            self.cli.remove_container(container, v=True, force=True)
        except APIError as error:
            self.log.warning("the container %s was not removed: %s", container, error)


def container(verb: str, surface: Surface) -> dict[str, Any]:
    """Say what the container of a step is like."""
    texts, gpus = surface.texts, surface.numbers["GPUS"]
    folder = texts["MOUNT"]
    return {
        "image": surface.image(verb),
        "passed_on": [name.strip() for name in texts["ENV"].split(",") if name.strip()],
        "network_mode": texts["NETWORK"] or None,
        "mounts": [Mount(source=folder, target=folder, type="bind")] if folder else [],
        "mount_tmp_dir": False,
        "device_requests": [DeviceRequest(count=gpus, capabilities=[["gpu"]])] if surface.on_gpu(verb) else None,
    }
