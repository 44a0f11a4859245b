"""``comm``, the communicator of all engines: a failure ends the waits of the others, and it is new afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from ipmpi.errors import CompositeError

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

    from ipmpi.client import MultiEngineClient

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

SOON = 5.0
"""Seconds: a failure frees others within a tenth of a second, where nothing else runs on the machine."""


@pytest.fixture
def mec(cluster: Cluster) -> MultiEngineClient:
    client = cluster.mec()
    client.reset()
    return client


def failures(mec: MultiEngineClient, code: str, targets: list[int] | None = None) -> dict[int, BaseException]:
    """Run code that fails; what was raised, by engine."""
    began = time.monotonic()
    with pytest.raises(CompositeError) as caught:
        mec.execute(code, targets="all" if targets is None else targets)
    assert time.monotonic() - began < SOON
    found = {}
    for _, value, _ in caught.value.elist:
        found[value._ipython_engine_info["engineid"]] = value
    return found


def check_usable(mec: MultiEngineClient) -> None:
    mec.execute("total = comm.allreduce(comm.rank)")
    assert mec.pull("total") == [6] * 4


def test_it_is_an_intracomm_of_all_ranks_and_no_name_of_the_user(mec: MultiEngineClient) -> None:
    mec.execute(
        "import ipmpi\nfrom mpi4py import MPI\n"
        "found = (isinstance(comm, MPI.Intracomm), ipmpi.comm() is comm, comm != MPI.COMM_WORLD, comm.Get_size())"
    )
    assert mec.pull("found") == [(True, True, True, 4)] * 4
    assert "comm" not in mec.keys(targets=0)[0]
    mec.execute("comm = 5")
    mec.reset()
    check_usable(mec)


CALLS = [
    "comm.Barrier()",
    "comm.allreduce(comm)",  # never sent: fails while it is pickled, and the others wait for that rank
    "comm.bcast(1, root=2)",
    "comm.recv(source=2)",
    "comm.Split(comm.rank % 2)",
    "comm.Dup()",
    "comm.Create_cart([2, 2]).Barrier()",
    "comm.irecv(source=2).wait()",
]


def test_the_others_are_told_which_rank_has_failed_and_go_on_afterwards(mec: MultiEngineClient) -> None:
    mec.execute("mine = comm")
    for number, call in enumerate(CALLS):
        raised = failures(mec, f"if comm.rank == 2: raise ValueError('round {number}')\n{call}\ncomm.Barrier()")
        kinds = [type(raised[engine]).__name__ for engine in range(4)]
        if "allreduce(comm)" in call:
            assert set(kinds) <= {"PeerError", "TypeError", "ValueError"}, kinds
        else:
            assert kinds == ["PeerError", "PeerError", "ValueError", "PeerError"], call
            assert {(e.rank, e.original) for n, e in raised.items() if n != 2} == {
                (2, f"ValueError: round {number}")
            }
        if number % 2:
            check_usable(mec)
    mec.execute("total = mine.allreduce(1); same = mine is comm")
    assert mec.pull(("total", "same")) == [[4, True]] * 4, "it is new wherever it was kept"


def test_what_was_made_of_it_is_made_again_where_all_its_ranks_still_have_it(mec: MultiEngineClient) -> None:
    mec.execute(
        "row = comm.Split(comm.rank % 2, -comm.rank)\n"
        "cart = comm.Create_cart([2, 2], periods=[True, False])\n"
        "half = cart.Sub([False, True])\n"
        "gone = comm.Dup()\n"
        "graph = comm.Create_dist_graph_adjacent([comm.rank], [comm.rank])\n"
        "freed = comm.Dup()\n"
        "freed.Free()\n"
        "if comm.rank == 3: del gone\n"
        "before = row.allgather(comm.rank), cart.coords, cart.periods, half.allgather(comm.rank)"
    )
    code = "if comm.rank == 2: raise ValueError('x')\nfrom mpi4py import MPI\nrow.allreduce(7); half.allreduce(7)"
    failures(mec, code + "; cart.bcast(5, root=2)")
    mec.execute(
        "after = row.allgather(comm.rank), cart.coords, cart.periods, half.allgather(comm.rank)\n"
        "same = before == after, row.rank == 1 - comm.rank // 2, freed == mpi.COMM_NULL"
    )
    assert mec.pull("same") == [(True, True, True)] * 4
    raised = failures(mec, "(graph if comm.rank == 3 else gone).Barrier()")
    assert all("could not be made again" in str(error) for error in raised.values())
    mec.execute("row = comm.Split(0)\ntotal = row.allreduce(1)")
    assert mec.pull("total") == [4] * 4


def test_a_message_of_a_failed_command_does_not_reach_a_later_one(mec: MultiEngineClient) -> None:
    failures(mec, "comm.send('old', 1 - comm.rank % 2 + comm.rank // 2 * 2)\nif comm.rank == 0: 1/0")
    mec.execute("comm.send('new', (comm.rank + 1) % 4)\ngot = comm.recv(source=(comm.rank - 1) % 4)")
    assert mec.pull("got") == ["new"] * 4


def test_until_it_is_replaced_some_engines_alone_are_refused_with_a_sentence(mec: MultiEngineClient) -> None:
    failures(mec, "if comm.rank == 1: 1/0\ncomm.Barrier()")
    raised = failures(mec, "comm.sendrecv(1, 1 - comm.rank, source=1 - comm.rank)", targets=[0, 1])
    assert all("has not been replaced yet: that takes a command on all engines" in str(e) for e in raised.values())
    mec.execute("x = 5", targets=[0, 1])
    check_usable(mec)


def test_failures_that_never_touch_it_leave_it_as_it_is(mec: MultiEngineClient) -> None:
    check_usable(mec)
    mec.execute("handle = comm.handle")
    failures(mec, "if id == 1: 1/0")
    failures(mec, "undefined")
    mec.execute("same = handle == comm.handle; comm.Barrier()")
    assert mec.pull("same") == [True] * 4


def test_engines_whose_queue_was_cleared_free_those_that_have_begun(mec: MultiEngineClient) -> None:
    mec.execute("mpi.COMM_WORLD.Barrier()")
    slow = mec.execute("import time; time.sleep(0.5); 1/0", targets=3, block=False)
    raised = failures(mec, "comm.Barrier()")
    assert {n: type(e).__name__ for n, e in raised.items()} == {
        0: "PeerError", 1: "PeerError", 2: "PeerError", 3: "QueueCleared",
    }  # fmt: skip
    assert "rank 3 has failed in the same command: QueueCleared" in str(raised[0])
    with pytest.raises(CompositeError):
        slow.get_result()
    check_usable(mec)


def test_an_interrupt_ends_its_waits_at_once(mec: MultiEngineClient) -> None:
    waiting = mec.execute("if comm.rank: comm.Barrier()", block=False)
    mec.execute("pass", targets=0)
    began = time.monotonic()
    mec.interrupt()
    with pytest.raises((CompositeError, KeyboardInterrupt)):
        waiting.get_result()
    assert time.monotonic() - began < SOON
    check_usable(mec)


def test_its_first_collective_of_objects_leaves_the_interpreter_to_other_threads(mec: MultiEngineClient) -> None:
    """mpi4py duplicates a communicator then, and holds the interpreter until the last rank has come."""
    mec.execute(
        "import threading, time\n"
        "part = comm.Split(0)\n"
        "ticks, done = 0, threading.Event()\n"
        "def tick():\n"
        "    global ticks\n"
        "    while not done.wait(0.01):\n"
        "        ticks += 1\n"
        "thread = threading.Thread(target=tick)\n"
        "thread.start()\n"
        "if comm.rank == 0:\n"
        "    time.sleep(0.5)\n"
        "part.allreduce([0] * 10_000)\n"
        "part.reduce([0] * 10_000)\n"
        "seen = ticks\n"
        "done.set()\n"
        "thread.join()"
    )
    assert min(mec.pull("seen")) > 5


def test_in_the_place_of_comm_world_existing_programs_gain_it(
    flavour: Flavour, new_cluster: Callable[..., Cluster]
) -> None:
    mec = new_cluster(flavour).start(2, args=["--comm", "polled"])
    mec.execute("from mpi4py import MPI\nfound = MPI.COMM_WORLD is comm, MPI.COMM_WORLD.size, MPI.COMM_SELF.size")
    assert mec.pull("found") == [(True, 2, 1)] * 2
    for _ in range(2):
        raised = failures(mec, "if MPI.COMM_WORLD.rank == 1: 1/0\nMPI.COMM_WORLD.Create_cart([2]).Barrier()")
        assert [type(raised[engine]).__name__ for engine in (0, 1)] == ["PeerError", "ZeroDivisionError"]
        mec.execute("total = MPI.COMM_WORLD.allreduce(1)")
        assert mec.pull("total") == [2, 2]


def test_when_a_rank_dies_the_others_are_told_and_go_on_with_a_smaller_one(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    mec = cluster.start(4, "--with-ft", "ulfm")
    mec.execute("row = comm.Split(comm.rank // 2)")
    raised = failures(mec, "import os\nif comm.rank == 1: os.kill(os.getpid(), 9)\ncomm.Barrier()")
    assert [type(raised[engine]).__name__ for engine in (0, 1, 2, 3)] == [
        *["PeerError", "EngineLost"],
        *["PeerError"] * 2,
    ]
    assert "rank 1 has failed in the same command: EngineLost: " in str(raised[0])
    mec.execute("total = comm.allreduce(1), comm.size, comm.rank")
    assert mec.pull("total") == [(3, 3, 0), (3, 3, 1), (3, 3, 2)]
    mec.execute("total = row.allreduce(1)", targets=[2, 3])
    assert mec.pull("total", targets=[2, 3]) == [2, 2]
    raised = failures(mec, "if id == 3: 1/0\ncomm.Barrier()")
    assert [type(raised[engine]).__name__ for engine in (0, 2, 3)] == [
        "PeerError",
        "PeerError",
        "ZeroDivisionError",
    ]
    mec.kill(targets=2)
    mec.execute("total = comm.allreduce(1)")
    assert mec.pull("total") == [2, 2]


def test_without_a_communicator_left_its_calls_say_so_and_the_rest_works(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    mec = new_cluster(flavour_named("mpich")).start(2)
    mec.execute("kept = []\ntry:\n    while True: kept.append(mpi.COMM_SELF.Dup())\nexcept mpi.Exception: pass")
    failures(mec, "if comm.rank: 1/0\ncomm.Barrier()")
    mec.execute("x = 5")
    for _ in range(2):
        raised = failures(mec, "comm.Barrier()")
        assert any("has room for a limited number of them" in str(e) for e in raised.values()), raised
        assert any("mec.restart()" in str(e) for e in raised.values())
    mec.execute("for one in kept: one.Free()")
    failures(mec, "comm.Barrier()")
    mec.execute("total = comm.allreduce(1)")
    assert mec.pull("total") == [2, 2]
