"""Run a program in a network of its own that has nothing but the loopback interface.

Some systems listen on all addresses whatever they are told; here, nobody else reaches them.
"""

from __future__ import annotations

import shutil
import subprocess

from .nodes import unshare

_LOOPBACK = 'ip link set lo up && exec "$@"'


def why_not() -> str:
    """Why this machine does not let us have such a network, or nothing."""
    missing = [name for name in ("unshare", "ip") if shutil.which(name) is None]
    if missing:
        return f"no {' and no '.join(missing)} here (Debian: util-linux, iproute2)"
    tried = subprocess.run([*prefix(), "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() or "refused" if tried.returncode else ""


def prefix() -> list[str]:
    """What to write before a command, to run it there."""
    return [*unshare("--net"), "sh", "-c", _LOOPBACK, "sh"]
