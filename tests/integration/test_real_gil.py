"""User code that keeps the GIL: the agent of its process cannot do anything meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from ipmpi import errors

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

AGENT = "the agent is a thread of the process that runs user code, and needs its GIL"
HOLDS = 8
"""Seconds that the GIL is held: longer than anything here may take, even on a loaded machine."""


@pytest.fixture
def holding(flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]) -> Cluster:
    cluster = new_cluster(flavour_named("openmpi"))
    cluster.start(2)
    return cluster


@pytest.mark.xfail(strict=True, raises=TimeoutError, reason=AGENT)
def test_rank_0_that_holds_the_gil_stops_no_other_rank(holding: Cluster) -> None:
    mec = holding.mec()
    held = mec.execute(f"import ctypes; ctypes.PyDLL(None).sleep({HOLDS})", targets=[0], block=False)
    time.sleep(0.5)  # nothing can say that it has begun
    try:
        mec.execute("1", targets=[1], block=False).get_result(timeout=4)
    finally:
        held.wait(30)


@pytest.mark.xfail(strict=True, raises=TimeoutError, reason=AGENT)
def test_the_timeout_of_a_task_that_holds_the_gil_is_kept(holding: Cluster) -> None:
    tc = holding.tc()

    def hold(seconds: int) -> None:
        import ctypes

        ctypes.PyDLL(None).sleep(seconds)

    tc.submit(hold, 0).result()  # the time that importing takes is not a part of this
    futures = [tc.submit(hold, HOLDS, timeout=0.5) for _ in range(2)]
    for future in futures:
        assert isinstance(future.exception(timeout=6), errors.TaskTimeout)
