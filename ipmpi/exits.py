"""How processes end, in words."""

from __future__ import annotations

import signal
from typing import Final

ABORT: Final = "MPI_Abort was called here:"
"""The line before a stack that ranks write when they call MPI_Abort."""


def signal_name(number: int) -> str:
    """``SIGSEGV`` for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def how_it_ended(code: int) -> str:
    """Words for an exit code as :class:`subprocess.Popen` gives it: negative for a signal."""
    return f"exit code {code}" if code >= 0 else f"killed by {signal_name(-code)}"
