"""Latency and throughput between a client and its engines."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

REPEATS = 20
"""Calls per latency. The median is reported: the first calls are slower, and some are delayed by chance."""

PUSHES = 5


def _median_seconds(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def measure(client: Any, push_size: int) -> dict[str, tuple[float, str]]:
    """Measure the latency of an empty command (ms), and the throughput of a push of ``push_size`` doubles (MB/s).

    Args:
        client: a client or view with at least one engine. The name ``_ipmpi_benchmark`` is used on its engines.
        push_size: size of the data in doubles of 8 bytes. The throughput counts each engine's copy.
    """
    ids = client.get_ids()
    data = os.urandom(8 * push_size)
    namespace = {"_ipmpi_benchmark": data}

    def latency(targets: list[int]) -> tuple[float, str]:
        return (1e3 * _median_seconds(lambda: client.execute("pass", targets, True), REPEATS), "msec")

    def throughput(targets: list[int]) -> tuple[float, str]:
        seconds = _median_seconds(lambda: client.push(namespace, targets, True), PUSHES)
        return (len(targets) * len(data) / 1e6 / seconds, "MB/sec")

    report = {
        "single_engine_latency": latency(ids[:1]),
        "all_engine_latency": latency(ids),
        "all_engine_push": throughput(ids),
        "single_engine_push": throughput(ids[:1]),
    }
    client.execute("del _ipmpi_benchmark", ids, True)
    return report
