"""Detection of what a task has left in its communicator.

Most tasks leave nothing, and their communicator is reused, since creating one takes long. With a message that was
not received, an open request, or a collective that not all ranks called, the next task would compute with data of
this one. Settings are restored; hints cannot be.
"""

from __future__ import annotations

from typing import Any

from .polled import PolledCommunicators

_LOOKS = 3
"""Number of probes for a message: MPI makes progress while it is probed."""


class Used:
    """A communicator and its original settings.

    Attributes:
        comm: the communicator.
        is_new: whether no task has used it.
    """

    def __init__(self, mpi: Any, communicators: PolledCommunicators, comm: Any) -> None:
        self._mpi = mpi
        self._communicators = communicators
        self.comm = comm
        self.is_new = True
        self._name = comm.Get_name()
        self._has_open_requests = False

    def task_ended(self, has_open_requests: bool) -> None:
        """A task that used it has ended."""
        self.is_new = False
        self._has_open_requests = self._has_open_requests or has_open_requests

    def is_spent(self) -> bool:
        """Return whether this rank finds something in it that cannot be removed."""
        if self._has_open_requests or self.comm.handle in self._communicators.hinted:
            return True
        hidden = self._communicators.hidden_of(self.comm)
        return self._has_message(self.comm) or (hidden is not None and self._has_message(hidden))

    def _has_message(self, comm: Any) -> bool:
        probe = self._mpi.Comm.Iprobe
        return any(probe(comm, self._mpi.ANY_SOURCE, self._mpi.ANY_TAG) for _ in range(_LOOKS))

    def restore(self) -> None:
        """Restore the settings that the task has changed."""
        comm = self.comm
        if comm.Get_errhandler() != self._mpi.ERRORS_RETURN:
            comm.Set_errhandler(self._mpi.ERRORS_RETURN)
        if comm.Get_name() != self._name:
            comm.Set_name(self._name)
        for keyval in self._communicators.attributes.pop(comm.handle, ()):
            if comm.Get_attr(keyval) is not None:
                comm.Delete_attr(keyval)
