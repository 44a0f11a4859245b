"""What engine sets are told of ranks that will not complete a command which others run with them."""

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
