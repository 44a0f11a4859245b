"""The communicator of all ranks of a set, which user code has as ``comm``: its calls can be ended.

It is one object for as long as the rank lives. After a failure it stands for a new communicator of MPI: so
wherever user code has kept it, it is the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from ...errors import KernelError
from ..rank.callring import CallRing
from .creating import create
from .derived import Derived, become
from .polled import PolledCommunicators
from .polling import Watch
from .recording import Recorder
from .requests import Requests

FIRST_TAG: Final = 16_384
"""Tags from here on are for this module; those below for :mod:`ipmpi.engine.mpi.comm`. Every MPI has 32,768."""

_LABEL: Final = "comm"


class SetCommunicator:
    """The communicator of this rank with all others.

    Args:
        mpi: the module mpi4py.MPI.
        parent: a duplicate of COMM_WORLD for ipmpi itself.
        comm: another one, which user code will get.
        why_not: returns the exception that calls shall raise, or None.
        ring: where calls are recorded.

    Attributes:
        comm: what user code gets.
        is_used: whether a call was made since this was set to False.
        abandoned: number of communicators that were replaced.
    """

    def __init__(
        self,
        mpi: Any,
        parent: Any,
        comm: Any,
        why_not: Callable[[], KernelError | None],
        ring: CallRing | None = None,
    ) -> None:
        self._mpi = mpi
        self._parent = parent
        self._why_not = why_not
        self._watch = Watch(self._look)
        self._requests = Requests(mpi, self._watch, None if ring is None else Recorder(mpi, ring, self._watch))
        self._communicators = PolledCommunicators(mpi, self._requests)
        self.is_used = False
        self.abandoned = 0
        self.comm = self._communicators.wrap(comm, _LABEL)
        self._communicators.kept_handles.add(self.comm.handle)
        self._derived = Derived(mpi)
        self._communicators.on_made = self._made

    def _made(self, comm: Any) -> None:
        if comm.label.startswith(_LABEL):  # not those of COMM_SELF, which no failure of others can harm
            self._derived.add(comm)

    def take_the_place_of_the_world(self) -> None:
        """Be ``MPI.COMM_WORLD``, for code that uses that name; what is made of ``MPI.COMM_SELF`` polls as well."""
        own = self._communicators.wrap(self._mpi.COMM_SELF, "COMM_SELF")
        self._communicators.kept_handles.add(own.handle)
        self._mpi.COMM_WORLD, self._mpi.COMM_SELF = self.comm, own

    def _look(self) -> KernelError | None:
        self.is_used = True
        return self._why_not()

    def renew(self, number: int, members: Sequence[int]) -> None:
        """Replace the communicator by a new one. Main thread only; collective.

        Args:
            number: of this attempt, the same at all ranks; each attempt has another one.
            members: the ranks of COMM_WORLD that it shall have; empty for all.

        Raises:
            PeerError: another rank will not come.
            KernelError: MPI has no communicator left.
        """
        team = tuple(members) or tuple(range(self._parent.Get_size()))
        tag = FIRST_TAG + number % FIRST_TAG
        self._requests.sweep()
        interrupt = self._assemble(team, tag)
        has_lost = len(team) < self._parent.Get_size()
        try:
            fresh = create(self._mpi, self._parent, team, tag, "comm", has_lost=has_lost)
        except self._mpi.Exception as error:
            raise KernelError(
                f"MPI made no communicator to replace the one that a failure left unusable: {_in_a_line(error)}. "
                f"{self.abandoned} were replaced before, and an MPI library has room for a limited number of them "
                "(MPICH for about 2,000): restart the engines with mec.restart(), or stop and start the cluster"
            ) from error
        self._derived_again(fresh, team)
        if interrupt is not None:
            raise interrupt

    def _derived_again(self, fresh: Any, team: Sequence[int]) -> None:
        """Use the new communicator, and make those again that were made of the old one."""
        world = self._parent.Get_group()
        told = self.comm.collectives, self._derived.described(world)
        world.Free()
        become(self._mpi, self.comm, fresh)
        self._communicators.kept_handles.add(fresh.handle)
        self.abandoned += 1
        everybody = self.comm.allgather(told)
        arrived = self._mpi.Comm.Ibarrier(fresh)
        interrupt = self._watch.wait_for_all(arrived.Test, _DECIDED)
        self._derived.make_again(fresh, everybody, team)
        self.comm.collectives = max(count for count, _ in everybody)
        if interrupt is not None:
            raise interrupt

    def _assemble(self, team: tuple[int, ...], tag: int) -> BaseException | None:
        """Wait until all ranks are here; return what to raise when the communicator was made."""
        parent, first, me = self._parent, team[0], self._parent.Get_rank()
        byte = self._mpi.BYTE
        others = team[1:] if me == first else (first,)
        spaces = [bytearray(0) for _ in others]
        receives = [parent.Irecv([space, byte], other, tag) for space, other in zip(spaces, others, strict=True)]
        sends = [] if me == first else [parent.Isend([bytearray(0), byte], first, tag)]
        all_came = self._mpi.Request.Testall
        try:
            # The first rank decides: what it has said reaches the others while they still wait.
            interrupt = self._watch.wait_for_all(lambda: all_came(receives), 0.0 if me == first else _DECIDED)
        except BaseException:
            for receive in receives:
                self._requests.drop(receive, spaces, receives=True)
            for send in sends:
                self._requests.drop(send, None, receives=False)
            raise
        if me == first:
            sends = [parent.Isend([bytearray(0), byte], other, tag) for other in others]
        for send in sends:
            self._requests.drop(send, None, receives=False)
        return interrupt


_DECIDED: Final = 1.0
"""Seconds in which the other ranks hear from the first that all are there; it may be late, as cores are shared."""


def _in_a_line(error: Any) -> str:
    """Return what MPICH has at the end of the stack of its error, and others in one line."""
    return str(error).strip().splitlines()[-1].strip()
