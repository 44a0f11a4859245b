"""How much memory this process may still take."""

from __future__ import annotations

import os
import resource
import sys

from .cgroups import MemoryGroup, memory_groups


def available_bytes(proc: str = "/proc") -> int:
    """Memory that can be had without swapping, within what a batch system or container allows; 0 if unknown."""
    found = [_free(proc), *map(_left, memory_groups(proc=proc))]
    return max(0, min((size for size in found if size is not None), default=0))


def address_space() -> int:
    """Bytes that this process may map (``ulimit -v``); ``sys.maxsize`` where there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _free(proc: str) -> int | None:
    try:
        with open(f"{proc}/meminfo", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name == "MemAvailable":
                    return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:  # systems without /proc
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _left(group: MemoryGroup) -> int | None:
    limit = group.limit()
    used = None if limit is None else group.usage()
    return None if limit is None or used is None else limit - used
