"""What this machine is, and what its processes use, as ``/proc`` tells it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..memory import available_bytes as available_bytes


def describe(mpi_library: str) -> dict[str, Any]:
    """Hardware and software that figures depend on."""
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gb": round(_kilobytes(Path("/proc/meminfo"), "MemTotal") / 1e6, 1),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(terse=True),
        "python": f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})",
        "mpi": " ".join(mpi_library.strip("\0 \n").split("\n", 1)[0].split(", package", 1)[0].split()) or "none",
        "tls": "TLS 1.3 on every link (it cannot be switched off)",
    }


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
        fields = Path("/proc", str(pid), "stat").read_text(errors="replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def resident_bytes(pid: int) -> int:
    """Memory that a process has now."""
    return _kilobytes(Path("/proc", str(pid), "status"), "VmRSS") * 1024


def peak_bytes(pid: int) -> int:
    """The most that it ever had, or had since :func:`forget_peak`."""
    return _kilobytes(Path("/proc", str(pid), "status"), "VmHWM") * 1024


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


def _kilobytes(path: Path, name: str) -> int:
    first = _field(path, name).partition(" ")[0]
    return int(first) if first.isdigit() else 0
