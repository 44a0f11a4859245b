"""The communicators of tasks on several ranks: real ones, whose calls end when another rank fails.

What a task gets is a communicator of mpi4py in every respect: ``isinstance`` holds, a C library can use its
handle, and each call means what it means in mpi4py. But its calls poll (:mod:`ipmpi.engine.mpi.polled`), so that
interrupts are heard, and :class:`~ipmpi.errors.PeerError` is raised once another rank of the task has failed.

After a failure the communicator is not reused, and never freed: other ranks may still wait in it. The same holds
if a task has left something in it (:mod:`ipmpi.engine.mpi.leftovers`): the ranks check, and agree, before the next
task. MPICH has room for about 2,000 communicators, Open MPI for more; then the ranks must be restarted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import KernelError
from ..rank.callring import CallRing
from .creating import create
from .leftovers import Used
from .polled import PolledCommunicators
from .polling import Watch
from .recording import Recorder
from .requests import Requests
from .setcomm import FIRST_TAG as TAGS

_FOUND = struct.Struct("=?qq")
"""Whether something was left; the number of collective calls, and its negative. Reduced by maximum."""


class GangCommunicators:
    """The communicators of this rank with others, one for each group of ranks that has worked together.

    Args:
        mpi: the module mpi4py.MPI.
        parent: a duplicate of COMM_WORLD that nothing else uses.
        left: returns why to leave the current task, or None: its calls raise PeerError with this text.
        ring: where calls are recorded.

    Attributes:
        abandoned: number of communicators that were abandoned after failures.
    """

    def __init__(
        self, mpi: Any, parent: Any, left: Callable[[], str | None] = lambda: None, ring: CallRing | None = None
    ) -> None:
        self._mpi = mpi
        self._parent = parent
        self._watch = Watch(left)
        self._requests = Requests(mpi, self._watch, None if ring is None else Recorder(mpi, ring, self._watch))
        self._communicators = PolledCommunicators(mpi, self._requests)
        self._serials: dict[tuple[int, ...], int] = {}
        self._comms: dict[int, Used] = {}
        self._current: Used | None = None
        self.abandoned = 0

    def join(self, ranks: Sequence[int], serial: int, has_lost: bool = False) -> Any:
        """Return the communicator of these ranks, in this order. Main thread only.

        Collective over ``ranks`` if the serial is new: each of them must call this, even if the task has failed
        meanwhile. An interrupt is raised when all have called it.

        Args:
            ranks: ranks of the engine set, including this one.
            serial: a known one gives the known communicator; a new one replaces that of the same ranks.
            has_lost: whether a rank of the set has died; the same at all of these.

        Returns:
            An ``MPI.Intracomm`` whose calls poll.

        Raises:
            KernelError: MPI has no communicator left.
        """
        known = self._comms.get(serial)
        if known is not None:
            self._current = known
            return known.comm
        team = tuple(ranks)
        older = self._serials.pop(team, None)
        if older is not None:
            del self._comms[older]
            self.abandoned += 1
        tag = serial % TAGS
        interrupt = self._assemble(team, tag)
        self._current = self._comms[serial] = self._make(team, tag, has_lost)
        self._serials[team] = serial
        if interrupt is not None:
            raise interrupt
        return self._current.comm

    def _make(self, team: tuple[int, ...], tag: int, has_lost: bool) -> Used:
        try:
            made = create(self._mpi, self._parent, team, tag, f"task of {team}", has_lost=has_lost)
            comm = self._communicators.wrap(made, f"task {tag}")
        except self._mpi.Exception as error:
            raise KernelError(
                f"MPI made no communicator for the ranks {list(team)}: {error}. There are {len(self._comms)} in "
                f"use here, and {self.abandoned} were abandoned by tasks that failed; MPI has room for some "
                "thousands. Restart the engines"
            ) from error
        self._communicators.kept_handles.add(comm.handle)
        return Used(self._mpi, self._communicators, comm)

    def renew(self, ranks: Sequence[int], serial: int, has_lost: bool = False) -> Any:
        """Return the communicator that was joined, or a new one if the previous task has left something in it.

        Main thread only. Collective over ``ranks`` if a task has used it. It does not wait long, as all of them
        begin the same task; :meth:`leave` ends the wait for one that cannot.

        Raises:
            PeerError: another rank has failed. The serial must not be used again.
        """
        used = self._comms[serial]
        if used.is_new:
            return used.comm
        used.restore()
        team = tuple(ranks)
        if self._is_spent(used, team, serial):
            self.abandoned += 1
            used = self._current = self._comms[serial] = self._make(team, serial % TAGS, has_lost)
        return used.comm

    def _is_spent(self, used: Used, team: tuple[int, ...], serial: int) -> bool:
        """Return whether any rank of the team found something left, by log n exchanges of a few bytes."""
        count = used.comm.collectives
        found = [used.is_spent(), count, -count]
        me, size, tag = team.index(self._parent.Get_rank()), len(team), serial % TAGS
        distance = 1
        while distance < size:
            theirs = bytearray(_FOUND.size)
            receive = self._parent.Irecv(theirs, team[me - distance], tag)
            try:
                send = self._parent.Isend(_FOUND.pack(*found), team[(me + distance) % size], tag)
                self._requests.settle(send, None)
            except BaseException:
                self._requests.drop(receive, theirs, receives=True)
                raise
            self._requests.settle(receive, theirs, receives=True)
            found = list(map(max, found, _FOUND.unpack(theirs)))
            distance *= 2
        spent, most, fewest = found
        return bool(spent) or most != -fewest

    def forget(self, serial: int) -> None:
        """Free a communicator whose task did not fail. Main thread only, at all of its ranks or at none.

        A later task on the same ranks needs a new serial.
        """
        used = self._comms.pop(serial, None)
        if used is not None:
            self._serials = {team: s for team, s in self._serials.items() if s != serial}
            self._communicators.kept_handles.discard(used.comm.handle)
            used.comm.Free()

    def end(self) -> None:
        """End the task, so that the next one starts without a failure. Main thread only."""
        has_open_requests = self._requests.sweep()
        if self._current is not None:
            self._current.task_ended(has_open_requests)

    def _assemble(self, team: tuple[int, ...], tag: int) -> BaseException | None:
        """Wait, with pauses, until the whole team has arrived: a rank may still be busy.

        Nothing ends this wait early, since the others would then wait for this rank inside MPI.

        Returns:
            The exception that a signal handler raised meanwhile, or None.
        """
        parent, first, me = self._parent, team[0], self._parent.Get_rank()
        others = team[1:] if me == first else (first,)
        came, gone = bytearray(0), bytearray(0)
        patient = _Patient(self._mpi.Exception)
        byte = self._mpi.BYTE
        if me != first:
            patient.wait(parent.Isend([came, byte], first, tag).Test)
        receives = [parent.Irecv([gone, byte], other, tag) for other in others if other != me]
        for receive in receives:
            patient.wait(receive.Test)
        if me == first:
            for send in [parent.Isend([came, byte], other, tag) for other in others]:
                patient.wait(send.Test)
        return patient.interrupt


class _Patient:
    """Waits to the end, and stores an interrupt for later."""

    def __init__(self, failure: type[Exception]) -> None:
        self._watch = Watch()
        self._failure = failure
        self.interrupt: BaseException | None = None

    def wait(self, ask: Callable[[], bool]) -> None:
        while True:
            try:
                self._watch.wait(ask)
                return
            except self._failure:
                raise
            except BaseException as error:
                self.interrupt = error
