"""The communicator of all ranks, while commands run: when its calls end, and when it is replaced.

The agent writes into the control block that another rank of the running command has failed; with each command it
says whether the communicator is as it was, must not be used, or is to be made again first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from ...errors import KernelError, PeerError
from .controlblock import CURRENT, LEAVE_COMMAND, LEAVE_RANK, ControlBlock

BROKEN: Final = -1
"""In place of the number of a new communicator: there is none yet, and the old one must not be used."""


class SharedCommunicator(Protocol):
    """The communicator: see :class:`ipmpi.engine.mpi.setcomm.SetCommunicator`."""

    is_used: bool
    """Whether one of its calls was made since this was set to False."""
    comm: Any
    """What user code gets."""

    def renew(self, number: int, members: Sequence[int]) -> None:
        """Replace it by a new one; collective. ``members``: the ranks that it shall have, empty for all."""


MakeShared = Callable[[Callable[[], KernelError | None]], SharedCommunicator | None]
"""Returns the communicator, or None if the ranks are not joined; its argument returns why its calls must end."""


class CommandComm:
    """The communicator of this rank.

    Args:
        make: makes it.
    """

    def __init__(self, block: ControlBlock, make: MakeShared) -> None:
        self._block = block
        self._words = block.words
        self._is_broken = False
        self._used_up = ""
        """Why there is no communicator any more, and will be none."""
        self._shared = make(self.why_not)

    @property
    def comm(self) -> Any:
        """What user code gets; None if the ranks are not joined."""
        return None if self._shared is None else self._shared.comm

    def why_not(self) -> KernelError | None:
        """Return why a call must not go on; None if it may."""
        words = self._words
        command = words[LEAVE_COMMAND]
        if command and command == -words[CURRENT]:
            rank, failure = words[LEAVE_RANK], self._block.command_text
            return PeerError(f"rank {rank} has failed in the same command: {failure}", rank, failure)
        if self._used_up:
            return KernelError(self._used_up)
        return PeerError(_BROKEN) if self._is_broken else None

    def prepare(self, number: int, members: Sequence[int]) -> None:
        """A command begins: make a new communicator, if the agent says so.

        If MPI has none left, only calls of the communicator fail: the command may do without.

        Raises:
            PeerError: another rank has failed before.
        """
        self._is_broken = number == BROKEN
        if self._shared is not None and number > 0:
            self._used_up = ""
            try:
                self._shared.renew(number, members)
            except PeerError:
                raise
            except KernelError as error:
                self._used_up = str(error)
            self._shared.is_used = False

    def was_used(self) -> bool:
        """Return whether the command that has ended has used it."""
        if self._shared is None:
            return False
        used, self._shared.is_used = self._shared.is_used, False
        return used


_BROKEN: Final = (
    "the communicator of these engines was left in the middle of its calls when one of them had failed, and has "
    "not been replaced yet: that takes a command on all engines of the set, such as mec.execute('pass')"
)
