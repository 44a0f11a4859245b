"""Polled communicators beside mpi4py's own; run under mpiexec by the tests, with the name of what to do."""

from __future__ import annotations

import functools
import gc
import os
import random
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
from mpi4py import MPI

from ipmpi.engine.mpi.comm import GangCommunicators
from ipmpi.errors import KernelError, PeerError

World = MPI.COMM_WORLD
rank, size = World.Get_rank(), World.Get_size()
everybody = range(size)
F8, LARGE = numpy.float64, 70_000
Case = Callable[[Any], Any]


def own(count: int = 5) -> numpy.ndarray[Any, Any]:
    # Sums and products of these are exact, in whatever order MPI combines them.
    return (numpy.arange(count, dtype=F8) % 7 + 1) * (rank + 1) / 4


def empty(count: int = 5) -> numpy.ndarray[Any, Any]:
    return numpy.full(count, -1, F8)


# --- the same results as mpi4py ------------------------------------------------------------------------------


def reductions(comm: Any) -> Any:
    found = []
    for count in (5, LARGE):
        for op in (MPI.SUM, MPI.MAX, MPI.PROD):
            for call in (comm.Allreduce, comm.Scan, comm.Exscan):
                into = numpy.zeros(count)
                call(own(count), into, op)
                found.append(into)
            into = numpy.zeros(count)
            comm.Reduce(own(count), into if rank == size - 1 else None, op, root=size - 1)
            found.append(into)
    into = own()
    comm.Allreduce(MPI.IN_PLACE, into)
    block, some = empty(2), empty(rank + 1)
    comm.Reduce_scatter_block(own(2 * size), block)
    counts = [r + 1 for r in everybody]
    comm.Reduce_scatter(own(sum(counts)), some, counts, op=MPI.MAX)
    return found, into, block, some


def bcasts(comm: Any) -> Any:
    found = []
    for root in everybody:
        data = own() if rank == root else empty()
        comm.Bcast(data, root)
        comm.Bcast([data, 2, MPI.DOUBLE], root=root)
        found.append(data)
    return found


def gathers(comm: Any) -> Any:
    counts = [r + 1 for r in everybody]
    every, varied, all_, all_varied = empty(5 * size), empty(sum(counts)), empty(5 * size), empty(sum(counts))
    root = size - 1
    comm.Gather(own(), every if rank == root else None, root)
    comm.Gatherv(own(rank + 1), [varied, counts] if rank == root else None, root=root)
    comm.Allgather(own(), all_)
    comm.Allgatherv(own(rank + 1), [all_varied, counts])
    block, piece = empty(2), empty(rank + 1)
    comm.Scatter(own(2 * size) if rank == 0 else None, block)
    comm.Scatterv([own(sum(counts)), counts] if rank == root else None, piece, root)
    return every, varied, all_, all_varied, block, piece


def alltoalls(comm: Any) -> Any:
    ones, varied, typed = empty(3 * size), empty((rank + 1) * size), empty(size)
    comm.Alltoall(own(3 * size), ones)
    sent = [r + 1 for r in everybody]
    comm.Alltoallv([own(sum(sent)), sent], [varied, [rank + 1] * size])
    places = [8 * r for r in everybody]
    spec = ([1] * size, places, [MPI.DOUBLE] * size)
    comm.Alltoallw([own(size), *spec], [typed, *spec])
    return ones, varied, typed


