"""Starts the agent of a node, from a process in which MPI and threads may be running.

So it is no fork of this process but a new interpreter. It is in a session of its own, has none of our files but
the socket on which it listens, and is not our child: programs may wait for theirs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from ..errors import LauncherError

_MAIN: Final = """
import os, sys
sys.path[:] = [folder for folder in sys.path if folder]
sys.path.append(sys.argv[1])
from ipmpi.cli.programagent import main
if os.fork():
    os._exit(0)
nowhere = os.open(os.devnull, os.O_RDWR)
for standard in range(3):
    os.dup2(nowhere, standard)
os.close(nowhere)
code = 1
try:
    code = main(int(sys.argv[2]), sys.argv[3])
finally:
    os._exit(code)
"""
"""Errors of the imports are written where the program writes its own."""


def start(descriptor: int, settings: dict[str, Any]) -> None:
    """Start the agent; it listens on this descriptor.

    Raises:
        LauncherError: it cannot be started.
    """
    python = interpreter()
    root = str(Path(__file__).resolve().parent.parent.parent)
    command = [python, "-c", _MAIN, root, str(descriptor), json.dumps(settings)]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd="/", pass_fds=(descriptor,),
            start_new_session=True,
        )  # fmt: skip
        code = process.wait()
    except OSError as error:
        raise LauncherError(f"the agent process of this node cannot be started with {python}: {error}") from None
    if code:
        raise LauncherError(f"the agent process of this node ended at once ({python}, exit code {code})")


def interpreter() -> str:
    """Return the interpreter of this environment, also where Python is embedded in another program."""
    if Path(sys.executable or "").name.startswith("python"):
        return sys.executable
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for folder, found in ((sys.prefix, "python"), (sys.prefix, name), (sys.base_prefix, name)):
        path = os.path.join(folder, "bin", found)
        if os.access(path, os.X_OK):
            return path
    return name
