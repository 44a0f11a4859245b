"""Ends a rank when the agent of its node has ended, whatever the rank does.

The agent has one end of a pipe, the rank the other. When the agent's process ends, the system sends the rank a
signal, whose default action ends it: also while a C library holds the interpreter. Its stack is written to the log
before. While the rank is idle the signal is blocked, since it sees the end of its socket and can exit regularly.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import importlib
import os
import signal
import struct
import threading
from typing import Any, Final

# The functions of the module signal convert to enums: 20 microseconds a call, twice a command.
_signals: Final[Any] = importlib.import_module("_signal")

_SIGNAL: Final = int(getattr(signal, "SIGRTMAX", signal.SIGTERM)) - 3
"""Not used by Python, MPI or the C library."""
_F_SETSIG: Final = 10
_F_SETOWN_EX: Final = 15
_OWNER: Final = struct.Struct("ii")
_THIS_THREAD: Final = 0


class Lifeline:
    """The rank's end of the pipe.

    Args:
        descriptor: that end; owned by this object.
        log: the file to which the stack is written.
    """

    def __init__(self, descriptor: int, log: Any) -> None:
        self._descriptor = descriptor
        with contextlib.suppress(ValueError, OSError, RuntimeError):
            faulthandler.register(_SIGNAL, log, all_threads=True, chain=True)
        self.hold()
        fcntl.fcntl(descriptor, _F_SETOWN_EX, _OWNER.pack(_THIS_THREAD, threading.get_native_id()))
        fcntl.fcntl(descriptor, _F_SETSIG, _SIGNAL)
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)

    def hold(self) -> None:
        """Block the signal: no user code runs."""
        _signals.pthread_sigmask(signal.SIG_BLOCK, (_SIGNAL,))

    def let_through(self) -> None:
        """Unblock the signal: user code runs."""
        _signals.pthread_sigmask(signal.SIG_UNBLOCK, (_SIGNAL,))

    def close(self) -> None:
        """Close the pipe: this process exits, or is a forked child."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
