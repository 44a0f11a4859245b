"""What a task has left in its communicator, which the next task on these ranks would get.

Most tasks leave nothing, and their communicator is used again, since making one takes long. A message that nobody
received, a request that is still open, a collective that not all ranks called: with these, the next task would
compute with data of this one. Settings are put back; hints cannot be.
"""

from __future__ import annotations

from typing import Any

from .polled import PolledCommunicators

_LOOKS = 3
"""Questions whether a message is there: MPI moves data while it is asked."""


class Used:
    """A communicator, and what it was like when it was new.

    Attributes:
        comm: the communicator.
        is_new: no task has had it.
    """

    def __init__(self, mpi: Any, communicators: PolledCommunicators, comm: Any) -> None:
        self._mpi = mpi
        self._communicators = communicators
        self.comm = comm
        self.is_new = True
        self._name = comm.Get_name()
        self._has_open_requests = False

    def task_ended(self, has_open_requests: bool) -> None:
        """A task that had it is over."""
        self.is_new = False
        self._has_open_requests = self._has_open_requests or has_open_requests

    def is_spent(self) -> bool:
        """Whether this rank sees that something was left in it which cannot be taken out."""
        if self._has_open_requests or self.comm.handle in self._communicators.hinted:
            return True
        hidden = self._communicators.hidden_of(self.comm)
        return self._has_message(self.comm) or (hidden is not None and self._has_message(hidden))

    def _has_message(self, comm: Any) -> bool:
        probe = self._mpi.Comm.Iprobe
        return any(probe(comm, self._mpi.ANY_SOURCE, self._mpi.ANY_TAG) for _ in range(_LOOKS))

    def restore(self) -> None:
        """Put back the settings that the task has changed."""
        comm = self.comm
        if comm.Get_errhandler() != self._mpi.ERRORS_RETURN:
            comm.Set_errhandler(self._mpi.ERRORS_RETURN)
        if comm.Get_name() != self._name:
            comm.Set_name(self._name)
        for keyval in self._communicators.attributes.pop(comm.handle, ()):
            if comm.Get_attr(keyval) is not None:
                comm.Delete_attr(keyval)