def messages(comm: Any) -> Any:
    up, down = (rank + 1) % size, (rank - 1) % size
    status = MPI.Status()
    found: list[Any] = []
    for count in (5, LARGE):
        into, turned = empty(count), own(count)
        comm.Sendrecv(own(count), up, 7, into, down, 7, status)
        comm.Sendrecv_replace(turned, down, 1, up, MPI.ANY_TAG, status)
        found += [into, turned, status.Get_source(), status.Get_tag(), status.Get_count(MPI.DOUBLE)]
        comm.Sendrecv(own(count), MPI.PROC_NULL, 0, into, MPI.PROC_NULL)
        comm.Sendrecv_replace(turned, MPI.PROC_NULL, 0, MPI.PROC_NULL)
        found += [into, turned]
        sends = [comm.Isend(own(count), up, 3), comm.Issend(own(count), up, 4)]
        assert comm.Probe(down, 4) is True
        message = comm.Mprobe(down, 4, status)
        taken, second = empty(count), empty(count)
        message.Recv(taken, status)
        comm.Recv(second, MPI.ANY_SOURCE, 3, status)
        found += [taken, second, status.Get_source()]
        type(sends[0]).Waitall(sends)
    if size > 1 and rank < size - size % 2:
        other = rank ^ 1
        for send in (comm.Send, comm.Ssend):
            first, into = own(3), empty(3)
            (send(first, other, 9), comm.Recv(into, other)) if rank < other else (
                comm.Recv(into),
                send(first, other),
            )
            found.append(into)
    return found


def waits(comm: Any) -> Any:
    up, down = (rank + 1) % size, (rank - 1) % size
    arrays = [empty() for _ in range(4)]
    found: list[Any] = []
    for way in ("Wait", "Waitall", "Waitany", "Waitsome"):
        receives = [comm.Irecv(array, down, tag) for tag, array in enumerate(arrays)]
        sends = [comm.Isend(own() + tag, up, tag) for tag in range(4)]
        kind = type(receives[0])
        if way == "Wait":
            statuses = [MPI.Status() for _ in receives]
            found += [request.Wait(status) for request, status in zip(receives, statuses, strict=True)]
            found += [status.Get_tag() for status in statuses]
        elif way == "Waitall":
            statuses = []
            found.append(kind.Waitall(receives, statuses))
            found += [status.Get_tag() for status in statuses]
        elif way == "Waitany":
            found.append(sorted(kind.Waitany(receives) for _ in receives))
        else:
            seen: list[int] = []
            while (some := kind.Waitsome(receives)) is not None:
                seen += some
            found.append(sorted(seen))
        kind.Waitall(sends)
        found += [array.copy() for array in arrays]
        assert not any(receives)
    barrier = comm.Ibarrier()
    barrier.Wait()
    persistent = [comm.Send_init(own(), up), comm.Recv_init(arrays[0], down)]
    for _ in range(3):
        MPI.Prequest.Startall(persistent)
        for request in persistent:
            request.Wait()
    for request in persistent:
        request.Free()
    return found, arrays[0]


def objects() -> list[Any]:
    big = numpy.arange(LARGE) * (rank + 1.5)
    views = {"f": numpy.asfortranarray(big.reshape(100, -1)), "part": big[::7], "empty": numpy.empty((0, 3))}
    return [None, rank, "é" * rank, b"x" * (300 * rank), {"rank": rank, "array": own()}, big, views]


def pickled(comm: Any) -> Any:
    found: list[Any] = []
    for obj in objects():
        for root in {0, size - 1}:
            found += [comm.bcast(obj if rank == root else None, root=root), comm.gather(obj, root)]
            found.append(comm.scatter([(obj, r) for r in everybody] if rank == root else None, root=root))
        found += [comm.allgather(obj), comm.alltoall([(obj, r) for r in everybody])]
    comm.barrier()
    sent = {"array": own()}
    got = comm.bcast(sent)
    got["array"][:] = 0
    found += [sent["array"], comm.allgather(sent)[rank] is sent]
    return found


