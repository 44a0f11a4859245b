"""A clock that never jumps, and goes on while the machine is suspended."""

from __future__ import annotations

import time


def since_boot() -> float:
    """Return the seconds since this machine was started; where there is no such clock, those it was awake."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
