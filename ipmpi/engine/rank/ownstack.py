"""What a rank does so that its node agent can read its stack: nothing but to allow it, once, at its start.

The agent reads the memory of the rank from outside (:mod:`ipmpi.engine.agent.stackreader`), so it needs neither
its interpreter nor its attention. Where the system does not let it, the rank answers a signal by code in C that
needs no GIL.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
from pathlib import Path
from typing import Final

SIGNAL: Final = int(getattr(signal, "SIGRTMAX", signal.SIGTERM)) - 4
"""Not used by Python, MPI or the C library; the lifeline has the next one."""

YAMA: Final = Path("/proc/sys/kernel/yama/ptrace_scope")
"""What processes may read others of their user: 1 means only their descendants, unless these allow it."""
_DESCENDANTS_ONLY: Final = "1"
_PR_SET_PTRACER: Final = 0x59616D61


class StackSignal:
    """On :data:`SIGNAL`, the stack of the main thread is written into a pipe, also while C code holds the GIL.

    A signal ends ``sleep``, ``poll`` and ``select`` of C code early, so agents send it only as a last resort.

    Attributes:
        number: the signal; 0 if there is no handler for it.
        read_end: for the agent, see :meth:`handed_over`.
    """

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.number = 0
        with contextlib.suppress(ValueError, OSError, RuntimeError):
            faulthandler.register(SIGNAL, self._write_end, all_threads=False, chain=False)
            self.number = SIGNAL

    def handed_over(self) -> None:
        """The agent has its end."""
        os.close(self.read_end)
        self.read_end = -1

    def close(self) -> None:
        """Ignore the signal from now on."""
        if self.number:
            faulthandler.unregister(self.number)
        os.close(self._write_end)


def allow_tracing_by(agent: int, yama: Path = YAMA) -> bool:
    """Let this process and its children read our memory, where the system asks for that; return whether it did."""
    try:
        if not agent or yama.read_text(encoding="ascii").strip() != _DESCENDANTS_ONLY:
            return False
        import ctypes  # not for the many systems that do not ask

        return bool(ctypes.CDLL(None).prctl(_PR_SET_PTRACER, agent, 0, 0, 0) == 0)
    except (OSError, ImportError, AttributeError):
        return False