def pickled_reductions(comm: Any) -> Any:
    """Also operations that change their arguments, that do not commute, and rounding."""
    found: list[Any] = []

    def join(a: Any, b: Any) -> Any:
        return f"({a}{b})"

    def add_in_place(a: Any, b: Any) -> Any:
        a += b
        return a

    for obj, op in (
        *((rank + 1, op) for op in (MPI.SUM, MPI.PROD, MPI.MAX, MPI.MIN)),
        *(((0.1 * (rank + 1), rank), op) for op in (MPI.MAXLOC, MPI.MINLOC)),
        *((0.1 * (rank + 1) ** 3, op) for op in (MPI.SUM, MPI.PROD)),
        *((str(rank) * n, join) for n in (1, 1000)),
        *(([rank] * n, MPI.SUM) for n in (1, 1000)),
        *((own(n), op) for n in (3, LARGE) for op in (MPI.SUM, add_in_place, max_of)),
        ([rank] * 1000, add_in_place),
    ):
        before = obj.copy() if isinstance(obj, numpy.ndarray) else obj
        found += [comm.reduce(obj, op, root) for root in {0, size - 1}]
        # mpi4py's scan gives wrong sums if the operation changes its arguments, ours does not.
        right = MPI.SUM if op is add_in_place and type(comm) is MPI.Intracomm else op
        found += [comm.allreduce(obj, op=op), comm.scan(obj, right), comm.exscan(obj, right)]
        assert same(obj, before)
    return found, comm.allreduce(rank), comm.reduce(rank), comm.scan(rank), comm.exscan(rank)


def max_of(a: Any, b: Any) -> Any:
    return numpy.maximum(a, b)


def pickled_messages(comm: Any) -> Any:
    up, down = (rank + 1) % size, (rank - 1) % size
    status = MPI.Status()
    found: list[Any] = []
    for obj in objects():
        found.append(comm.sendrecv(obj, up, 2, source=down, recvtag=2, status=status))
        found += [status.Get_source(), status.Get_tag()]
        request = comm.isend(obj, up, 5)
        assert comm.probe(down, 5) is True
        found.append(comm.recv(source=MPI.ANY_SOURCE, tag=5))
        request.wait()
        sends = [comm.isend(obj, up, 6), comm.issend(obj, up, 7)]
        found += [comm.mprobe(down, 7).recv(), comm.mprobe(down, 6).irecv().wait()]
        type(sends[0]).waitall(sends)
        buffer = bytearray(4_000_000)
        receives = [comm.irecv(buffer, down, 8), comm.irecv(source=down, tag=9)]
        sends = [comm.isend(obj, up, 8), comm.isend(rank, up, 9)]
        found.append(type(receives[0]).waitall(receives))
        index, nothing = type(sends[0]).waitany(sends)
        sends[1 - index].wait()
        found.append(nothing)
    found.append(comm.recv(source=MPI.PROC_NULL))
    comm.send(1, MPI.PROC_NULL)
    if size > 1 and rank < size - size % 2:
        other = rank ^ 1
        for send in (comm.send, comm.ssend):
            if rank < other:
                send({rank: own(LARGE)}, other, 11)
                found.append(comm.recv(bytearray(4_000_000), other))
            else:
                found.append(comm.recv())
                send({rank: own(LARGE)}, dest=other)
    return found


def children(comm: Any) -> Any:
    """Communicators made from it; polled ones again where it is."""
    kind = type(comm) if type(comm) is not MPI.Intracomm else None
    made = [comm.Dup(), comm.Clone(), comm.Split(rank % 2, -rank), comm.Create(comm.Get_group())]
    made += [comm.Split_type(MPI.COMM_TYPE_SHARED), comm.Create_group(comm.Get_group(), 3), comm.Idup()]
    duplicate, request = made.pop()
    request.Wait()
    made.append(duplicate)
    assert kind is None or all(type(child) is kind for child in made)
    assert comm.Split(MPI.UNDEFINED) == MPI.COMM_NULL
    found = [child.allgather((rank, child.Get_rank())) for child in made]
    cart = comm.Create_cart([size], [False])
    assert isinstance(cart, MPI.Cartcomm)
    source, dest = cart.Shift(0, 1)
    into, around = empty(), empty(10)
    cart.Sendrecv(own(), dest, 0, into, source)
    cart.Neighbor_allgather(own(), around)
    found += [cart.neighbor_allgather(rank), cart.neighbor_alltoall([rank, own()])]
    found += [into, around, cart.Get_coords(rank), cart.allreduce(rank), cart.Sub([True]).Get_size()]
    ring = comm.Create_dist_graph_adjacent([(rank - 1) % size], [(rank + 1) % size])
    found += [ring.neighbor_allgather({"rank": rank}), ring.neighbor_alltoall([own()])]
    for child in (*made, cart, ring):
        child.Free()
        assert child == MPI.COMM_NULL
    return found


