"""Ranks that wait for each other in vain are told apart in a sentence, and a computation is left alone.

With IPMPI_HANGS_ON=64 it is done with so many ranks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from real_clusters import Cluster, Flavour

    from ipmpi.client import MultiEngineClient

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

RANKS = int(os.environ.get("IPMPI_HANGS_ON", "4"))
HANG_AFTER = 2.0
TOLD_WITHIN = 5.0 if RANKS > 4 else 20.0
"""Seconds after that. A loaded machine needs longer than the five that are promised."""
ODD = 3

PREPARED = """
import ctypes, os, signal, time
import numpy as np
from mpi4py import MPI
plain = MPI.COMM_WORLD
a, b, big = np.zeros(1), np.zeros(1), np.zeros(100_000)
def hold():
    ctypes.PyDLL(None).usleep(1_000_000_000)
def step():
    time.sleep(1000)
"""


@pytest.fixture(scope="module", params=[pytest.param("openmpi"), pytest.param("mpich", marks=pytest.mark.mpich)])
def hanging(
    request: pytest.FixtureRequest, flavour_named: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    from real_clusters import Cluster

    flavour: Flavour = flavour_named(request.param)
    folder: Path = tmp_path_factory.mktemp(f"hanging{flavour.name}")
    cluster = Cluster(folder, flavour)
    try:
        cluster.launch(cluster.command(RANKS))
        cluster.wait_for_engines(RANKS, 100)
        cluster.mec().execute(PREPARED)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def mec(hanging: Cluster) -> Iterator[MultiEngineClient]:
    client = hanging.mec()
    client.hang_after = HANG_AFTER
    yield client
    client.close()


def notices(mec: MultiEngineClient) -> list[str]:
    return mec._calls.session.notices


def told(mec: MultiEngineClient, code: str) -> str:
    """The notice about a command that never ends by itself; then it is ended."""
    from real_clusters import wait_for

    pending = mec.execute(code, block=False)
    begun = time.monotonic()
    try:
        came = wait_for(lambda: notices(mec) or pending.done(), HANG_AFTER + TOLD_WITHIN)
        assert came, mec.where()
        assert notices(mec), "it has ended by itself"
        assert time.monotonic() - begun > HANG_AFTER / 2
    finally:
        mec.interrupt()
        with contextlib.suppress(Exception):
            pending.get_result(timeout=20)
    assert pending.done(), "the others are free again"
    return notices(mec)[0]


OTHERS = "ranks [0-2]" if RANKS == 4 else f"ranks [0-2, 4-{RANKS - 1}]"

CASES = {
    "another collective": (
        f"if id == {ODD}: comm.Bcast(b)\nelse: comm.Allreduce(a, b)",
        f"{OTHERS} are in Allreduce #N (<ipmpi C>:2); rank {ODD} is in Bcast #N (<ipmpi C>:1)",
    ),
    "not entered": (
        f"if id == {ODD}: step()\ncomm.Barrier()",
        f"{OTHERS} are in Barrier #N (<ipmpi C>:2); rank {ODD} has not entered it; it is in step() <ipmpi 1>:10",
    ),
    "a wrong root": (
        f"comm.Gather(a, np.zeros({RANKS}), root=1 if id == {ODD} else 0)\ncomm.Barrier()",
        "Gather #N with root 1 (<ipmpi C>:1)",  # one MPI lets this rank go on, another does not
    ),
    "a message that nobody receives": (
        f"if id == {ODD}: comm.Ssend(a, dest=2, tag=7)\ncomm.Barrier()",
        f"rank {ODD} is in Ssend to 2, tag 7 (<ipmpi C>:1), which rank 2 has not received",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_who_is_elsewhere_is_named(mec: MultiEngineClient, case: str) -> None:
    import re

    code, expected = CASES[case]
    said = re.sub(r"#\d+", "#N", told(mec, code))
    number = re.search(r"<ipmpi (\d+)>:[12]\b", said)
    assert number is not None, said
    assert expected.replace("<ipmpi C>", f"<ipmpi {number[1]}>") in said
    assert f": no progress for {HANG_AFTER:.0f} s: " in said
    assert len(notices(mec)) == 1


def test_a_stopped_rank_is_named(hanging: Cluster, mec: MultiEngineClient) -> None:
    pid = hanging.pids(mec)[ODD]
    from real_clusters import wait_for

    pending = mec.execute(f"if id == {ODD}: os.kill(os.getpid(), signal.SIGSTOP)\ncomm.Barrier()", block=False)
    try:
        assert wait_for(lambda: notices(mec), HANG_AFTER + TOLD_WITHIN), mec.where()
        assert f"rank {ODD} is stopped (SIGSTOP) in " in notices(mec)[0]
    finally:
        os.kill(pid, signal.SIGCONT)
    pending.get_result(timeout=30)


def test_a_computation_and_a_loop_of_calls_raise_no_alarm(mec: MultiEngineClient) -> None:
    mec.hang_after = 1.0
    asked = []
    ask = mec._calls.session.request
    mec._calls.session.request = lambda make: asked.append(make) or ask(make)  # type: ignore[method-assign, func-returns-value]
    mec.execute("end = time.time() + 1.6\nn = 0\nwhile time.time() < end: n += 1")
    mec.execute("for n in range(100):\n    time.sleep(0.02 if id == 0 else 0.0)\n    comm.Barrier()")
    assert len(asked) >= 4, "the engines were asked where they are"
    assert notices(mec) == []


def test_ranks_that_wait_for_one_that_has_raised_are_named_also_in_plain_mpi(
    hanging: Cluster, mec: MultiEngineClient
) -> None:
    """The last test: they cannot be freed."""
    from real_clusters import wait_for

    mec.partial_after = None
    pending = mec.execute(f"if id == {ODD}: raise ValueError('wrong')\nplain.Barrier()", block=False)
    assert wait_for(lambda: notices(mec), HANG_AFTER + TOLD_WITHIN), mec.where()
    assert f"{OTHERS} are in Barrier (<ipmpi " in notices(mec)[0]
    assert f"; rank {ODD} has raised ValueError: wrong" in notices(mec)[0]
    assert not pending.done()
    assert hanging.controller.poll() is None
