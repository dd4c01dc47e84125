"""The execution profile: on what the night computes. Equal profiles give equal bytes; others are refused."""

import ctypes
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from artifacts.errors import DeviceError, StaleRunError, UsageError
from artifacts.run import Run

CPU_PROVIDER = "CPUExecutionProvider"
GPU_PROVIDER = "CUDAExecutionProvider"

# What the kernels of ONNX Runtime and FAISS choose by, widest first.
_SIMD = ("amx_int8", "avx512_vnni", "avx512f", "avx2", "avx", "sse4_2", "sve", "asimd")
_LIBRARIES = ("pyarrow", "numpy", "duckdb")


@dataclass(frozen=True, slots=True)
class Device:
    """Where models run.

    Attributes:
        name: ``"cpu"`` or ``"gpu"``.
        provider: ONNX Runtime's name of it.
        hardware: CPU class, or model of the GPU.
        reason: Why it was chosen, for people.
    """

    name: str
    provider: str
    hardware: str
    reason: str


def choose_device(device: str) -> Device:
    """Say what ``cpu``, ``gpu`` or ``auto`` means on this machine; ``gpu`` never means a CPU.

    Raises:
        UsageError: If *device* is another word.
        DeviceError: If a GPU is asked for and there is none, or both wheels of ONNX Runtime are installed.
    """
    if device not in {"cpu", "gpu", "auto"}:
        raise UsageError(f"device: expected cpu, gpu or auto, found {device!r}")
    runtime, _ = runtime_wheel()
    if device == "cpu":
        return Device("cpu", CPU_PROVIDER, cpu_class(), "asked for")
    try:
        if runtime != "onnxruntime-gpu":
            raise DeviceError("the installed ONNX Runtime is the CPU wheel; install nightrec[gpu] in place of [cpu]")
        return Device("gpu", GPU_PROVIDER, gpu_model(), "asked for" if device == "gpu" else "auto: it is there")
    except DeviceError as error:
        if device == "gpu":
            raise DeviceError(f"device = gpu, but no GPU can be used: {error}") from error
        return Device("cpu", CPU_PROVIDER, cpu_class(), f"auto: no GPU can be used: {error}")


def runtime_wheel() -> tuple[str, str]:
    """Name the installed wheel of ONNX Runtime and its version.

    Raises:
        DeviceError: If there is none, or both: they write over each other's files.
    """
    found = _installed("onnxruntime", "onnxruntime-gpu")
    if len(found) == 1:
        return next(iter(found.items()))
    if not found:
        raise DeviceError("ONNX Runtime is not installed; install nightrec[cpu] or nightrec[gpu]")
    named = " and ".join(f"{name} {version}" for name, version in sorted(found.items()))
    raise DeviceError(f"{named} are both installed and overwrite each other; remove both, then install one of them")


def _installed(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def cpu_class(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name the instruction set and its widest SIMD unit, such as ``"x86_64 avx512f"``."""
    machine = platform.machine()
    text = cpuinfo.read_text(errors="replace") if cpuinfo.exists() else ""
    lines = (line.partition(":")[2] for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    flags = set(next(lines, "").split())
    return " ".join([machine, *[name for name in _SIMD if name in flags][:1]])


def gpu_model() -> str:
    """Name the first GPU that CUDA shows, such as ``"NVIDIA H100 80GB HBM3"``.

    Raises:
        DeviceError: If there is no driver or no GPU.
    """
    handle, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    _ask_driver(("cuDeviceGet", ctypes.byref(handle), 0), ("cuDeviceGetName", name, len(name), handle))
    return name.value.decode(errors="replace")


def visible_gpus() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` calls each GPU that this process sees, in CUDA's order.

    Raises:
        DeviceError: If there is no driver or no GPU.
    """
    count = ctypes.c_int()
    _ask_driver(("cuDeviceGetCount", ctypes.byref(count)))
    return gpu_names(count.value, os.environ)


def gpu_names(count: int, environment: Mapping[str, str]) -> list[str]:
    """Name the *count* GPUs that CUDA shows: what the variable says, which may be UUIDs, or 0, 1 and so on.

    CUDA takes no notice of what stands behind the first name in the variable that it does not know.
    """
    said = environment.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in said.split(",")] if said else [str(place) for place in range(count)]
    return names[:count]


def _ask_driver(*questions: tuple[Any, ...]) -> None:
    """Call functions of the NVIDIA driver, each by name and arguments."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise DeviceError(f"no NVIDIA driver ({error})") from error
    for call, *arguments in (("cuInit", 0), *questions):
        if (code := getattr(cuda, call)(*arguments)) != 0:
            raise DeviceError(f"{call} of the NVIDIA driver failed with code {code}; is a GPU visible here?")


def resolve_profile(
    device: str, *, batch_users: int, batch_items: int, batch_lists: int, faiss_threads: int, index_type: str
) -> dict[str, Any]:
    """Resolve all that the night's bytes depend on besides its inputs, bundles and config.

    Args:
        device: ``cpu``, ``gpu`` or ``auto``.
        batch_users: Rows of a batch of the user graph.
        batch_items: Rows of a batch of the item graph.
        batch_lists: Rows of a batch of the ranker graph: users, each with all candidates.
        faiss_threads: Threads of k-means, whose result changes with them.
        index_type: ``Flat``, ``SQ8``, ``PQ`` or ``auto``.

    Raises:
        UsageError: If a number is not positive, or *device* is no device.
        DeviceError: If the device is not there.
    """
    sizes = {
        "batch_users": batch_users,
        "batch_items": batch_items,
        "batch_lists": batch_lists,
        "faiss_threads": faiss_threads,
    }
    for name, size in sizes.items():
        if size < 1:
            raise UsageError(f"{name}: expected at least 1, found {size}")
    chosen = choose_device(device)
    wheel, version = runtime_wheel()
    return {
        "device": chosen.name,
        "hardware": chosen.hardware,
        "provider": chosen.provider,
        wheel: version,
        **_installed("faiss-cpu", "faiss-gpu", *_LIBRARIES),
        **sizes,
        "index_type": index_type,
    }


def require_profile(run: Run, *, device: str) -> Device:
    """Resolve the profile again and compare it with the one that *run* was prepared under.

    Batch shape, FAISS threads and index type are taken from the run; machine and libraries are what they are here.

    Raises:
        StaleRunError: If a key differs; the message names it, with both values.
        DeviceError: If a GPU is asked for and there is none.
    """
    chosen = choose_device(device)
    shapes = ("batch_users", "batch_items", "batch_lists", "faiss_threads", "index_type")
    given = {name: run.profile[name] for name in shapes}
    found = resolve_profile(device, **given)
    for key in sorted(run.profile.keys() | found.keys()):
        was, now = run.profile.get(key, "absent"), found.get(key, "absent")
        if was != now:
            raise StaleRunError(
                f"{run.folder}: prepared under another execution profile: {key} was {was}, here it is {now}; "
                "use the machine and libraries it was prepared with, or run `nightrec prepare` anew"
            )
    return chosen