def errors_of(comm: Any) -> Any:
    """What is wrong is said as mpi4py says it."""
    found = []
    wrong: tuple[Callable[[], Any], ...] = (
        lambda: comm.scatter([1] * (size + 1), root=rank),
        lambda: comm.alltoall([1] * (size + 1)),
        lambda: comm.Send(own(), size),
        lambda: comm.Bcast(own(), size),
        lambda: comm.reduce(1, root=size),
    )
    for call in wrong:
        try:
            call()
        except (ValueError, MPI.Exception) as error:
            found.append((type(error).__name__, getattr(error, "Get_error_class", lambda: 0)()))
    assert len(found) == len(wrong)
    return found


CASES: tuple[Case, ...] = (
    *(reductions, bcasts, gathers, alltoalls, messages, waits),
    *(pickled, pickled_reductions, pickled_messages, children, errors_of),
)


def same(one: Any, two: Any) -> bool:
    if isinstance(one, numpy.ndarray):
        return type(two) is type(one) and one.dtype == two.dtype and numpy.array_equal(one, two)
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and one == two


def difference(one: Any, two: Any) -> str:
    """Where two results differ first."""
    if isinstance(one, list | tuple) and isinstance(two, list | tuple) and len(one) == len(two):
        for index, pair in enumerate(zip(one, two, strict=True)):
            if not same(*pair):
                return f"[{index}]{difference(*pair)}"
    return f": {str(one)[:100]} and {str(two)[:100]}"


def do_same() -> None:
    teams = GangCommunicators(MPI, World.Dup())
    plain, polled = World.Dup(), teams.join(everybody, 10**12 + 5)
    assert isinstance(polled, MPI.Intracomm)
    assert polled.handle != MPI.COMM_NULL.handle
    assert (polled.rank, polled.size) == (rank, size)
    assert teams.join(everybody, 10**12 + 5) is polled
    polled.Free()
    failed = []
    for case in CASES:
        expected = case(plain)
        found = case(polled)
        if not same(expected, found):
            failed.append(f"{case.__name__} on rank {rank}: {difference(expected, found)}")
        World.Barrier()
    teams.end()
    everywhere = [text for texts in World.allgather(failed) for text in texts]
    assert not everywhere, everywhere


# --- one rank fails ------------------------------------------------------------------------------------------


class Alarm:
    """What the agents of the ranks do in an engine set: tell the others of a failure, while they wait."""

    def __init__(self, folder: Path) -> None:
        self._left: str | None = None
        self.teams = GangCommunicators(MPI, World.Dup(), lambda: self._left)
        self._folder = folder
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / str(rank)))
        self._lock = threading.Lock()
        self._now = 0
        self._early: dict[int, str] = {}
        threading.Thread(target=self._listen, daemon=True).start()
        World.Barrier()

    def _listen(self) -> None:
        while True:
            number, text = self._socket.recv(1000).decode().split(" ", 1)
            with self._lock:
                if int(number) == self._now:
                    self._left = text
                elif int(number) > self._now:
                    self._early[int(number)] = text

    def begin(self, number: int) -> None:
        with self._lock:
            self._now = number
            if number in self._early:
                self._left = self._early.pop(number)

    def end(self) -> None:
        with self._lock:
            self._now += 1
            self._left = None
            self.teams.end()

    def ring(self, ranks: Sequence[int], number: int, text: str) -> None:
        for other in ranks:
            if other != rank:
                self._socket.sendto(f"{number} {text}".encode(), str(self._folder / str(other)))


