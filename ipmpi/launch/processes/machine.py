"""The identity of this machine, since its last boot."""

from __future__ import annotations

import contextlib
import functools
import platform
import subprocess
import sys

from ipmpi.processid import place


@functools.cache
def identity() -> str:
    """Return an id that exactly those processes share that can see each other.

    Host names are not suited: they change with the network, and login nodes are rebuilt with new ones. The id is
    the boot id of the system; in a container, also its process namespace.

    Returns:
        The id; ``""`` on a system without a boot id.
    """
    if place():
        return place()
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            asked = ["sysctl", "-n", "kern.bootsessionuuid"]
            return subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return ""


def can_see(machine: str, host: str) -> bool | None:
    """Return whether a process would be visible here.

    Args:
        machine: the :func:`identity` of its machine.
        host: the name of its host.

    Returns:
        True if it is visible here while it runs; False if it has ended, as this machine was rebooted; None if it
        is, or was, on another machine.
    """
    own = identity()
    if not machine or not own:
        return True if host == platform.node() else None
    if machine == own:
        return True
    another_start = machine.partition("/")[0] != own.partition("/")[0]
    return False if another_start and host == platform.node() else None
