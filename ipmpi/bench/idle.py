"""Part ``idle``: what a cluster needs while nobody asks anything of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from . import machine
from .cluster import Target
from .figures import Figure, single

SETTLE_SECONDS: Final = 1.0


def measure(target: Target, seconds: float) -> Iterator[Figure]:
    """Processor time of all processes of a cluster of ours during ``seconds``, in percent of one core."""
    time.sleep(SETTLE_SECONDS)
    pids = target.pids()
    before, start = machine.cpu_seconds(pids), time.monotonic()
    time.sleep(seconds)
    used, passed = machine.cpu_seconds(pids) - before, time.monotonic() - start
    yield single("idle", f"idle: {len(pids)} processes, of one core", "%", 100 * used / passed)
