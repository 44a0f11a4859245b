"""What a controller does for sets of any size: engine sets without processes, which answer as root agents do."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from ipmpi.bench.machine import cpu_seconds
from ipmpi.client import MultiEngineClient
from ipmpi.furl import load
from tests.large_set import LargeSet

from .journal import controller
from .processes import own_bytes

SIZES: Final = (64, 4_096, 65_536)
REPEAT: Final = 10


def cpu_of(pid: int, call: Callable[[], object]) -> float:
    """Return the milliseconds of a process for one call: the median of some."""
    call()
    found = []
    for _ in range(REPEAT):
        before = cpu_seconds([pid])
        call()
        found.append(1e3 * (cpu_seconds([pid]) - before))
    return statistics.median(found)


def row(ranks: int) -> dict[str, Any]:
    """Measure one size."""
    with TemporaryDirectory(prefix="ipmpi-bench-") as folder, controller(Path(folder, "home")) as (told, pid):
        loaded = os.getloadavg()[0]
        began = time.monotonic()
        engines = LargeSet(load(Path(told["engine_furl_file"]), "engine"), ranks)
        try:
            if not engines.registered.wait(120):
                raise RuntimeError(f"{ranks} ranks did not register")
            register = time.monotonic() - began
            with MultiEngineClient(told["multiengine_furl_file"]) as mec:
                seconds = range(0, ranks, 2)
                return {
                    "ranks": ranks, "load": loaded, "register_s": register, "controller_mb": own_bytes(pid) / 1e6,
                    "all_cpu_ms": cpu_of(pid, lambda: mec.execute("pass")),
                    "one_cpu_ms": cpu_of(pid, lambda: mec.execute("pass", targets=ranks // 2)),
                    "second_cpu_ms": cpu_of(pid, lambda: mec.execute("pass", targets=seconds)),
                    "info_cpu_ms": cpu_of(pid, mec.cluster_info),
                }  # fmt: skip
        finally:
            engines.close()


def rows() -> list[dict[str, Any]]:
    """Measure all sizes."""
    return [row(ranks) for ranks in SIZES]
