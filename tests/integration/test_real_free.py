"""Ranks that wait in plain MPI are freed by another rank that revokes MPI.COMM_WORLD, where that is possible."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from ipmpi.errors import ClientError, CompositeError
from ipmpi.launch.processes.mpi import ULFM

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

    from ipmpi.client import MultiEngineClient

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

STUCK = """
from mpi4py import MPI
if id:
    raise ValueError('no such file')
MPI.COMM_WORLD.{}
"""


def world_works(mec: MultiEngineClient) -> None:
    """Also the object that user code has kept from before."""
    mec.execute("total = mpi.COMM_WORLD.allreduce(1), kept.allreduce(2), comm.allreduce(3)")
    assert mec.pull("total") == [(3, 6, 9)] * 3


def test_a_rank_that_is_idle_frees_those_that_wait(
    flavour_named: Callable[[str], Flavour],
    new_cluster: Callable[..., Cluster],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    cluster.launch(cluster.command(3, *ULFM))
    cluster.wait_for_engines(3)
    mec = cluster.mec()
    mec.on_failure = "wait"
    mec.execute("kept = mpi.COMM_WORLD")
    assert str(mec.free()) == "no engine waits in MPI"
    for call in ("Barrier()", "Recv(bytearray(8), source=1)"):
        pending = mec.execute(STUCK.format(call), block=False)
        while pending.done_ids != [1, 2]:
            pending.wait(0.05)
        freed = mec.free()
        while not freed.by:  # engine 0 has not come to its call yet
            freed = mec.free()
        assert (freed.engines, freed.by, freed.still, freed.trouble) == ([0], [1], [], "")
        assert freed.seconds < 2.5
        with pytest.raises(CompositeError) as caught:
            pending.get_result()
        assert "[0:execute]: Exception: MPI_ERR_REVOKED" in str(caught.value)
        assert "[1:execute]: ValueError: no such file" in str(caught.value)
        world_works(mec)
    mec.on_failure = "free"
    shown = io.StringIO()  # another thread writes to it: what is read has to stay there
    monkeypatch.setattr(sys, "stderr", shown)
    with pytest.raises(CompositeError) as caught:
        mec.execute(STUCK.format("Barrier()"))
    assert [kind.__name__ for kind, _, _ in caught.value.elist] == ["Exception", "ValueError", "ValueError"]
    assert "MPI_ERR_REVOKED" in caught.value.render(all=True)
    while "communicator" not in shown.getvalue():
        time.sleep(0.01)
    told = shown.getvalue()
    assert "engines 1-2 failed, and the others wait in MPI: freeing engine 0" in told
    assert "engine 1 revoked MPI.COMM_WORLD, which freed engine 0 in " in told
    world_works(mec)
    mec.on_failure = "wait"
    mec.execute("mpi.COMM_WORLD.Recv(bytearray(8), source=(id + 1) % 3)", block=False)

    def free_those_that_wait() -> None:
        while not mec.free().by:  # none of them has come to its call yet
            pass

    with pytest.raises(ClientError, match="engines 0-2 cannot be freed: only an engine that is idle can revoke"):
        free_those_that_wait()


@pytest.mark.mpich
def test_an_mpi_that_cannot_says_so(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    mec = new_cluster(flavour_named("mpich")).start(2)
    mec.on_failure = "wait"
    pending = mec.execute(STUCK.format("Barrier()"), block=False)
    while pending.done_ids != [1]:
        pending.wait(0.05)
    with pytest.raises(ClientError, match=r"can be freed only under Open MPI 5 with fault tolerance .* this is M"):
        mec.free()
