"""A rank ends when the agent of its node is gone, whatever it does.

The agent has one end of a pipe, the rank the other. When the agent's process ends, however it does, the system
sends the rank a signal, whose default action ends it: also while a library in C holds the interpreter. Its stack
is written to the log before. While the rank is idle the signal is held back, since it sees the end of its socket,
and can leave in order.
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

# The wrappers in the module signal make enums of all they return: 20 microseconds a call, twice a command.
_signals: Final[Any] = importlib.import_module("_signal")

_SIGNAL: Final = int(getattr(signal, "SIGRTMAX", signal.SIGTERM)) - 3
"""Nobody else's, as far as we know: Python, MPI and the C library use others."""
_F_SETSIG: Final = 10
_F_SETOWN_EX: Final = 15
_OWNER: Final = struct.Struct("ii")
_THIS_THREAD: Final = 0


class Lifeline:
    """The rank's end of the pipe.

    Args:
        descriptor: of that end; taken over.
        log: where the stack goes.
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
        """The signal waits: user code does not run."""
        _signals.pthread_sigmask(signal.SIG_BLOCK, (_SIGNAL,))

    def let_through(self) -> None:
        """User code runs."""
        _signals.pthread_sigmask(signal.SIG_UNBLOCK, (_SIGNAL,))

    def close(self) -> None:
        """This process ends by itself now, or is a forked child."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
