"""What this process may use of its machine: cores and memory, by its affinity, its cgroups and the hardware.

A container's limits are those of its cgroup and of every cgroup above it (docs.kernel.org, cgroup-v2: "cpu.max" and
"memory.max"; cgroup-v1: "cpu.cfs_quota_us" and "memory.limit_in_bytes"). A limit of which nothing can be read is none.
"""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_MOUNT, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores(*, mount: Path = _MOUNT, own: Path = _OWN) -> int:
    """Say how many cores this process may keep busy: those it may run on, or fewer where a cgroup has a quota.

    Args:
        mount: Where the cgroups are.
        own: Lists those of this process, ``number:controllers:path`` a line.

    Returns:
        At least 1; a part of a core counts as one.
    """
    cores = float(len(os.sched_getaffinity(0)))
    for folder in _folders("cpu", mount, own):
        words = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        with suppress(ValueError):  # "max"; and -1, which is no quota either, is no positive number
            quota, period = (int(word) for word in words)
            cores = min(cores, quota / period) if min(quota, period) > 0 else cores
    return max(1, math.ceil(cores))


def usable_memory(*, mount: Path = _MOUNT, own: Path = _OWN) -> int:
    """Say how many bytes this process and those beside it may hold; arguments as in :func:`usable_cores`."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _folders("memory", mount, own):
        words = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        with suppress(ValueError):
            (limit,) = (int(word) for word in words)
            memory = min(memory, limit)
    return memory


def _folders(controller: str, mount: Path, own: Path) -> Iterator[Path]:
    """Walk over the cgroups that limit this process, from its own to the root of each hierarchy.

    Seen from within a container, a path may be one of the host, of which nothing is mounted: what is there is read.
    """
    lines = own.read_text("ascii", "replace").splitlines() if own.exists() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and controller not in controllers.split(","):
            continue
        root = mount / controllers if controllers else mount
        folder = root / path.lstrip("/")
        yield from (one for one in (folder, *folder.parents) if one.is_relative_to(root))


def _words(path: Path) -> list[str]:
    with suppress(OSError):
        return path.read_text("ascii", "replace").split()
    return []
