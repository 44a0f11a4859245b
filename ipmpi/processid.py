"""Processes, named so that another process can see whether they still run.

When a connection closes, the process at its other end may have ended, or something between the two has closed it.
On one machine that can be told apart, so the two ends of a link tell each other who they are: the machine's boot,
the namespace of process ids (containers have their own), the process id, and when the process began, since ids are
used again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

LONGEST: Final = 200
"""Characters of an identity at most."""


def birth(pid: int) -> int:
    """When a live process began, in a unit and from a time that this system keeps; 0 if there is no such process.

    On Linux in ticks since the machine started: the time of day at which it began changes when somebody sets the
    clock, as the kernel keeps the ticks only. Elsewhere in milliseconds of unix time, as kept by the system.
    """
    try:
        fields = Path("/proc", str(pid), "stat").read_text(errors="replace").rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        if os.path.exists("/proc/self/stat"):
            return 0
    import psutil  # not for engines and clients on Linux

    try:
        process = psutil.Process(pid)
        return 0 if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time() * 1000)
    except psutil.Error:
        return 0


def own() -> str:
    """The identity of this process; "" where the system does not offer what is needed for one."""
    here = place()
    return f"{here} {os.getpid()} {birth(os.getpid())}" if here else ""


def is_gone(identity: str) -> bool:
    """Whether the process with this identity has certainly ended; False if that cannot be seen from here."""
    where, pid, began = _parts(identity)
    if not pid or not where or where != place():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # another user's, which /proc need not show
    return birth(pid) != began


def number(identity: str) -> int:
    """The process id in an identity; 0 if there is none."""
    return _parts(identity)[1]


def _parts(identity: str) -> tuple[str, int, int]:
    place, _, rest = identity.partition(" ")
    pid, _, began = rest.partition(" ")
    known = all(part.isascii() and part.isdecimal() and len(part) < 19 for part in (pid, began))
    return (place, int(pid), int(began)) if known else (place, 0, 0)


def place() -> str:
    """This boot of this machine, and the namespace of process ids here."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except (OSError, ValueError):
        return ""
