"""Nothing grows: memory, descriptors and threads of client, controller and engine stay as they are in long use.

``IPMPI_SOAK=long`` makes it 100,000 operations and 500 connections (ten minutes on two cores), and prints what
was measured; the ordinary form is a short one.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy
import pytest

from ipmpi.client import MultiEngineClient, TaskClient
from tests.security.cluster import Controller, controller, engines, memory_kib, wait_until

LONG = os.environ.get("IPMPI_SOAK", "") == "long"
OPERATIONS, CONNECTIONS = (100_000, 500) if LONG else (3_000, 30)
GROWTH = 1.05
SLACK_KIB = 512 if LONG else 2048
"""What a short run does not tell from growth: an allocator takes memory by the MiB."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if LONG else 240)]


class Size(NamedTuple):
    """What a process takes up."""

    memory: int
    descriptors: int
    threads: int


class Soak:
    """A controller, an engine, and this process as their client."""

    def __init__(self, running: Controller, engine: int) -> None:
        self.running = running
        self.pids = {"client": os.getpid(), "controller": running.pid, "engine": engine}

    def sizes(self) -> dict[str, Size]:
        gc.collect()
        return {name: size_of(pid) for name, pid in self.pids.items()}

    def has_settled(self, before: dict[str, Size]) -> bool:
        """Whether there are no more descriptors and threads than before: what was closed may take a moment."""
        now = self.sizes()
        return all(now[name][1:] <= before[name][1:] for name in before)


def size_of(pid: int) -> Size:
    return Size(memory_kib(pid), len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task")))


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soak]:
    home: Path = tmp_path_factory.mktemp("soak")
    with controller(home) as running, engines(home, 1) as (engine,):
        running.wait_engines(1)
        yield Soak(running, engine.pid)


def stays_flat(soak: Soak, use: Callable[[int], object], times: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Use it ``times`` times; in the second half nothing may grow."""
    quarter = times // 4
    for number in range(2 * quarter):
        use(number)
    half = soak.sizes()
    for number in range(2 * quarter, 4 * quarter):
        use(number)
    wait_until(lambda: soak.has_settled(half), "the end of what was closed", 10)
    end = soak.sizes()
    if LONG:
        with capsys.disabled():
            for name in half:
                grown = 100 * (end[name].memory / half[name].memory - 1)
                print(f"\n{name}: {half[name]} at half time, {end[name]} at the end: {grown:+.2f} %", end="")
    for name in half:
        assert end[name].memory < GROWTH * half[name].memory + SLACK_KIB, (name, half[name], end[name])


def test_mixed_operations(soak: Soak, capsys: pytest.CaptureFixture[str]) -> None:
    array = numpy.arange(2_000.0)
    large = numpy.arange(30_000.0)
    with (
        MultiEngineClient(str(soak.running.furl_file("mec"))) as mec,
        TaskClient(str(soak.running.furl_file("tc"))) as tc,
    ):
        operations: list[Callable[[int], object]] = [
            lambda number: mec.execute(f"x = {number}; print(x)"),
            lambda number: mec.push({"a": array, "n": number}),
            lambda number: mec.pull("a"),
            lambda number: mec.get_ids(),
            lambda number: mec.queue_status(),
            lambda number: mec.execute("y = x + 1", block=False).get_result(),
            lambda number: tc.submit(pow, number, 2).result(),
            lambda number: tc.submit(len, array).result(),
            lambda number: tc.map(abs, range(20)),
            lambda number: mec.cluster_info(),
        ]

        def use(number: int) -> None:
            if number % 200 == 0:
                mec.push({"b": large})
                assert numpy.array_equal(mec.pull("b")[0], large)
            elif number % 200 == 1:
                with pytest.raises(Exception, match="division"):
                    tc.submit(divmod, 1, 0).result()
            else:
                operations[number % len(operations)](number)

        mec.push({"a": array, "x": 0})
        stays_flat(soak, use, OPERATIONS, capsys)


def test_connections_that_come_and_go(soak: Soak, capsys: pytest.CaptureFixture[str]) -> None:
    furls = {role: str(soak.running.furl_file(role)) for role in ("mec", "tc")}

    def use(number: int) -> None:
        with MultiEngineClient(furls["mec"]) as mec:
            mec.execute(f"n = {number}")
            assert mec.pull("n") == [number]
        with TaskClient(furls["tc"]) as tc:
            assert tc.submit(abs, -number).result() == number
        forgotten = MultiEngineClient(furls["mec"])
        forgotten.get_ids()
        del forgotten

    stays_flat(soak, use, CONNECTIONS, capsys)
