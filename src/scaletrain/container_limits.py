"""What memory and cores this process may use: the machine's, or less where a container sets limits."""

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def memory_limit_bytes(cgroups: Path = CGROUPS) -> int:
    """The memory that this process may use at most."""
    import psutil

    return min([psutil.virtual_memory().total, *_memory_limits(cgroups)])


def cores_available(cgroups: Path = CGROUPS) -> float:
    """The cores that this process may use: by its affinity, and by the quota of its container."""
    return min([len(os.sched_getaffinity(0)), *_core_limits(cgroups)])


def _memory_limits(cgroups: Path) -> list[int]:
    files = _cgroup_files(cgroups, "memory", "memory.max") + _cgroup_files(cgroups, "memory", "memory.limit_in_bytes")
    texts = [file.read_text().strip() for file in files]
    return [int(text) for text in texts if text != "max"]


def _core_limits(cgroups: Path) -> list[float]:
    limits = [file.read_text().split() for file in _cgroup_files(cgroups, "cpu", "cpu.max")]
    for file in _cgroup_files(cgroups, "cpu", "cpu.cfs_quota_us"):
        limits.append([file.read_text().strip(), file.with_name("cpu.cfs_period_us").read_text()])
    return [int(quota) / int(period) for quota, period in limits if quota not in ("max", "-1")]


def _cgroup_files(cgroups: Path, controller: str, name: str) -> list[Path]:
    """Find a limit's file in this process's control group and in those above it, whose limits hold as well.

    Both versions: https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/cgroups.html
    """
    files = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = cgroups / controller if controllers else cgroups
        group = base / path.strip("/")
        files += [each / name for each in (group, *group.parents) if each.is_relative_to(base)]
    return [file for file in dict.fromkeys(files) if file.is_file()]
