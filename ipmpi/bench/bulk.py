"""Part ``bulk``: big arrays, and what a very big one does to the controller."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from ipmpi.client import MultiEngineClient

from . import machine
from .cluster import Target
from .figures import Figure, from_times, single
from .timing import sample
from .workloads import doubles

WATCHER: Final = "ipmpi.bench.watcher"
MEMORY_FACTOR: Final = 4
"""The client, a shared copy on the way, and the engine's own, and some room."""


class WrongData(Exception):
    """What came back is not what was sent."""


def measure(mec: MultiEngineClient, size: int, repeat: int) -> Iterator[Figure]:
    """Push, pull, scatter and gather an array of ``size`` bytes.

    Raises:
        WrongData: an array did not survive.
    """
    import numpy

    array = doubles(size)
    first, *others = mec.get_ids()
    text = f"{array.nbytes / 1e6:g} MB"
    everyone = 1 + len(others)

    def figure(key: str, name: str, unit: str, call: Callable[[], object]) -> Figure:
        return from_times(key, name, unit, sample(call, repeat, budget=3.0), array.nbytes)

    def push(engine: int) -> Callable[[], object]:
        return lambda: mec.push({"bench_a": array}, targets=engine)

    def pull(engine: int) -> Callable[[], Any]:
        return lambda: mec.pull("bench_a", targets=engine)

    def check(what: str, value: Any) -> None:
        if not numpy.array_equal(value, array):
            raise WrongData(f"After {what} of {text} the array differs from the one that was sent. That is a bug")

    try:
        yield figure("push_all", f"push {text} to all {everyone}", "s", lambda: mec.push({"bench_a": array}))
        yield figure("push_one", f"push {text} to engine {first}", "GB/s", push(first))
        for key, engine in [("pull_one", first), *(("pull_other", engine) for engine in others[-1:])]:
            yield figure(key, f"pull {text} from engine {engine}", "GB/s", pull(engine))
            check("pull", pull(engine)()[0])
        yield figure("scatter", f"scatter {text}", "s", lambda: mec.scatter("bench_s", array))
        yield figure("gather", f"gather {text}", "s", lambda: mec.gather("bench_s"))
        check("scatter and gather", mec.gather("bench_s"))
    finally:
        mec.execute("bench_a = bench_s = None")


def lacking_memory(size: int) -> str:
    """A sentence, if a push of ``size`` bytes does not fit into this machine; else nothing."""
    needed, there = MEMORY_FACTOR * size, machine.available_bytes()
    if not there or there >= needed:
        return ""
    return (
        f"A push of {size / 1e9:g} GB needs about {needed / 1e9:.0f} GB of memory for client and engine here, and "
        f"{there / 1e9:.0f} GB are free: left out. Ask for less with --size"
    )


def measure_memory(mec: MultiEngineClient, target: Target, size: int, before: int) -> Iterator[Figure]:
    """Push one array of ``size`` bytes to one engine: growth of the controller, and how it answers meanwhile.

    Args:
        mec: the client.
        target: a cluster of our own.
        size: in bytes.
        before: bytes that the controller had before anything big went through it.

    Raises:
        WrongData: another size arrived.
    """
    assert target.controller_pid is not None, "only of a controller of our own"
    first, text = mec.get_ids()[0], f"{size / 1e9:g} GB"
    array = doubles(size)
    mec.queue_status()
    command = [sys.executable, "-m", WATCHER, str(target.mec_furl)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watcher:
        # In a process of its own, or the sender's own work would count as the controller's delay.
        try:
            assert watcher.stdin is not None
            assert watcher.stdout is not None
            watcher.stdout.readline()
            machine.forget_peak(target.controller_pid)
            times = sample(lambda: mec.push({"bench_b": array}, targets=first), 1, warm=0)
            peak = machine.peak_bytes(target.controller_pid)
            watcher.stdin.close()
            waits: list[float] = json.loads(watcher.stdout.readline())
        finally:
            watcher.kill()
    mec.execute("bench_n = bench_b.nbytes; bench_b = None", targets=first)
    arrived = mec.pull("bench_n", targets=first)[0]
    if arrived != array.nbytes:
        raise WrongData(f"Of {array.nbytes} bytes pushed in one object, {arrived} arrived. That is a bug")
    yield from_times("push_big", f"push {text} to engine {first}", "GB/s", times, array.nbytes)
    yield single("controller_memory", f"controller grows by, in a push of {text}", "MB", (peak - before) / 1e6)
    yield from_times("status_during", f"queue_status during a push of {text}", "ms", waits)
    yield single("status_worst", "... the slowest of them", "ms", max(waits) * 1e3)
