"""The exchange of the agents' addresses while a set starts: through their ranks, by MPI.

MPI is all that the nodes share when a set starts, and only ranks use it. So the lowest rank on each node
distributes the address and the secret of its agent. Collective.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ...errors import LauncherError
from ...protocol import rankmessages as rm
from ...transport.packets import RankSocket
from .tree import place

Exchange = Callable[[object], list[Any]]
"""Returns the values of all ranks, by rank. Collective."""


def leaders_of(tokens: list[bytes]) -> list[int]:
    """Return the lowest rank on the node of each rank; each node has a token of its agent's."""
    first: dict[bytes, int] = {}
    return [first.setdefault(token, rank) for rank, token in enumerate(tokens)]


class Conversation:
    """The messages of a rank and its agent before the set is formed."""

    def __init__(self, socket: RankSocket) -> None:
        self.socket = socket

    def hear(self) -> tuple[rm.ToRank, list[int]]:
        """Return the agent's next message, and the descriptors that came with it.

        Raises:
            LauncherError: the agent has ended, or told this rank to end.
        """
        message, files = self._next()
        while isinstance(message, rm.LogLine):
            message, files = self._next()
        if isinstance(message, rm.Stop):
            for descriptor in files:
                os.close(descriptor)
            raise LauncherError(message.words or message.reason)
        return message, files

    def _next(self) -> tuple[rm.ToRank, list[int]]:
        packet = self.socket.receive()
        if packet is None:
            raise LauncherError(
                "the agent process of this node ended while the set formed: its log, beside that of this engine, "
                "says why"
            )
        data, files = packet
        return rm.for_rank(data)[0], files

    def say(self, message: rm.ToAgent, files: tuple[int, ...] = ()) -> None:
        """Send the agent a message."""
        self.socket.send(rm.encode(message), files)

    def meet(self, rank: int, leaders: list[int], host: str, exchange: Exchange) -> str:
        """Connect the agents of all nodes; return why that failed, or ""."""
        if len(set(leaders)) == 1:
            return ""
        is_leader = rank == leaders[rank]
        address = ""
        if is_leader:
            message, _ = self.hear()
            assert isinstance(message, rm.Address)
            address = message.address
        addresses = exchange(address)
        trouble = ""
        if is_leader:
            above = place(rank, leaders).above
            self.say(rm.Above("" if above is None else addresses[above]))
            message, _ = self.hear()
            assert isinstance(message, rm.Met)
            trouble = f"rank {rank} on {host}: {message.trouble}" if message.trouble else ""
        # A node that dialled knows more about a failure than one that waited; the last node always dials.
        troubles = [text for text in exchange(trouble) if text]
        worst = troubles[-1] if troubles else ""
        if is_leader:
            self.say(rm.Formed(not troubles, worst))
        return worst
