"""The Dockerfile and its locks: what they say of themselves, without building anything."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from deploy.dockerfile import argument, read, stages
from deploy.lock import IN_PLACE_OF, LEFT_OUT, TARGETS

ROOT = Path(__file__).parents[2]
DOCKERFILES = (ROOT / "Dockerfile", ROOT / "deploy" / "airflow" / "Dockerfile")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = re.compile(r"[-\w]+")


def pins(path: Path) -> dict[str, str]:
    """The versions of a constraints or lock file, by the name of the package."""
    lines = [line.removesuffix("\\").strip() for line in path.read_text().splitlines() if "==" in line]
    return {name.lower().replace("_", "-"): version for name, _, version in (line.partition("==") for line in lines)}


def lock_of(target: str) -> Path:
    return ROOT / "deploy" / "locks" / f"{target}.txt"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_hadolint_finds_nothing(path: Path) -> None:
    """The linter of Dockerfiles has no finding, not even an informal one."""
    command = [Path(sys.executable).with_name("hadolint"), path]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)

    assert finished.returncode == 0, finished.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_base_is_pinned_by_its_full_version(path: Path) -> None:
    """All stages start from one image of a full version, from an earlier stage, or from our own image."""
    found = stages(read(path))
    bases = {stage.base for stage in found.values()} - {"scratch", "$NIGHTREC", *found}

    assert len(bases) == 1
    assert re.fullmatch(r"(python:3\.11\.\d+-slim-bookworm|apache/airflow:3\.\d+\.\d+-python3\.11)", bases.pop())


def test_the_night_on_a_cpu_is_the_default() -> None:
    """The last stage is built where no target is named; the three targets share what `night` says."""
    found = stages(read(DOCKERFILES[0]))

    assert list(found)[-1] == "cpu"
    assert {name for name, stage in found.items() if stage.base == "night"} == {*TARGETS}
    said = {instruction.keyword: instruction.text for instruction in found["night"].instructions}
    assert said["USER"] == "10001:10001"
    assert said["ENTRYPOINT"] == '["nightrec"]'
    assert said["HEALTHCHECK"].endswith('CMD ["nightrec", "doctor"]')
    assert f'image.version="{PROJECT["version"]}"' in said["LABEL"]


def test_every_package_is_copied() -> None:
    """A package that is not in the image is missed at its first import."""
    copied = {i.text.split()[0] for i in stages(read(DOCKERFILES[0]))["nightrec"].instructions if i.keyword == "COPY"}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]

    assert {*packages} <= copied
    kept = (ROOT / ".dockerignore").read_text().split()
    assert {f"!{name}" for name in copied} <= {*kept}


@pytest.mark.parametrize("target", TARGETS)
def test_a_lock_has_what_its_extras_ask_for(target: str) -> None:
    """Each requirement is locked, each version is that of constraints.txt, each file has a sha256."""
    extras, processors = TARGETS[target]
    wanted = [*PROJECT["dependencies"], *(line for name in extras for line in PROJECT["optional-dependencies"][name])]
    locked, constrained = pins(lock_of(target)), pins(ROOT / "constraints.txt")

    assert {NAME.match(line)[0].lower() for line in wanted} <= {*locked}  # type: ignore[index]
    for line in (IN_PLACE_OF.get(line, line) for line in wanted if "==" in line):
        name, version = re.sub(r"\[.*\]", "", line).split("==")
        assert locked[name] == version
    for name in locked.keys() & constrained.keys():
        assert locked[name].removesuffix("+cpu") == constrained[name], name
    assert not locked.keys() & LEFT_OUT
    blocks = lock_of(target).read_text().split("\n", 1)[1].replace("\\\n", "").splitlines()
    assert all(1 <= block.count("--hash=sha256:") <= len(processors) for block in blocks)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_night_has_no_networks(target: str) -> None:
    """Training stays out of the night's images, and so does what trains."""
    assert not {"torch", "keras", "onnx", "onnxscript"} & pins(lock_of(target)).keys()


def test_the_gpu_has_one_major_of_cuda() -> None:
    """All of NVIDIA's libraries are for CUDA 12, and each of the two runtimes is there once."""
    locked = pins(lock_of("gpu"))
    nvidia = [name for name in locked if name.startswith("nvidia-")]

    assert {"nvidia-cublas-cu12", "nvidia-cudnn-cu12", "nvidia-cuda-runtime-cu12"} <= {*nvidia}
    assert all(name.endswith("-cu12") for name in nvidia)
    assert not {"onnxruntime", "faiss-cpu"} & locked.keys()


def test_an_argument_is_read_as_docker_reads_it(tmp_path: Path) -> None:
    """Comments and continued lines are no part of an instruction; a stage may start from an earlier one."""
    path = tmp_path / "Dockerfile"
    path.write_text("# a\nFROM x:1 AS one\nRUN a \\\n # not this\n  && b\nFROM one AS two\nARG K=v w\n")

    found = stages(read(path))

    assert [(i.keyword, i.text) for i in found["one"].instructions] == [("RUN", "a && b")]
    assert (found["two"].base, argument(found["two"].instructions, "K")) == ("one", "v w")
    with pytest.raises(KeyError, match="no ARG L"):
        argument(found["two"].instructions, "L")