class OurFailure(Exception):
    pass


def steps(comm: Any, dice: random.Random, fails_at: int | None) -> None:
    """A program of many collectives; ``dice`` fall alike on all ranks."""
    me, count = comm.Get_rank(), comm.Get_size()
    last = count - 1
    total = numpy.zeros(1)
    for step in range(8):
        if step == fails_at:
            raise OurFailure(f"rank {me} at step {step}")
        kind = dice.choice(("Allreduce", "bcast", "ring", "gather", "Barrier", "isend"))
        if kind == "Allreduce":
            comm.Allreduce(numpy.full(1, me + 1.0), total)
            assert total[0] == count * (count + 1) / 2
        elif kind == "bcast":
            assert comm.bcast({"step": step} if me == last else None, root=last) == {"step": step}
        elif kind == "ring":
            into = numpy.empty(20_000)
            comm.Sendrecv(numpy.full(20_000, float(me)), (me + 1) % count, step, into, (me - 1) % count)
            assert (into == (me - 1) % count).all()
        elif kind == "gather":
            assert comm.allgather((me, step)) == [(r, step) for r in range(count)]
        elif kind == "isend":
            request = comm.isend(me, (me + 1) % count)
            assert comm.recv(source=(me - 1) % count) == (me - 1) % count
            request.wait()
        else:
            comm.Barrier()
    comm.barrier()


def run_round(alarm: Alarm, ranks: Sequence[int], serial: int, number: int, failing: int | None) -> float | None:
    """One task on these ranks; how many seconds this rank took to hear of a failure."""
    dice = random.Random(number)
    fails_at = dice.randrange(8)
    comm = alarm.teams.join(ranks, serial)
    alarm.begin(number)
    try:
        steps(comm, dice, fails_at if rank == failing else None)
        assert failing is None
    except OurFailure:
        alarm.ring(ranks, number, f"failed at {time.monotonic()}")
    except PeerError as error:
        assert failing not in (None, rank)
        return time.monotonic() - float(str(error).split()[-1])
    finally:
        alarm.end()
    return None


def do_rounds(folder: Path, rounds: int = 1000) -> None:
    """One random rank of all raises, again and again; between the failures the communicator is used twice."""
    alarm = Alarm(folder)
    began = time.monotonic()
    heard = []
    serial = 2**59
    for number in range(1, rounds + 1):
        failing = random.Random(-number).randrange(size)
        serial += 1
        if number % 5 == 0:
            assert run_round(alarm, everybody, serial, 3 * number, None) is None
            assert run_round(alarm, everybody, serial, 3 * number + 1, None) is None
        late = run_round(alarm, everybody, serial, 3 * number + 2, failing)
        assert (late is None) == (rank == failing)
        if late is not None:
            heard.append(late)
    slowest = max(World.allgather(max(heard)))
    assert alarm.teams.abandoned == rounds - 1
    if rank == 0:
        print(
            f"{rounds} rounds in {time.monotonic() - began:.1f} s, heard within {slowest * 1000:.1f} ms",
            flush=True,
        )
    assert slowest < 1.0


def do_exhaust(folder: Path) -> None:
    """MPICH has room for some 2,000 communicators: the sentence that ends it comes on all ranks."""
    teams = GangCommunicators(MPI, World.Dup())
    sentence, serial = "", 0
    while not sentence:
        serial += 1
        try:
            teams.join(everybody, serial)
        except KernelError as error:
            sentence = str(error)
    assert 1500 < teams.abandoned < 2100
    assert "Restart the engines" in sentence
    fewest, most = numpy.array([teams.abandoned]), numpy.array([teams.abandoned])
    World.Allreduce(MPI.IN_PLACE, fewest, MPI.MIN)
    World.Allreduce(MPI.IN_PLACE, most, MPI.MAX)
    assert fewest == most


