"""How much memory this process may still take."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

_CGROUPS = (
    ("memory.max", "memory.current"),  # version 2
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),  # version 1
)


def available_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that can be had without swapping, within what a batch system or container allows; 0 if unknown."""
    found = [_free(proc), *(_left(cgroups, limit, used) for limit, used in _CGROUPS)]
    return max(0, min((size for size in found if size is not None), default=0))


def address_space() -> int:
    """Bytes that this process may map (``ulimit -v``); ``sys.maxsize`` where there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _free(proc: Path) -> int | None:
    try:
        for line in (proc / "meminfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:  # systems without /proc
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _left(cgroups: Path, limit: str, used: str) -> int | None:
    """What is left of the limit of our own control group; None where there is none, or it says ``max``."""
    try:
        group = Path("/proc/self/cgroup").read_text(errors="replace").splitlines()[-1].rpartition(":")[2]
        for folder in (cgroups / group.strip("/"), cgroups):
            if (folder / limit).exists():
                return int((folder / limit).read_text()) - int((folder / used).read_text())
    except (OSError, ValueError, IndexError):
        pass
    return None
