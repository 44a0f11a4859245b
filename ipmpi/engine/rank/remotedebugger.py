"""Debugpy in this rank, for an editor at a client: attached and detached by the node agent, in the main thread.

This process listens nowhere: it makes a pair of connected sockets, and gives one of them to the agent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ...protocol import rankmessages as rm
from ...transport.packets import stream_pair
from ..session.editordebugger import EditorDebugger


class RemoteDebugger:
    """The rank's end of the connection.

    Args:
        say: sends a message, with descriptors, to the agent; returns whether it was sent.
    """

    def __init__(self, say: Callable[..., bool]) -> None:
        self._say = say
        self._debugger: EditorDebugger | None = None

    def wanted(self, number: int) -> None:
        """Serve this connection, and no other; 0: none."""
        debugger, self._debugger = self._debugger, None
        if debugger is not None:
            debugger.detach()
        if number:
            self._attach(number)

    def _attach(self, number: int) -> None:
        try:
            theirs, ours = stream_pair()
            with theirs:
                self._debugger = EditorDebugger(ours)
                self._say(rm.DebuggerAttached(number, _folder()), (), (theirs.fileno(),))
        except ImportError as error:
            self._failed(number, self._install(error))
        except Exception as error:
            self._failed(number, f"debugpy could not be attached: {type(error).__name__}: {error}")

    def _failed(self, number: int, trouble: str) -> None:
        self._say(rm.DebuggerAttached(number, "", trouble))

    def _install(self, error: ImportError) -> str:
        return (
            f"debugpy is missing in the Python of this engine ({error}). On {os.uname().nodename}, or wherever "
            f"that Python is installed, type: {sys.executable} -m pip install 'ipmpi[debug]'. Engines find it "
            "without a restart"
        )

    def forked(self) -> None:
        """Let go of it, in a forked child."""
        debugger, self._debugger = self._debugger, None
        if debugger is not None:
            debugger.abandon()


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""
