"""Two launches, of two MPIs, tied into one by their controller."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

pytestmark = [pytest.mark.mpi, pytest.mark.mpich]


def test_two_launches_are_one_cluster(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    mec = cluster.start(2)
    other = flavour_named("mpich")
    launcher = cluster.launch(
        [other.launcher, *other.options, "-n", "3", other.python, "-m", "ipmpi.cli.ipengine"], **other.environ
    )
    cluster.wait_for_engines(5)
    assert mec.get_ids() == [0, 1, 2, 3, 4]
    mec.execute("total = mpi.COMM_WORLD.allreduce(1)")
    assert mec.pull("total") == [2, 2, 3, 3, 3], "each set has its own communicator"

    tc = cluster.tc()
    ranks = set(tc.map(_place, range(60)))
    assert {size for size, _ in ranks} == {2, 3}, "tasks go to both"

    launcher.terminate()
    cluster.wait_for_engines(2)
    assert mec.get_ids() == [0, 1]
    mec.execute("total = mpi.COMM_WORLD.allreduce(1)")
    assert mec.pull("total") == [2, 2]


def _make_place() -> Callable[[int], tuple[int, int]]:
    # Made in a function, so that it travels by value: engines do not have this module.
    def place(number: int) -> tuple[int, int]:
        from mpi4py import MPI

        time.sleep(0.01)
        return MPI.COMM_WORLD.Get_size(), MPI.COMM_WORLD.Get_rank()

    return place


_place = _make_place()
