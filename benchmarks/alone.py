"""Run a program in a network of its own that has nothing but the loopback interface, and end all it has started.

Some systems listen on all addresses whatever they are told; here, nobody else reaches them. And some leave
processes behind that nobody finds, as they write over their environment: those end with the namespace.
"""

from __future__ import annotations

import shutil
import subprocess

from .nodes import unshare

_LOOPBACK = 'ip link set lo up && "$@"'
"""The shell stays, as the first process of all: a program would have to take in those that lose their parents."""


def why_not() -> str:
    """Why this machine does not let us have such a network, or nothing."""
    missing = [name for name in ("unshare", "ip") if shutil.which(name) is None]
    if missing:
        return f"no {' and no '.join(missing)} here (Debian: util-linux, iproute2)"
    tried = subprocess.run([*prefix(), "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() or "refused" if tried.returncode else ""


def prefix() -> list[str]:
    """What to write before a command, to run it there."""
    processes = ("--pid", "--fork", "--kill-child", "--mount-proc")
    return [*unshare("--net", *processes), "sh", "-c", _LOOPBACK, "sh"]
