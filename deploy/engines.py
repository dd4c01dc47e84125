"""The two ways to build and run an image: Docker where its daemon is, else Buildah as root, without any daemon."""

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).parents[1]
BUILDAH_TOOLS = ("buildah", "mmdebstrap", "unshare", "setpriv", "chroot")
# The base's layout on plain Debian: its Python, and pip in /usr/local, where the official image has both.
STAND_IN = """\
FROM scratch
ADD root.tar /
RUN python3 -m venv /usr/local
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
"""
# The root read-only, /tmp in memory, /job from outside, no network, no capability: what --read-only is to Docker.
ENTER = """\
set -eu
mount --bind {root} {here}
mount -o remount,bind,ro {here}
mount -t tmpfs -o mode=1777 tmpfs {here}/tmp
mount -t proc proc {here}/proc
mount -t sysfs -o ro sysfs {here}/sys
mount --rbind /dev {here}/dev
mount --bind {job} {here}/job
exec setpriv --no-new-privs chroot --userspec={user} --groups= {here} env --ignore-environment {environment} \
    sh -c 'cd "$0" && exec "$@"' {workdir} {command}
"""


class Engine(Protocol):
    """What `make image` asks of an engine."""

    @property
    def name(self) -> str:
        """Its name and version."""

    def build(self, target: str, tag: str, wheels: Path, revision: str) -> None:
        """Build the stage *target* of the Dockerfile as *tag* from the files in *wheels* alone."""

    def size(self, tag: str) -> int:
        """Measure the image *tag*, in bytes."""

    def labels(self, tag: str) -> dict[str, str]:
        """Read the labels of the image *tag*."""

    def run(
        self, tag: str, arguments: Sequence[str], job: Path, *, entry: str | None = None, user: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the image *tag* with a read-only root, without a network, *job* mounted at /job.

        *entry* and *user* stand in for the image's own entry point and user.
        """


def options_of_build(target: str, tag: str, wheels: Path, revision: str) -> list[str]:
    """Write the options that both engines' build commands share."""
    named = [f"--target={target}", f"--tag={tag}", f"--build-context=wheels={wheels}"]
    return [*named, "--build-arg=PIP_NO_INDEX=1", f"--build-arg=REVISION={revision}", str(ROOT)]


@dataclass(frozen=True, slots=True)
class Docker:
    """Docker with BuildKit."""

    name: str

    def build(self, target: str, tag: str, wheels: Path, revision: str) -> None:
        """See `Engine`."""
        checked(["docker", "build", *options_of_build(target, tag, wheels, revision)])

    def size(self, tag: str) -> int:
        """See `Engine`."""
        return int(checked(["docker", "image", "inspect", "--format={{.Size}}", tag]))

    def labels(self, tag: str) -> dict[str, str]:
        """See `Engine`."""
        return dict(json.loads(checked(["docker", "image", "inspect", "--format={{json .Config.Labels}}", tag])))

    def run(
        self, tag: str, arguments: Sequence[str], job: Path, *, entry: str | None = None, user: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """See `Engine`."""
        limits = ["--read-only", "--tmpfs=/tmp", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        stand_in = [*([f"--entrypoint={entry}"] if entry else []), *([f"--user={user}"] if user else [])]
        command = ["docker", "run", "--rm", *limits, f"--volume={job}:/job", *stand_in, tag, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)


@dataclass(frozen=True, slots=True)
class Buildah:
    """Buildah with `--isolation chroot`, its storage in a folder of its own."""

    name: str
    folder: Path

    def call(self, verb: str, *arguments: str) -> str:
        """Run a verb of Buildah on this storage."""
        storage = [f"--root={self.folder / 'storage'}", f"--runroot={self.folder / 'run'}", "--storage-driver=overlay"]
        return checked(["buildah", *storage, verb, *arguments])

    def trusting(self, verb: str, *arguments: str) -> str:
        """Run a verb that asks for a policy of signatures; the storage has none."""
        policy = self.folder / "policy.json"
        policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        return self.call(verb, f"--signature-policy={policy}", *arguments)

    def bring(self, base: str) -> str:
        """Bring the image *base*; say where it is from."""
        try:
            self.trusting("pull", "--quiet", f"docker.io/library/{base}")
        except RuntimeError:
            suite = base.rpartition("-")[2]
            packages = "--include=python3,python3-venv,ca-certificates"
            checked(["mmdebstrap", "--quiet", "--variant=minbase", packages, suite, str(self.folder / "root.tar")])
            (self.folder / "Dockerfile").write_text(STAND_IN)
            tag = f"--tag=docker.io/library/{base}"
            self.trusting("build", "--isolation=chroot", tag, str(self.folder))
            (self.folder / "root.tar").unlink()
            return "Debian packages, under the same name: no registry could be reached"
        return "its registry"

    def build(self, target: str, tag: str, wheels: Path, revision: str) -> None:
        """See `Engine`."""
        how = ["--isolation=chroot", "--pull-never", "--format=docker"]  # OCI has no HEALTHCHECK
        self.trusting("build", *how, *options_of_build(target, tag, wheels, revision))

    def size(self, tag: str) -> int:
        """See `Engine`."""
        (image,) = json.loads(self.call("images", "--json", tag))
        return round(float(image["size"].split()[0]) * {"MB": 1e6, "GB": 1e9}[image["size"].split()[1]])

    def labels(self, tag: str) -> dict[str, str]:
        """See `Engine`."""
        return dict(self._config(tag)["Labels"])

    def run(
        self, tag: str, arguments: Sequence[str], job: Path, *, entry: str | None = None, user: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """See `Engine`; what Docker does with the image's config is done here by hand."""
        config = self._config(tag)
        container = self.trusting("from", "--pull-never", tag).strip()
        here = Path(tempfile.mkdtemp(dir=self.folder))
        script = ENTER.format(
            root=shlex.quote(self.call("mount", container).strip()),
            here=shlex.quote(str(here)),
            job=shlex.quote(str(job)),
            user=user or config["User"],
            environment=shlex.join(config["Env"]),
            workdir=shlex.quote(config["WorkingDir"]),
            command=shlex.join([*([entry] if entry else config["Entrypoint"]), *arguments]),
        )
        apart = ["unshare", "--mount", "--pid", "--fork", "--net", "--ipc", "--uts", "sh", "-c", script]
        finished = subprocess.run(apart, capture_output=True, text=True, check=False)
        self.call("rm", container)
        here.rmdir()
        return finished

    def _config(self, tag: str) -> dict[str, Any]:
        return dict(json.loads(self.call("inspect", "--type=image", tag))["Docker"]["config"])


@contextmanager
def engine(base: str) -> Iterator[tuple[Engine, str]]:
    """Choose an engine, with *base* to build on, and say where that is from; what Buildah stored is gone afterwards."""
    try:
        version = checked(["docker", "version", "--format={{.Server.Version}}"]).strip()
    except (RuntimeError, FileNotFoundError):
        with _buildah(base) as found:
            yield found
    else:
        yield Docker(f"docker {version}"), "its registry"


@contextmanager
def _buildah(base: str) -> Iterator[tuple[Buildah, str]]:
    if missing := [tool for tool in BUILDAH_TOOLS if not shutil.which(tool)]:
        raise SystemExit(
            f"no Docker daemon answers, and {', '.join(missing)} is not installed: install one or the other"
        )
    if os.geteuid() != 0:
        raise SystemExit("no Docker daemon answers; Buildah needs root here")
    version = checked(["buildah", "--version"]).split()[2]
    with tempfile.TemporaryDirectory(prefix="nightrec-image-") as folder:
        buildah = Buildah(f"buildah {version}", Path(folder))
        try:
            yield buildah, buildah.bring(base)
        finally:
            buildah.call("rm", "--all")
            buildah.call("rmi", "--all", "--force")


def checked(command: Sequence[str]) -> str:
    """Run *command* for its output; what it says is the error if it fails."""
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise RuntimeError(f"{shlex.join(command)} ended with {finished.returncode}: {finished.stderr[-2000:]}")
    return finished.stdout
