"""Facts about a process and its machine.

This file is imported here, and sent as source text to engines, which may have another Python, unable to load a
pickled function, and another release of ipmpi. So it uses only old parts of the standard library.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import sys
import tempfile
import time
from importlib import metadata
from typing import Any


def engine_info(token_file: str = "") -> dict[str, Any]:
    """Return facts as plain data.

    Args:
        token_file: name of a file in the folder of ipmpi, whose text is included.
    """
    # The first thing: the client compares this clock with its own.
    now = time.time()
    folder = os.path.expanduser(os.environ.get("IPYTHONDIR") or "~/.ipython")
    token = ""
    if token_file:
        with contextlib.suppress(OSError), open(os.path.join(folder, token_file), encoding="ascii") as file:
            token = file.read(100)
    library, level = _mpi()
    return {
        "time": now,
        "host": os.uname().nodename,
        "python": sys.executable,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "all_cores": os.cpu_count() or 1,
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "fast_network": _fast_network(),
        "limits": _limits(),
        "scratch": _scratch(),
        "versions": _versions(),
        "folder": os.path.abspath(folder),
        "unwritable": _unwritable([os.path.join(folder, "log"), os.getcwd()]),
        "token": token,
        "library": library,
        "thread_level": level,
    }


def _versions() -> dict[str, str]:
    # Not imported: numpy takes a while, and importing mpi4py.MPI may end the process.
    found = {"python": platform.python_version(), "ipmpi": getattr(sys.modules.get("ipmpi"), "__version__", "")}
    for name in ("mpi4py", "numpy", "cloudpickle"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def _limits() -> dict[str, Any]:
    def soft(name: str, at: int = 0) -> int | None:
        number = getattr(resource, name, None)
        value = -1 if number is None else resource.getrlimit(number)[at]
        return None if value == resource.RLIM_INFINITY else value

    return {
        "files": soft("RLIMIT_NOFILE"),
        "files_hard": soft("RLIMIT_NOFILE", 1),
        "locked": soft("RLIMIT_MEMLOCK"),
        "processes": soft("RLIMIT_NPROC"),
        "core": soft("RLIMIT_CORE"),
    }


def _scratch() -> dict[str, Any]:
    # As tempfile does it, but without its search for another folder: that one was not asked for.
    folder = os.environ.get("TMPDIR") or tempfile.gettempdir()
    try:
        descriptor, name = tempfile.mkstemp(prefix="ipmpi", dir=folder)
        os.close(descriptor)
        os.unlink(name)
        error = ""
    except OSError as failure:
        error = failure.strerror or str(failure)
    return {"folder": folder, "free": _free(folder), "error": error, "shared": _free("/dev/shm")}


def _unwritable(folders: list[str]) -> dict[str, str]:
    """Return the folders that cannot be written to, and why; for a missing one, check its parent."""
    found = {}
    for folder in folders:
        there = folder
        while not os.path.isdir(there) and os.path.dirname(there) != there:
            there = os.path.dirname(there)
        try:
            descriptor, name = tempfile.mkstemp(prefix=".ipmpi-doctor-", dir=there)
            os.close(descriptor)
            os.unlink(name)
        except OSError as failure:
            found[folder] = failure.strerror or str(failure)
    return found


def _free(folder: str) -> int | None:
    try:
        status = os.statvfs(folder)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def _fast_network() -> str:
    for folder, title in (("infiniband", "InfiniBand"), ("cxi", "Slingshot"), ("hfi1", "Omni-Path")):
        with contextlib.suppress(OSError):
            cards = sorted(os.listdir(os.path.join("/sys/class", folder)))
            if cards:
                return f"{title} ({cards[0]})"
    return ""


def _mpi() -> tuple[str, str]:
    """Return library and thread level, if this process has joined a communicator."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or not mpi.Is_initialized() or mpi.Is_finalized():
        return "", ""
    level = mpi.Query_thread()
    names = ("single", "funneled", "serialized", "multiple")
    known = {getattr(mpi, "THREAD_" + name.upper()): name for name in names}
    return str(mpi.Get_library_version()).split("\n")[0].split(",")[0].strip("\0 "), known.get(level, "")
