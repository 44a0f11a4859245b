"""What engine sets are told of ranks that will not complete a command of others, and of the end of the job."""

from __future__ import annotations

from ..ids import IdList
from .basemessage import Message


class CommandWithdrawn(Message, frozen=True, tag=55):
    """These ranks will not be given a command that others of the set have been given already."""

    id: int
    ranks: IdList
    text: str


class LeaveCommand(Message, frozen=True, tag=71):
    """Rank ``rank`` has failed in a command: calls of these ranks on their communicator end, ``text`` says why."""

    id: int
    ranks: IdList
    rank: int
    text: str


class EndIsNear(Message, frozen=True, tag=76):
    """A rank below has got SIGUSR1, the batch system's warning that the job ends soon."""