def do_groups(folder: Path) -> None:
    """Overlapping groups in many orders; some fail, and only their communicator is replaced."""
    alarm = Alarm(folder)
    dice = random.Random(7)
    serials: dict[tuple[int, ...], int] = {}
    newest = 100
    seen: dict[int, Any] = {}
    for number in range(1, 301):
        ranks = tuple(dice.sample(everybody, dice.randint(1, size)))
        if ranks not in serials:
            newest += 1
            serials[ranks] = newest
        serial = serials[ranks]
        failing = dice.choice(ranks) if len(ranks) > 1 and dice.random() < 0.3 else None
        if failing is not None:
            del serials[ranks]
        if rank in ranks:
            comm = alarm.teams.join(ranks, serial)
            assert seen.setdefault(serial, comm) is comm
            assert MPI.Group.Translate_ranks(comm.Get_group(), None, World.Get_group()) == list(ranks)
            run_round(alarm, ranks, serial, number, failing)
    World.Barrier()
    for ranks, serial in serials.items():
        if rank in ranks:
            alarm.teams.forget(serial)
    for ranks in serials:
        newest += 1
        if rank in ranks:
            assert alarm.teams.join(ranks, newest).allgather(rank) == list(ranks)
            alarm.teams.forget(newest)
    World.Barrier()


# --- interrupts, memory, speed -------------------------------------------------------------------------------


def do_interrupts(folder: Path) -> None:
    """KeyboardInterrupt gets through each kind of wait, except that of joining, which it follows."""
    teams = GangCommunicators(MPI, World.Dup())
    buffer = numpy.zeros(4)
    waits: tuple[Callable[[Any], Any], ...] = (
        lambda comm: comm.Barrier(),
        lambda comm: comm.Recv(buffer, size - 1),
        lambda comm: comm.recv(source=size - 1),
        lambda comm: comm.Irecv(buffer, size - 1).Wait(),
        lambda comm: comm.irecv(source=size - 1).wait(),
        lambda comm: comm.Probe(size - 1),
        lambda comm: comm.Split(0),
        lambda comm: comm.allreduce("x"),
        lambda comm: comm.ssend(1, size - 1),
    )
    for number, wait in enumerate(waits):
        comm = teams.join(everybody, number)
        if rank < size - 1:
            threading.Timer(
                0.02, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            ).start()
            began = time.monotonic()
            try:
                wait(comm)
            except KeyboardInterrupt:
                assert time.monotonic() - began < 0.5
            else:
                raise AssertionError(f"{number} was not interrupted")
        teams.end()
        World.Barrier()
    assert teams.join(everybody, 1000).allgather(rank) == list(everybody)
    if rank == size - 1:
        threading.Event().wait(0.3)
        teams.join(everybody, 1001)
    else:
        threading.Timer(0.1, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)).start()
        began, used = time.monotonic(), time.process_time()
        try:
            teams.join(everybody, 1001)
        except KeyboardInterrupt:
            assert time.monotonic() - began > 0.2
            assert time.process_time() - used < 0.15
        else:
            raise AssertionError("joining forgot the interrupt")
    assert teams.join(everybody, 1001).allgather(rank) == list(everybody)


def failure_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except PeerError as error:
        return str(error)
    return "no failure"


