"""Sets of real MPI ranks: what a person does with them, and what stays ipmpi's own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy
import pytest

from ipmpi import errors

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

    from ipmpi.client import MultiEngineClient

pytestmark = [pytest.mark.slow, pytest.mark.mpi]


@pytest.fixture
def mec(cluster: Cluster) -> MultiEngineClient:
    client = cluster.mec()
    client.reset()
    return client


@pytest.mark.parametrize("size", [1, 2, 16])
def test_a_set_of_any_size(flavour: Flavour, new_cluster: Callable[..., Cluster], size: int) -> None:
    cluster = new_cluster(flavour)
    mec = cluster.start(size)
    check_set(mec, size)
    if size == 16:
        check_connections(cluster, mec)
    mec.kill(block=True)
    assert cluster.launchers[0].wait(20) == 0, cluster.output()


def test_a_set_of_four(mec: MultiEngineClient) -> None:
    check_set(mec, 4)


def check_set(mec: MultiEngineClient, size: int) -> None:
    every = list(range(size))
    assert mec.get_ids() == every
    said = mec.execute('print("Hello World")')
    assert [(one["id"], one["stdout"]) for one in said] == [(engine, "Hello World\n") for engine in every]
    assert str(said).count("Hello World") >= (size if size <= 4 else 1), "more than four engines fold"
    mec.execute("rank, size = mpi.COMM_WORLD.Get_rank(), mpi.COMM_WORLD.Get_size()")
    assert mec.pull(("id", "rank", "size")) == [[i, i, size] for i in every]
    mec.execute("total = mpi.COMM_WORLD.allreduce(rank + 1)")
    assert mec.pull("total") == [size * (size + 1) // 2] * size
    assert [e["rank"] for e in mec.cluster_info()["engines"]] == every


def check_connections(cluster: Cluster, mec: MultiEngineClient) -> None:
    (agent,) = cluster.agents()
    assert cluster.links(agent) == cluster.accepted() == 1, "one link for the set"
    ours = ("engine", "multiengine")
    assert not [pid for pid in cluster.pids(mec).values() for role in ours if cluster.links(pid, role)]
    assert cluster.links(os.getpid(), "multiengine") == 1, "that of the client is found"
    # Whatever else is open belongs to MPI; ipmpi's Python modules hold no other TCP socket.
    held = "[s for s in __import__('gc').get_objects() if type(s).__name__ == 'socket' and s.fileno() >= 0]"
    mec.execute(f"import socket; inet = len([s for s in {held} if s.family != socket.AF_UNIX])")
    assert mec.pull("inet") == [0] * 16
    mec.execute("import threading; threads = threading.active_count()")
    assert mec.pull("threads") == [1] * 16, "no thread of ours"


def test_eight_megabytes_to_all_and_to_one_and_back(mec: MultiEngineClient) -> None:
    data = numpy.random.default_rng(1).random(1_000_000)
    mec.push({"a": data})
    for back in mec.pull("a"):
        assert numpy.array_equal(back, data)
    mec.push({"b": data + 1}, targets=2)
    assert numpy.array_equal(mec.pull("b", targets=2)[0], data + 1)
    with pytest.raises(errors.CompositeError) as info:
        mec.pull("b", targets=1)
    assert "NameError" in str(info.value)


def test_a_large_array_that_was_shared_is_each_ranks_own(mec: MultiEngineClient) -> None:
    mec.push({"a": numpy.zeros(1_000_000)})
    mec.execute("a[id] = id + 1")
    assert [float(a.sum()) for a in mec.pull("a")] == [1, 2, 3, 4]
    mec.execute("comm = mpi.COMM_WORLD; comm.Allreduce(mpi.IN_PLACE, a)")
    assert [a[:4].tolist() for a in mec.pull("a")] == [[1, 2, 3, 4]] * 4


def test_closures_scatter_gather_and_map(mec: MultiEngineClient) -> None:
    offset = 10

    def compute(x: int, *, times: int) -> int:
        from mpi4py import MPI

        return offset + x * times + MPI.COMM_WORLD.Get_rank()

    assert mec.apply(compute, 1, times=2) == [12, 13, 14, 15]
    data = numpy.arange(2_000_001, dtype=float)
    mec.scatter("part", data)
    assert numpy.array_equal(mec.gather("part"), data)
    mec.execute("part = part * 2")
    assert numpy.array_equal(mec.gather("part"), data * 2)
    assert mec.map(lambda x: x**2 + offset, range(30)) == [x**2 + offset for x in range(30)]
    assert mec[1:3].apply(lambda: offset) == [10, 10]


def test_tasks_and_commands_on_the_same_engines_at_the_same_time(cluster: Cluster, mec: MultiEngineClient) -> None:
    tc = cluster.tc()
    answers: list[Any] = []
    farm = threading.Thread(target=lambda: answers.append(tc.map(lambda x: x * x, range(400))))
    farm.start()
    mec.execute("n = 0")
    for _ in range(50):
        mec.execute("n += mpi.COMM_WORLD.allreduce(1)")
    assert mec.pull("n") == [200] * 4
    farm.join(60)
    assert answers == [[x * x for x in range(400)]]


def test_ipmpi_never_talks_on_the_users_communicator(mec: MultiEngineClient) -> None:
    mec.execute(
        "import numpy\n"
        "comm = mpi.COMM_WORLD\n"
        "got = numpy.zeros(4)\n"
        "caught = comm.Irecv(got, source=mpi.ANY_SOURCE, tag=mpi.ANY_TAG)"
    )
    mec.push({"a": numpy.ones(1_000_000)})
    for number in range(20):
        mec.execute(f"x = {number}")
    mec.pull("a")
    mec.execute("status = mpi.Status(); early = caught.Test(status), comm.Iprobe()")
    assert mec.pull("early") == [(False, False)] * 4
    mec.execute("comm.Send(numpy.full(4, float(id)), (id + 1) % 4, tag=7); caught.Wait(status); tag = status.tag")
    assert mec.pull("tag") == [7] * 4
    assert [got.tolist() for got in mec.pull("got")] == [[(i - 1) % 4] * 4 for i in range(4)]


def test_user_code_runs_in_the_main_thread_and_may_use_signals(mec: MultiEngineClient) -> None:
    mec.execute(
        "import signal, threading, time\n"
        "main = threading.current_thread() is threading.main_thread()\n"
        "rung = []\n"
        "old = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01)\n"
        "end = time.monotonic() + 20\n"
        "while not rung and time.monotonic() < end: time.sleep(0.01)\n"
        "signal.signal(signal.SIGALRM, old)"
    )
    assert mec.pull(("main", "rung")) == [[True, [1]]] * 4


def test_output_of_the_users_threads_is_captured(mec: MultiEngineClient) -> None:
    result = mec.execute(
        "import threading\nt = threading.Thread(target=lambda: print('from a thread of', id))\nt.start(); t.join()"
    )
    for number, entry in enumerate(result):
        assert f"from a thread of {number}" in entry["stdout"]
