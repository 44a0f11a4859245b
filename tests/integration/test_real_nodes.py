"""Several nodes: their agents have links. Here all ranks are on one machine and are told that they are not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pytest

from ipmpi import errors

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

HERE = Path(__file__).parent

LAYOUTS = {
    "four nodes of one": [0, 1, 2, 3],
    "two nodes of two": [0, 0, 2, 2],
    "ranks dealt out over two nodes": [0, 1, 0, 1],
}
ENGINES = ("-m", "ipmpi.cli.ipengine")


def on_nodes(cluster: Cluster, leaders: list[int], *options: str, **environ: str) -> None:
    """Start a set with this layout, and wait for it."""
    argv = cluster.command(len(leaders), *options, program=(str(HERE / "disguised_nodes.py"),))
    cluster.launch(argv, IPMPI_TEST_LEADERS=",".join(map(str, leaders)), **environ)
    cluster.wait_for_engines(len(leaders))


@pytest.mark.parametrize("leaders", LAYOUTS.values(), ids=LAYOUTS)
def test_a_set_on_several_nodes(flavour: Flavour, new_cluster: Callable[..., Cluster], leaders: list[int]) -> None:
    cluster = new_cluster(flavour)
    on_nodes(cluster, leaders)
    mec = cluster.mec()
    assert mec.get_ids() == [0, 1, 2, 3]
    mec.execute("rank = mpi.COMM_WORLD.Get_rank(); total = mpi.COMM_WORLD.allreduce(rank)")
    assert mec.pull(("id", "rank", "total")) == [[i, i, 6] for i in range(4)]
    data = numpy.random.default_rng(2).random(3_000_000)
    mec.push({"a": data})
    assert all(numpy.array_equal(back, data) for back in mec.pull("a"))
    mec.push({"b": data[:100_000]}, targets=[1, 3])
    assert all(numpy.array_equal(back, data[:100_000]) for back in mec.pull("b", targets=[3, 1]))
    mec.scatter("part", data)
    assert numpy.array_equal(mec.gather("part"), data)
    agents = cluster.agents()
    assert len(agents) == len(set(leaders)), "one for each node"
    assert sum(cluster.links(pid) for pid in agents) == cluster.accepted() == 1, "one of them dials"
    assert not [pid for pid in cluster.pids(mec).values() if cluster.links(pid)]
    pending = mec.execute("import time; time.sleep(60)", targets=[3], block=False)
    mec.execute("x = 1", targets=[0, 1, 2])
    assert mec.interrupt(targets=[3]) == [3]
    with pytest.raises(errors.CompositeError) as info:
        pending.get_result(timeout=30)
    assert "KeyboardInterrupt" in str(info.value)
    mec.kill()
    assert cluster.launchers[0].wait(20) == 0, cluster.output()


def test_a_tree_of_twelve_nodes(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    """More than the arity of the tree: ranks 9 to 11 hang on rank 1."""
    cluster = new_cluster(flavour_named("openmpi"))
    on_nodes(cluster, list(range(12)))
    mec = cluster.mec()
    data = numpy.arange(1_000_000)
    mec.push({"a": data})
    mec.execute("s = int(a.sum()) + id")
    assert mec.pull("s") == [int(data.sum()) + i for i in range(12)]
    assert [len(back) for back in mec.pull("a")] == [len(data)] * 12


def test_nodes_that_do_not_reach_each_other_connect_by_themselves(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    """One link for each node, and one communicator all the same."""
    cluster = new_cluster(flavour_named("openmpi"))
    on_nodes(cluster, [0, 0, 2, 2], IPMPI_TEST_FIREWALL="1")
    mec = cluster.mec()
    assert len({engine["set"] for engine in mec.cluster_info()["engines"]}) == 2
    mec.execute("rank = mpi.COMM_WORLD.Get_rank(); total = mpi.COMM_WORLD.allreduce(1)")
    assert mec.pull(("id", "rank", "total")) == [[i, i, 4] for i in range(4)]
    assert "nodes have no links to each other, so each connects to the controller (rank 2 on" in cluster.output()
    mec.kill()
    assert cluster.launchers[0].wait(20) == 0, cluster.output()


@pytest.mark.parametrize("victim", [0, 2])
def test_nobody_stays_when_a_leader_dies(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster], victim: int
) -> None:
    from real_clusters import wait_for

    cluster = new_cluster(flavour_named("openmpi"))
    on_nodes(cluster, [0, 0, 2, 2])
    mec = cluster.mec()
    os.kill(cluster.pids(mec)[victim], signal.SIGKILL)
    assert wait_for(lambda: not cluster.rank_processes(), 10), cluster.output()


@pytest.mark.parametrize("victim", [3, 2, 0], ids=["a rank", "a leader", "rank 0"])
def test_other_nodes_go_on_where_the_launcher_lets_them(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster], victim: int
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    on_nodes(cluster, [0, 0, 2, 2], "--with-ft", "ulfm")
    mec, tc = cluster.mec(), cluster.tc()
    os.kill(cluster.pids(mec)[victim], signal.SIGKILL)
    cluster.wait_for_engines(3, 15)
    left = [rank for rank in range(4) if rank != victim]
    assert mec.get_ids() == left
    mec.push({"a": b"x" * 1_000_000})
    mec.execute("y = len(a) + id")
    assert mec.pull("y") == [1_000_000 + number for number in left]
    assert tc.map(abs, range(-50, 0)) == list(range(50, 0, -1))
    assert "please report this" not in cluster.output()


@pytest.mark.parametrize("leaders", [[0, 1, 2, 3], [0, 0, 2, 2]], ids=["four nodes", "two nodes of two"])
def test_tasks_on_several_nodes(flavour: Flavour, new_cluster: Callable[..., Cluster], leaders: list[int]) -> None:
    cluster = new_cluster(flavour)
    on_nodes(cluster, leaders)
    tc = cluster.tc()
    assert tc.map(abs, range(-5000, 0)) == list(range(5000, 0, -1))
    assert len(set(tc.map(lambda _: (time.sleep(0.01), os.getpid())[1], range(100)))) == 4
    data = numpy.random.default_rng(3).random(500_000)
    back = tc.gather([tc.submit(lambda a, k: a * k, data, k) for k in range(8)])
    assert all(numpy.array_equal(each, data * k) for k, each in enumerate(back))

    def total(comm: Any, array: Any) -> float:
        return float(comm.allreduce(array.sum()))

    assert tc.submit(total, data, ranks=3).result(timeout=30) == pytest.approx(3 * data.sum())
    if leaders == [0, 0, 2, 2]:
        pair = tc.submit(lambda comm: comm.allgather(os.getpid()), ranks=2, same_node=True).result(timeout=30)
        ranks = {pid: rank for rank, pid in cluster.pids(cluster.mec()).items()}
        assert sorted(ranks[pid] for pid in pair) in ([0, 1], [2, 3])
    else:
        # The controller knows hosts by their names, and these all have the same: rank 0 knows better.
        with pytest.raises(errors.TaskRejectError, match="needs 2 ranks of one node, and the set has 1"):
            tc.submit(lambda comm: None, ranks=2, same_node=True).result(timeout=30)


def test_a_failure_on_one_node_frees_those_on_others(
    flavour: Flavour, new_cluster: Callable[..., Cluster]
) -> None:
    cluster = new_cluster(flavour)
    on_nodes(cluster, LAYOUTS["ranks dealt out over two nodes"])
    mec = cluster.mec()
    for rank in (3, 0):
        began = time.monotonic()
        with pytest.raises(errors.CompositeError) as caught:
            mec.execute(f"if comm.rank == {rank}: 1/0\ncomm.recv(source={rank})")
        assert time.monotonic() - began < 5
        assert sorted(kind.__name__ for kind, _, _ in caught.value.elist) == [
            *["PeerError"] * 3,
            "ZeroDivisionError",
        ]
        mec.execute("total = comm.allreduce(1)")
        assert mec.pull("total") == [4] * 4
