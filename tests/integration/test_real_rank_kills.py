"""Ranks are killed with -9 while they have tasks: every task ends, and nobody waits for ever.

``IPMPI_RANK_KILLS=500`` is the long form: half with engines without MPI, half in fault-tolerant sets of Open MPI.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipmpi.client import MultiEngineClient, TaskClient, TaskFuture
from tests.figures import report
from tests.security.cluster import Controller, controller, engines, wait_until

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

KILLS = int(os.environ.get("IPMPI_RANK_KILLS", "12")) // 2
SEED = int(os.environ.get("IPMPI_SEED", "1"))
TASKS = 60
"""Tasks that are submitted for each kill, so that all ranks have some when it comes."""
PATIENCE = 60.0
"""Seconds after which a task hangs."""

pytestmark = pytest.mark.timeout(180 + 15 * KILLS)


def task() -> Callable[[int], int]:
    """A task that takes a moment. It is defined in here, so that it travels with its code.

    Otherwise each rank imports this file, pytest and the client for its first task, and that takes 0.6 s of
    processor time, so many times as long if many others want the processors.
    """

    def work(number: int) -> int:
        import time

        time.sleep(0.004)
        return -number

    return work


class Load:
    """Tasks that are always there while ranks are killed."""

    def __init__(self, tc: TaskClient) -> None:
        self._tc = tc
        self._work = task()
        self._futures: list[TaskFuture] = []
        self.done = 0
        self.kills = 0
        self.slowest = 0.0

    def kill(self, pid: int) -> None:
        """Kill a rank that has tasks."""
        self._futures += [self._tc.submit(self._work, number) for number in range(TASKS)]
        self._futures[-TASKS // 2].result(PATIENCE)
        os.kill(pid, signal.SIGKILL)
        self.kills += 1

    def finish(self) -> None:
        """All tasks end, each with its result."""
        began = time.monotonic()
        found = [future.result(PATIENCE) for future in self._futures]
        assert found == [-(number % TASKS) for number in range(len(found))]
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.done += len(found)
        self._futures.clear()

    def report(self, name: str) -> None:
        report(name, kills=self.kills, tasks=self.done, hangs=0, lost=0, slowest_end_s=self.slowest)


def pids(mec: MultiEngineClient) -> dict[int, int]:
    """The process of each engine."""
    return {one["id"]: one["pid"] for one in mec.cluster_info()["engines"]}


@contextlib.contextmanager
def started(home: Path, running: Controller, mec: MultiEngineClient) -> Iterator[Callable[[], None]]:
    """Three engines without MPI; call what this gives to replace those that are gone."""
    with contextlib.ExitStack() as stack:

        def replace() -> None:
            missing = 3 - len(mec.get_ids())
            if missing > 0:
                stack.enter_context(engines(home, missing))
                wait_until(lambda: len(mec.get_ids()) == 3, "three engines", PATIENCE)

        replace()
        yield replace


def test_engines_without_mpi(tmp_path: Path) -> None:
    source = random.Random(SEED)
    with (
        controller(tmp_path) as running,
        MultiEngineClient(str(running.furl_file("mec"))) as mec,
        TaskClient(str(running.furl_file("tc"))) as tc,
        started(tmp_path, running, mec) as replace,
    ):
        load = Load(tc)
        while load.kills < KILLS:
            victim = source.choice(sorted(pids(mec).items()))
            load.kill(victim[1])
            wait_until(lambda victim=victim: victim[0] not in mec.get_ids(), "it is missed", PATIENCE)
            load.finish()
            replace()
        load.report("rank kills, without MPI")


@pytest.mark.slow
@pytest.mark.mpi
def test_ranks_of_fault_tolerant_sets(flavour_named: Callable[[str], Flavour], tmp_path: Path) -> None:
    from real_clusters import Cluster

    source = random.Random(SEED)
    ranks = 5
    kills, done, slowest = 0, 0, 0.0
    while kills < KILLS:
        home = tmp_path / str(kills)
        home.mkdir(mode=0o700)
        cluster: Cluster = Cluster(home, flavour_named("openmpi"))
        try:
            mec = cluster.start(ranks, "--with-ft", "ulfm")
            load = Load(cluster.tc())
            left = pids(mec)
            while len(left) > 2 and kills + load.kills < KILLS:
                victim = source.choice(sorted(left))
                load.kill(left.pop(victim))
                wait_until(
                    lambda mec=mec, left=left: mec.get_ids() == sorted(left), "the others are left", PATIENCE
                )
                load.finish()
        finally:
            cluster.stop()
        kills, done, slowest = kills + load.kills, done + load.done, max(slowest, load.slowest)
    report("rank kills, fault-tolerant sets", kills=kills, tasks=done, hangs=0, lost=0, slowest_end_s=slowest)
