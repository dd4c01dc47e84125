"""What a process may use: limits of cgroups of both versions, written as the kernel writes them."""

import os
from pathlib import Path

import pytest

from batch.machine import usable_cores, usable_memory

PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
CORES = len(os.sched_getaffinity(0))


def cgroups(folder: Path, own: str, files: dict[str, str]) -> dict[str, Path]:
    """Write a tree of cgroups and the list of those of this process."""
    for name, text in files.items():
        (folder / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "fs" / name).write_text(text)
    (folder / "own").write_text(own)
    return {"mount": folder / "fs", "own": folder / "own"}


def test_without_limits_it_is_the_hardware(tmp_path: Path) -> None:
    """No cgroups, or cgroups that say "max" and -1: all cores of the affinity, all memory."""
    nothing = {"mount": tmp_path / "none", "own": tmp_path / "none"}
    second = cgroups(tmp_path / "2", "0::/job\n", {"job/cpu.max": "max 100000\n", "job/memory.max": "max\n"})
    first = cgroups(
        tmp_path / "1",
        "4:memory:/job\n1:cpu,cpuacct:/job\n",
        {
            "memory/job/memory.limit_in_bytes": f"{2**63 - 4096}\n",
            "cpu,cpuacct/job/cpu.cfs_quota_us": "-1\n",
            "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
        },
    )

    for where in (nothing, second, first):
        assert usable_cores(**where) == CORES
        assert usable_memory(**where) == PHYSICAL


@pytest.mark.parametrize(("quota", "cores"), [(100_000, 1), (50_000, 1), (1_000, 1), (99_000_000, CORES)])
def test_a_quota_is_as_many_cores_as_it_keeps_busy(tmp_path: Path, quota: int, cores: int) -> None:
    """Half a core is one thread, and a quota of 990 cores gives no core that is not there."""
    second = cgroups(tmp_path / "2", "0::/\n", {"cpu.max": f"{quota} 100000\n"})
    first = cgroups(
        tmp_path / "1", "1:cpu:/\n", {"cpu/cpu.cfs_quota_us": f"{quota}\n", "cpu/cpu.cfs_period_us": "100000\n"}
    )

    assert usable_cores(**second) == usable_cores(**first) == cores


def test_the_least_limit_on_the_way_to_the_root_counts(tmp_path: Path) -> None:
    """A pod's limit stands above its container's; a neighbour's is none of ours."""
    files = {
        "pod/memory.max": "300000000\n",
        "pod/container/memory.max": "400000000\n",
        "pod/container/cpu.max": "max 100000\n",
        "pod/neighbour/memory.max": "100000000\n",
    }
    where = cgroups(tmp_path, "9:name=systemd:/elsewhere\n0::/pod/container\n", files)

    assert usable_memory(**where) == 300_000_000
    assert usable_cores(**where) == CORES


def test_a_path_of_the_host_falls_back_to_what_is_mounted(tmp_path: Path) -> None:
    """In a container of version 1 the list names the host's path, and the mount shows the container's own files."""
    files = {"memory/memory.limit_in_bytes": "200000000\n"}
    where = cgroups(tmp_path, "4:memory:/kubepods/pod7/container3\n", files)

    assert usable_memory(**where) == 200_000_000


def test_what_cannot_be_read_is_no_limit(tmp_path: Path) -> None:
    """A limit in other words than the kernel's is passed over."""
    where = cgroups(tmp_path, "0::/\n", {"memory.max": "a lot\n", "cpu.max": "much\n"})

    assert usable_memory(**where) == PHYSICAL
    assert usable_cores(**where) == CORES
