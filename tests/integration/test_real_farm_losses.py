"""What the farm does when engines are lost, with real processes; and eight ranks with tasks of several ranks."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest

from ipmpi import errors

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

# Engines cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def alone(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> Callable[[int], Cluster]:
    """Engines without MPI: each may end without the others."""

    def start(count: int) -> Cluster:
        cluster = new_cluster(flavour_named("openmpi"))
        for _ in range(count):
            cluster.launch([cluster.flavour.python, "-m", "ipmpi.cli.ipengine", "--mpi=none"])
        cluster.wait_for_engines(count)
        return cluster

    return start


def die_on(path: str) -> str:
    """End this process the first time that the function runs anywhere."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "survived"
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def test_a_lost_engine_s_tasks_move_and_use_no_retry(alone: Callable[[int], Cluster], tmp_path: Any) -> None:
    cluster = alone(3)
    tc = cluster.tc()
    others = [tc.submit(time.sleep, 0.002) for _ in range(300)]
    assert tc.submit(die_on, str(tmp_path / "died")).result(timeout=60) == "survived"
    tc.gather(others)
    assert len(cluster.mec().get_ids()) == 2


def test_a_task_that_kills_three_engines_is_given_up_and_others_finish(alone: Callable[[int], Cluster]) -> None:
    cluster = alone(5)
    tc = cluster.tc()
    before = [tc.submit(abs, -x) for x in range(50)]
    poison = tc.submit(lambda: os.kill(os.getpid(), signal.SIGKILL))
    after = [tc.submit(abs, -x) for x in range(200)]
    with pytest.raises(errors.EngineLost, match="3 engines were lost"):
        poison.result(timeout=90)
    assert tc.gather([*before, *after]) == [*range(50), *range(200)]
    assert len(cluster.mec().get_ids()) == 2


def test_two_sets_share_the_tasks(flavour: Flavour, new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(flavour)
    cluster.launch(cluster.command(2))
    cluster.wait_for_engines(2)
    cluster.launch(cluster.command(2))
    cluster.wait_for_engines(4)
    tc = cluster.tc()
    pids = tc.map(lambda _: (time.sleep(0.005), os.getpid())[1], range(200))
    assert len(set(pids)) == 4
    assert tc.map(abs, range(-5000, 0)) == list(range(5000, 0, -1))


def test_a_rank_of_a_set_is_lost_under_ulfm(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    mec = cluster.start(4, "--with-ft", "ulfm")
    tc = cluster.tc()
    assert tc.submit(lambda comm: comm.allreduce(1), ranks=2).result(timeout=30) == 2
    futures = [tc.submit(time.sleep, 0.005) for _ in range(400)]
    os.kill(cluster.pids(mec)[3], signal.SIGKILL)
    tc.gather(futures)
    assert mec.get_ids() == [0, 1, 2]
    # The others go on together, whether they know of the loss or not.
    for width in (2, 3, 2, 3):
        assert tc.submit(lambda comm: comm.allreduce(1), ranks=width).result(timeout=30) == width
    with pytest.raises(ZeroDivisionError):
        tc.submit(lambda comm: comm.rank / 0 if comm.rank else comm.recv(source=1), ranks=3).result(timeout=30)
    assert tc.submit(lambda comm: comm.allreduce(1), ranks=3).result(timeout=30) == 3
    assert tc.submit(abs, -3).result(timeout=30) == 3


@pytest.mark.timeout(240)
def test_a_thousand_rounds_of_wide_and_serial_tasks(flavour: Flavour, new_cluster: Callable[..., Cluster]) -> None:
    """Two tasks of three ranks and serial ones at once, on eight ranks; now and then a rank raises."""
    if flavour.name == "debian":
        pytest.skip("the two wheels are what the promise is about; this takes a while")

    def work(comm: Any, number: int, culprit: int | None) -> int:
        rank = comm.Get_rank()
        total = comm.allreduce(number + rank)
        if rank == culprit:
            raise ValueError(f"round {number}")
        return int(total + comm.allreduce(1))

    cluster = new_cluster(flavour)
    cluster.start(8)
    tc = cluster.tc()
    source = random.Random(3)
    for start in range(0, 1000, 50):
        rounds = []
        for number in range(start, start + 50):
            culprits = [source.randrange(3) if source.random() < 0.1 else None for _ in range(2)]
            wide = [tc.submit(work, number, culprit, ranks=3) for culprit in culprits]
            rounds.append((number, culprits, wide, [tc.submit(abs, -number) for _ in range(2)]))
        for number, culprits, wide, serial in rounds:
            for culprit, future in zip(culprits, wide, strict=True):
                if culprit is None:
                    assert future.result(timeout=60) == 3 * number + 6
                else:
                    with pytest.raises(ValueError, match=f"round {number}"):
                        future.result(timeout=60)
            assert [future.result(timeout=60) for future in serial] == [number, number]
