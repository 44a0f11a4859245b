"""What this machine is, and what its processes use, as the system tells it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from ..memory import available_bytes as available_bytes


def describe(mpi_library: str) -> dict[str, Any]:
    """Hardware and software that figures depend on."""
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 1.024e9, 1),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(terse=True),
        "python": f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})",
        "mpi": " ".join(mpi_library.strip("\0 \n").split("\n", 1)[0].split(", package", 1)[0].split()) or "none",
        "autogroup": shares_by_session(),
        "tls": "TLS 1.3 between machines (it cannot be switched off), Unix sockets on one",
    }


def shares_by_session(setting: Path = Path("/proc/sys/kernel/sched_autogroup_enabled")) -> bool:
    """Whether Linux shares processors among sessions, and then among their processes (sched(7), autogroup)."""
    try:
        return setting.read_text().strip() == "1"
    except OSError:
        return False


def cpu_seconds(pids: Iterable[int]) -> float:
    """Time that these processes have spent on processors so far, in seconds; those that ended count nothing.

    From the scheduler's nanoseconds for each thread; where the system does not count them, from the ticks (of
    10 ms as a rule) of each process.
    """
    return sum(_thread_seconds(pid) or _tick_seconds(pid) for pid in pids)


def _thread_seconds(pid: int) -> float:
    nanoseconds = 0
    try:
        for thread in Path("/proc", str(pid), "task").iterdir():
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return 0.0
    return nanoseconds / 1e9


def _tick_seconds(pid: int) -> float:
    try:
        return float(sum(psutil.Process(pid).cpu_times()[:2]))
    except psutil.Error:
        return 0.0


def resident_bytes(pid: int) -> int:
    """Memory that a process has now; 0 if there is no such process."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def peak_bytes(pid: int) -> int:
    """The most that it ever had, or had since :func:`forget_peak`."""
    kilobytes = _field(Path("/proc", str(pid), "status"), "VmHWM").partition(" ")[0]
    return int(kilobytes) * 1024 if kilobytes else 0


def forget_peak(pid: int) -> None:
    """Let the peak begin anew at what the process has now; where that is forbidden, nothing happens."""
    try:
        Path("/proc", str(pid), "clear_refs").write_text("5")
    except OSError:
        return


def _field(path: Path, name: str) -> str:
    try:
        for line in path.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    except OSError:
        pass
    return ""
