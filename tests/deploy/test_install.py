"""The Dockerfile's own install steps, read from the file and run in a folder instead of an image."""

import json
import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

from deploy.dockerfile import Stage, read, stages

ROOT = Path(__file__).parents[2]
PLACE = "/opt/nightrec"  # of the environment, in the image
BUILDER = stages(read(ROOT / "Dockerfile"))["builder"]
OF_THE_BUILD = ("PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_NO_CACHE_DIR")  # where files come from is this machine's affair


def run_stage(stage: Stage, folder: Path) -> None:
    """Do what *stage* does: in ``source`` for its working directory, ``nightrec`` for the environment it fills."""
    source = folder / "source"
    for instruction in stage.instructions:
        if instruction.keyword == "COPY":
            copy(instruction.text.split(), source)
        if instruction.keyword == "RUN":
            words = [word for word in instruction.text.split() if not word.startswith("--mount=")]
            run(" ".join(words).replace(PLACE, str(folder / "nightrec")), source)


def run(command: str, source: Path) -> None:
    """Run *command* with the base's Python first on the path, and pip told what the Dockerfile tells it."""
    told = dict(word.split("=", 1) for i in BUILDER.instructions if i.keyword == "ENV" for word in i.text.split())
    told = {name: value for name, value in told.items() if name not in OF_THE_BUILD}
    path = f"{source.parent / 'base' / 'bin'}:{os.environ['PATH']}"
    finished = subprocess.run(
        command,
        shell=True,
        cwd=source,
        env={**os.environ, **told, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, f"{command}\n{finished.stderr[-2000:]}"


def copy(words: list[str], source: Path) -> None:
    *names, to = words
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / to, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, source / to)


def install(folder: Path, *names: str) -> Path:
    """Run the stages *names* of the Dockerfile in *folder*; the programs that they install."""
    (folder / "source").mkdir()
    venv.create(folder / "base", with_pip=True, symlinks=True)  # for the base image's Python and pip
    found = stages(read(ROOT / "Dockerfile"))
    for name in names:
        run_stage(found[name], folder)
    return folder / "nightrec" / "bin"


def finds(programs: Path, *names: str) -> set[str]:
    """Which of the modules *names* the installed Python finds."""
    script = "import sys, importlib.util as u; print(*(name for name in sys.argv[1:] if u.find_spec(name)))"
    command = [programs / "python3", "-c", script, *names]
    return {*subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout.split()}


def doctor(programs: Path) -> dict[str, dict[str, str]]:
    """What the doctor finds there, by its name."""
    finished = subprocess.run([programs / "nightrec", "doctor", "--json"], capture_output=True, text=True, check=False)
    return {finding["what"]: finding for finding in json.loads(finished.stdout)["findings"]}


@pytest.mark.image
def test_the_steps_for_the_cpu_make_an_environment_that_is_well(tmp_path: Path) -> None:
    """What the target `cpu` installs is enough for the night, and has neither pip nor torch."""
    programs = install(tmp_path, "builder", "packages-cpu", "nightrec")

    assert not {what for what, finding in doctor(programs).items() if finding["problem"]}
    assert finds(programs, "onnxruntime", "faiss", "nightrec", "pip", "setuptools", "torch") == {
        *("onnxruntime", "faiss", "nightrec")
    }


@pytest.mark.slow
def test_the_steps_for_the_gpu_make_an_environment_of_one_cuda(tmp_path: Path) -> None:
    """All that the target `gpu` installs can be loaded, and the only thing missing here is a GPU."""
    programs = install(tmp_path, "builder", "packages-gpu", "nightrec")

    found = doctor(programs)
    assert found["CUDA"]["found"] == "onnxruntime-gpu for CUDA 12, faiss-gpu for CUDA 12"
    assert {what for what, finding in found.items() if finding["problem"]} <= {"GPU", "FAISS GPUs"}
    assert "CUDAExecutionProvider" in found["providers"]["found"]
    assert finds(programs, "onnxruntime", "faiss", "torch", "pip") == {"onnxruntime", "faiss"}
