"""What tasks leave in communicators; run under mpiexec by the tests."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy
from mpi4py import MPI

from ipmpi.engine.mpi.comm import GangCommunicators

World = MPI.COMM_WORLD
rank, size = World.Get_rank(), World.Get_size()
everybody, last = range(size), size - 1
kept: list[Any] = []
Task = Callable[[Any], object]


def only(who: int, task: Task) -> Task:
    """The same on one rank; the others do nothing."""
    return lambda comm: task(comm) if rank == who else None


def keep(start: Task) -> Task:
    return lambda comm: kept.append(start(comm))


def all_to_all(comm: Any) -> None:
    requests = [comm.isend(rank, other, 3) for other in everybody]
    assert comm.allreduce(comm.recv(source=last, tag=3)) == last * size
    for other in range(last):
        comm.recv(source=other, tag=3)
    kept.extend(requests)
    for request in requests:
        request.wait()
    comm.Barrier()
    comm.Dup().Free()
    assert comm.gather(rank) in (None, [*everybody])


def reads_late(comm: Any) -> None:
    comm.isend("late", last, 4).wait() if rank == 0 else None
    if rank == last:
        while not comm.iprobe(source=0, tag=4):
            pass
        assert comm.recv(source=0, tag=4) == "late"


NOTHING: dict[str, Task] = {
    "nothing at all": lambda comm: None,
    "many calls, and requests that are over": all_to_all,
    "a message that was received": reads_late,
}
SOMETHING: dict[str, Task] = {
    "a small message": only(0, lambda comm: comm.isend("of the task before", last, 7)),
    "a large message": only(0, keep(lambda comm: comm.Isend(numpy.zeros(2_000_000), last, 7))),
    "a receive that is open": only(last, keep(lambda comm: comm.Irecv(numpy.zeros(5), 0, 7))),
    "a started persistent receive": only(last, keep(lambda comm: _started(comm.Recv_init(numpy.zeros(5), 0, 7)))),
    "a collective of one rank that ended": only(0, lambda comm: comm.Bcast(numpy.zeros(1), 0)),
    "a collective of objects of one rank": only(
        last, lambda comm: comm.gather("x", 0) if size > 2 else comm.Ibarrier()
    ),
    "a collective that is open": only(0, keep(lambda comm: comm.Ibarrier())),
    "hints": lambda comm: comm.Set_info(MPI.Info.Create({"mpi_assert_no_any_tag": "false"})),
}


def _started(request: Any) -> Any:
    request.Start()
    return request


def sets_everything(comm: Any) -> None:
    comm.Set_errhandler(MPI.ERRORS_ARE_FATAL)
    comm.Set_name("of the task before")
    comm.Set_attr(KEY, "of the task before")
    comm.name = "again"


KEY = MPI.Comm.Create_keyval()


def run(teams: GangCommunicators, serial: int, task: Task) -> Any:
    """As the main thread of an engine does it, once all ranks are idle."""
    teams.join(everybody, serial)
    comm = teams.renew(everybody, serial)
    task(comm)
    teams.end()
    World.Barrier()
    return comm


def check() -> None:
    teams = GangCommunicators(MPI, World.Dup())
    for name, task in NOTHING.items():
        first = run(teams, 1, task)
        assert run(teams, 1, task) is first, name
        assert run(teams, 1, all_to_all) is first, name
        kept.clear()
    assert teams.abandoned == 0
    for name, task in SOMETHING.items():
        first = run(teams, 1, task)
        second = run(teams, 1, all_to_all)
        assert second.handle != first.handle, name
        assert run(teams, 1, all_to_all) is second, name
    assert teams.abandoned == len(SOMETHING)
    first = run(teams, 1, sets_everything)
    found: list[Any] = []
    second = run(teams, 1, lambda comm: found.extend([comm.Get_errhandler(), comm.name, comm.Get_attr(KEY)]))
    assert second is first
    assert found == [MPI.ERRORS_RETURN, World.Dup().Get_name(), None], found
    times = []
    for _ in range(7):
        began = time.perf_counter()
        for _ in range(200):
            teams.renew(everybody, 1)
        times.append((time.perf_counter() - began) / 200)
    if rank == 0:
        print(f"{size} ranks look and agree in {sorted(times)[0] * 1e6:.1f} us", flush=True)
        print("fine", flush=True)


if __name__ == "__main__":
    try:
        check()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        World.Abort(1)
