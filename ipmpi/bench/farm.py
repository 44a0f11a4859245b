"""Part ``farm``: tasks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from ipmpi.client import MapTask, TaskClient

from .figures import Figure, from_times, greedy_bound, single
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


def measure(tc: TaskClient, engines: int, repeat: int) -> Iterator[Figure]:
    """No-op tasks by map and one by one, the time of one, and how well uneven tasks are balanced."""
    count = count_for(min(sample(lambda: tc.map(nothing, range(TRIAL)), 1)))
    times = sample(lambda: tc.map(nothing, range(count)), min(repeat, 3), warm=0, budget=8.0)
    yield from_times("tasks", f"map, {count:,} no-op tasks", "tasks/s", times, count)
    submit = submitter(tc)
    few = min(count, 10_000)

    def one_by_one() -> None:
        for result in [submit() for _ in range(few)]:
            result()

    times = sample(one_by_one, repeat, warm=0, budget=5.0)
    yield from_times("submit_gather", f"submit {few:,} one by one", "tasks/s", times, few)
    times = sample(lambda: submit()(), 100 * repeat, warm=20)
    yield from_times("submit_result", "one task, submit to result", "ms", times)
    yield balance(tc, engines, min(1_000, 200 * repeat))


def balance(tc: TaskClient, engines: int, count: int) -> Figure:
    """By how much ``count`` tasks of 1 to 50 ms take longer than on engines that are never idle nor late."""
    source = random.Random(20)  # the same tasks in each run
    durations = [source.uniform(0.001, 0.050) for _ in range(count)]
    (seconds,) = sample(lambda: tc.map(pause, durations), 1, warm=0)
    excess = 100 * (seconds / greedy_bound(durations, engines) - 1)
    return single("greedy", f"{count:,} tasks of 1-50 ms: over the greedy bound", "%", excess)


def submitter(tc: TaskClient) -> Callable[[], Callable[[], Any]]:
    """A function that submits a no-op task, and returns one that waits for its result."""
    modern: Any = getattr(tc, "submit", None)
    if modern is not None:
        submit = modern
        return lambda: submit(nothing).result

    def classic() -> Callable[[], Any]:
        number = tc.run(MapTask(nothing))
        return lambda: tc.get_task_result(number, block=True)

    return classic
