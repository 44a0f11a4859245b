"""Part ``farm``: tasks."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from ipmpi.client import TaskClient

from . import machine
from .cluster import Target
from .figures import Figure, from_times, greedy_bound, single
from .goals import QUEUE_TASKS
from .timing import sample
from .workloads import nothing, pause

TRIAL = 1_000
MOST = 100_000
SECONDS = 3.0
"""A run of no-op tasks has as many as take so long, by a trial of TRIAL, but MOST at most."""


def count_for(trial_seconds: float) -> int:
    """How many tasks take about ``SECONDS``, in full thousands."""
    fitting = int(TRIAL * SECONDS / max(trial_seconds, 1e-9))
    return min(MOST, max(TRIAL, fitting // 1000 * 1000))


def no_ops(tc: TaskClient, repeat: int) -> tuple[int, list[float]]:
    """Map tasks that do nothing: how many at a time, and the seconds of each time."""
    count = count_for(min(sample(lambda: tc.map(nothing, range(TRIAL)), 3)))
    return count, sample(lambda: tc.map(nothing, range(count)), min(repeat, 3), budget=8.0)


def measure(tc: TaskClient, engines: int, repeat: int) -> Iterator[Figure]:
    """No-op tasks by map and one by one, the time of one, and how well uneven tasks are balanced."""
    count, times = no_ops(tc, repeat)
    yield from_times("tasks", f"map, {count:,} no-op tasks", "tasks/s", times, count)
    few = min(count, 20_000)

    def one_by_one() -> None:
        for future in [tc.submit(nothing) for _ in range(few)]:
            future.result()

    times = sample(one_by_one, repeat, budget=5.0)
    yield from_times("submit_gather", f"submit {few:,} one by one", "tasks/s", times, few)
    times = sample(lambda: tc.submit(nothing).result(), 100 * repeat, warm=20)
    yield from_times("submit_result", "one task, submit to result", "ms", times)
    yield balance(tc, engines, min(1_000, 200 * repeat))


def balance(tc: TaskClient, engines: int, count: int) -> Figure:
    """By how much ``count`` tasks of 1 to 50 ms take longer than on engines that are never idle nor late."""
    source = random.Random(20)  # the same tasks in each run
    durations = [source.uniform(0.001, 0.050) for _ in range(count)]
    (seconds,) = sample(lambda: tc.map(pause, durations), 1, warm=0)
    excess = 100 * (seconds / greedy_bound(durations, engines) - 1)
    return single("greedy", f"{count:,} tasks of 1-50 ms: over the greedy bound", "%", excess)


def measure_queue(tc: TaskClient, target: Target, count: int) -> Iterator[Figure]:
    """``count`` no-op tasks at once: how soon the first result is there, and what they cost the controller.

    Args:
        tc: the client.
        target: a cluster of our own, whose controller is looked at.
        count: of tasks, all handed over before the first result is taken.

    Raises:
        RuntimeError: not as many results came as there were tasks.
    """
    assert target.controller_pid is not None, "only of a controller of our own"
    tc.map(nothing, range(TRIAL))
    machine.forget_peak(target.controller_pid)
    before = machine.resident_bytes(target.controller_pid)
    start = time.perf_counter()
    results = tc.imap(nothing, range(count))
    handed_over = time.perf_counter()
    next(results)
    first = time.perf_counter() - handed_over
    arrived = 1 + sum(1 for _ in results)
    seconds = time.perf_counter() - start
    grown = machine.peak_bytes(target.controller_pid) - before
    if arrived != count:
        raise RuntimeError(f"{arrived} results came of {count} tasks. That is a bug")
    yield from_times("queue_rate", f"map, {count:,} no-op tasks at once", "tasks/s", [seconds], count)
    yield single("queue_handed_over", "... all handed over", "s", handed_over - start)
    yield single("queue_first", "... the first result, after that", "ms", 1e3 * first)
    key = "queue_memory" if count == QUEUE_TASKS else "queue_memory_other"  # the goal is for that many
    yield single(key, f"controller grows by, with {count:,} tasks", "MB", grown / 1e6)
