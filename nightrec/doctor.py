"""``nightrec doctor``: what is installed here, whether it fits together, and what to do where it does not."""

import ctypes
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from artifacts.errors import DeviceError, NightrecError
from nightrec.terminal import answer, show

_LIBRARIES = ("numpy", "pyarrow", "duckdb", "obstore", "pydantic", "typer", "rich")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_FAISS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu12")
_TRAINING = ("torch", "keras", "onnx", "onnxscript")
_CUDA_USERS = ("onnxruntime-gpu", "faiss-gpu", "faiss-gpu-cu12", "torch")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: Its name.
        found: What is there.
        problem: What is wrong with it and what to do; empty if nothing is.
    """

    what: str
    found: str
    problem: str = ""


def doctor(
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Say which versions, providers and threads are here, and whether they fit together; exit code 1 if not."""
    findings = examine()
    problems = [f"{finding.what}: {finding.problem}" for finding in findings if finding.problem]
    rows = [(finding.what, finding.found, finding.problem or "ok") for finding in findings]
    show("What this machine has", ("what", "found", "verdict"), rows)
    if json:
        answer({"healthy": not problems, "findings": [asdict(finding) for finding in findings]})
        return int(bool(problems))
    if problems:
        raise DeviceError("; ".join(problems))
    return 0


def examine() -> list[Finding]:
    """Look at this machine and this environment; nothing that is missing is an error here."""
    versions = {
        name: version
        for name in (*_LIBRARIES, *_RUNTIMES, *_FAISS, *_TRAINING)
        if (version := installed(name)) is not None
    }
    return [
        Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *_machine(),
        *(Finding(name, versions.get(name, "missing"), _missing(name, versions)) for name in _LIBRARIES),
        one_wheel("ONNX Runtime", _RUNTIMES, versions),
        one_wheel("FAISS", _FAISS, versions),
        Finding("training", ", ".join(f"{name} {versions[name]}" for name in _TRAINING if name in versions) or "none"),
        cuda_majors({name: metadata.requires(name) or [] for name in _CUDA_USERS if name in versions}, versions),
        *_devices(versions),
        *_threads(versions),
    ]


def installed(name: str) -> str | None:
    """Name the version of the installed distribution *name*, if it is."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _missing(name: str, versions: Mapping[str, str]) -> str:
    return "" if name in versions else "install nightrec again: pip install nightrec"


def _machine() -> list[Finding]:
    from batch.machine import usable_cores, usable_memory

    return [
        Finding("cores", f"{usable_cores()} of {os.cpu_count()} may be used"),
        Finding("memory", f"{usable_memory() / 1e9:.1f} GB may be used"),
    ]


def one_wheel(what: str, names: Sequence[str], versions: Mapping[str, str]) -> Finding:
    """Ask that exactly one of the wheels *names*, which write over each other's files, is installed."""
    found = [f"{name} {versions[name]}" for name in names if name in versions]
    if not found:
        return Finding(what, "none", "the night needs it: pip install 'nightrec[cpu]' or 'nightrec[gpu]'")
    if len(found) > 1:
        both, remedy = " and ".join(found), f"pip uninstall {' '.join(n for n in names if n in versions)}"
        return Finding(what, both, f"{both} write the same files: {remedy}, then install one of them")
    return Finding(what, found[0])


def cuda_majors(requirements: Mapping[str, Sequence[str]], versions: Mapping[str, str]) -> Finding:
    """Ask that all libraries that use CUDA are built for one major version of it.

    The major is read from the wheels' own requirements (``nvidia-cublas-cu12``, ``nvidia-cublas~=13.0``), or from a
    local version such as ``2.13.0+cu130``.
    """
    majors = {}
    for name, lines in requirements.items():
        if major := _major_of(lines) or _major_of_version(versions[name]):
            majors[name] = major
    said = ", ".join(f"{name} for CUDA {major}" for name, major in majors.items()) or "nothing here uses CUDA"
    if len(set(majors.values())) < 2:
        return Finding("CUDA", said)
    return Finding("CUDA", said, f"{said}: install wheels of one major, such as those pinned in nightrec[gpu]")


def _major_of(lines: Sequence[str]) -> str:
    for line in lines:
        if match := re.match(r"nvidia-[a-z-]+-cu(\d\d)\b", line) or re.match(
            r"nvidia-[a-z-]+\s*[~=>]=\s*(\d\d)\.", line
        ):
            return match[1]
    return ""


def _major_of_version(version: str) -> str:
    match = re.search(r"\+cu(\d\d)\d", version)
    return match[1] if match else ""


def _devices(versions: Mapping[str, str]) -> list[Finding]:
    from batch.profile import cpu_class, gpu_model

    findings = [Finding("CPU class", cpu_class())]
    wants_gpu = bool(versions.keys() & {"onnxruntime-gpu", "faiss-gpu", "faiss-gpu-cu12"})
    try:
        findings.append(Finding("GPU", gpu_model()))
    except NightrecError as error:
        problem = "the installed wheels are for a GPU; device = 'gpu' will end with exit code 1" if wants_gpu else ""
        findings.append(Finding("GPU", f"none ({error})", problem))
    if versions.keys() & set(_RUNTIMES):
        findings.append(_providers(versions))
    return findings


def _providers(versions: Mapping[str, str]) -> Finding:
    try:
        import onnxruntime
    except ImportError as error:
        return Finding("providers", "none", f"ONNX Runtime cannot be loaded ({error}); install it again")
    said = ", ".join(onnxruntime.get_available_providers())
    if "onnxruntime-gpu" not in versions:
        return Finding("providers", said)
    if "CUDAExecutionProvider" not in said:
        return Finding("providers", said, "onnxruntime-gpu has no CUDA provider: its files were overwritten; reinstall")
    # That list says what was built in, not what works: where a library is missing, a session silently gets the CPU.
    onnxruntime.preload_dlls()
    try:
        ctypes.CDLL(str(Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return Finding("providers", said, f"the CUDA provider cannot be loaded: {error}; install nightrec[gpu]")
    return Finding("providers", said)


def faiss_gpus(count: int) -> Finding:
    """Ask that a FAISS for GPUs sees one: its wheel brings CUDA, and the driver is the machine's."""
    problem = (
        "" if count else "faiss-gpu sees no GPU; is the driver new enough for CUDA 12 (525), and the GPU handed in?"
    )
    return Finding("FAISS GPUs", str(count), problem)


def _threads(versions: Mapping[str, str]) -> list[Finding]:
    findings = []
    if versions.keys() & set(_FAISS):
        try:
            import faiss

            findings.append(Finding("FAISS threads", str(faiss.omp_get_max_threads())))
            if "faiss-cpu" not in versions:
                findings.append(faiss_gpus(faiss.get_num_gpus()))
        except ImportError as error:
            findings.append(Finding("FAISS threads", "none", f"FAISS cannot be loaded ({error}); install it again"))
    set_here = [f"{name}={os.environ[name]}" for name in _THREAD_VARIABLES if name in os.environ]
    return [*findings, Finding("thread variables", ", ".join(set_here) or "none set")]