def do_memory(folder: Path) -> None:
    """What MPI may still write to stays, and no longer than that."""
    failures: list[str] = []
    teams = GangCommunicators(MPI, World.Dup(), lambda: failures[0] if failures else None)
    comm = teams.join(everybody, 1)
    array = numpy.zeros(1000)
    posted = weakref.ref(array)
    comm.Irecv(array, rank, 5)
    del array
    gc.collect()
    assert posted() is not None
    comm.Send(numpy.ones(1000), rank, 5)
    while not posted()[0]:
        comm.Iprobe()
    into = numpy.zeros(1000)
    posted, summed = weakref.ref(into), weakref.ref(buffer := numpy.zeros(1000))
    comm.Irecv(into, rank, 6)
    del into
    many = []
    for _ in range(5000):
        many.append(weakref.ref(small := numpy.zeros(1)))
        comm.Isend(small, rank, 7)
        comm.Recv(numpy.zeros(1), rank, 7)
    assert sum(one() is not None for one in many) < 1000
    World.Barrier()
    if rank < size - 1:
        threading.Timer(0.05, failures.append, ("rank failed",)).start()
        for _ in range(2):
            assert failure_of(functools.partial(comm.Allreduce, MPI.IN_PLACE, buffer)) == "rank failed"
    del buffer
    failures.clear()
    teams.end()
    gc.collect()
    assert posted() is None, "the receive was cancelled"
    assert size == 1 or (summed() is not None) == (rank < size - 1)
    World.Barrier()


def microseconds(call: Callable[[], Any], times: int = 300) -> float:
    World.Barrier()
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times * 1e6


def do_speed(folder: Path, everything: bool = False) -> None:
    """Figures of polled calls beside mpi4py's; by default only what the test judges."""
    teams = GangCommunicators(MPI, World.Dup())
    plain, polled = World.Dup(), teams.join(everybody, 1)
    one, sum_ = numpy.ones(1), numpy.zeros(1)
    big = numpy.ones(2_000_000)
    up, down, into = (rank + 1) % size, (rank - 1) % size, numpy.zeros(2_000_000)
    small: dict[str, Callable[[Any], Any]] = {
        "Allreduce": lambda comm: comm.Allreduce(one, sum_),
        "Barrier": lambda comm: comm.Barrier(),
        "Sendrecv": lambda comm: comm.Sendrecv(one, up, 0, sum_, down),
        "allreduce": lambda comm: comm.allreduce(rank),
        "bcast": lambda comm: comm.bcast({"a": 1}),
        "gather": lambda comm: comm.gather(rank),
        "sendrecv": lambda comm: comm.sendrecv(rank, up, source=down),
    }
    large: dict[str, Callable[[Any], Any]] = {
        "16 MB Bcast": lambda comm: comm.Bcast(big),
        "16 MB Allreduce": lambda comm: comm.Allreduce(big, into),
        "16 MB Sendrecv": lambda comm: comm.Sendrecv(big, up, 0, into, down),
        "16 MB bcast": lambda comm: comm.bcast(big),
        "16 MB allreduce": lambda comm: comm.allreduce(big),
    }
    for name, call in {**small, **large}.items() if everything else [("Allreduce", small["Allreduce"])]:
        times = 300 if name in small else 4
        one_way, other_way = functools.partial(call, plain), functools.partial(call, polled)
        one_way(), other_way()
        # Four ranks share two cores with whatever else runs there, which can only make a round longer: the
        # shortest of many rounds is what the calls cost.
        rounds = []
        until = World.bcast(time.monotonic() + 4.0)
        while World.bcast(time.monotonic() < until):
            rounds.append((microseconds(one_way, times), microseconds(other_way, times)))
        before, after = (min(figures) for figures in zip(*rounds, strict=True))
        ratio = World.bcast(after / before)
        if rank == 0:
            print(f"{name}: mpi4py {before:.1f} us, polled {after:.1f} us, ratio {ratio:.2f}", flush=True)
        assert name != "Allreduce" or ratio < 3


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    {
        "same": lambda _: do_same(),
        "rounds": do_rounds,
        "exhaust": do_exhaust,
        "groups": do_groups,
        "interrupts": do_interrupts,
        "memory": do_memory,
        "speed": do_speed,
        "figures": functools.partial(do_speed, everything=True),
    }[what](folder)
    World.Barrier()
    if rank == 0:
        print("fine", flush=True)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # the launcher ends the others, who wait for this rank
