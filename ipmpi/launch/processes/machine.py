"""Which machine this is, since its last start."""

from __future__ import annotations

import contextlib
import functools
import platform
import subprocess
import sys

from ipmpi.processid import place


@functools.cache
def identity() -> str:
    """A text that is the same for all processes that can see each other, and another one everywhere else.

    The host's name is not that: a laptop gets another one in another network, and login nodes are rebuilt under
    new ones. A start of the machine has an identifier, made by the system; processes from before it are gone. In a
    container, only the processes in there can be seen.

    Returns:
        The text; ``""`` on a system that has no such identifier.
    """
    if place():
        return place()
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            asked = ["sysctl", "-n", "kern.bootsessionuuid"]
            return subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return ""


def can_see(machine: str, host: str) -> bool | None:
    """Whether a process can be looked for here.

    Args:
        machine: what :func:`identity` gave to it.
        host: the name of its host, then.

    Returns:
        True if it is found here, if it lives; False if it cannot live, as this machine was started anew; None if
        it is, or was, somewhere else.
    """
    own = identity()
    if not machine or not own:
        return True if host == platform.node() else None
    if machine == own:
        return True
    another_start = machine.partition("/")[0] != own.partition("/")[0]
    return False if another_start and host == platform.node() else None
