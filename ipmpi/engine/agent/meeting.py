"""How the agents of a set's nodes learn of each other: through their ranks, by MPI.

Only ranks are in MPI, and it is the one thing that all nodes share when a set starts. So the lowest rank on each
node passes on what its agent wants to tell the others: where it listens, and a secret. Collective.
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
"""Gives every rank's value, by rank. Collective."""


def leaders_of(tokens: list[bytes]) -> list[int]:
    """The lowest rank on the node of each rank: nodes are told apart by what their agents have said."""
    first: dict[bytes, int] = {}
    return [first.setdefault(token, rank) for rank, token in enumerate(tokens)]


class Conversation:
    """What a rank and its agent say before the rank is one of a set."""

    def __init__(self, socket: RankSocket) -> None:
        self.socket = socket

    def hear(self) -> tuple[rm.ToRank, list[int]]:
        """What the agent says next, and descriptors that come along.

        Raises:
            LauncherError: the agent is gone, or says that this is the end.
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
        """Tell the agent something."""
        self.socket.send(rm.encode(message), files)

    def meet(self, rank: int, leaders: list[int], host: str, exchange: Exchange) -> str:
        """Have the agents of all nodes meet; why they could not, or nothing."""
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
        # Whoever dialled knows more than whoever waited in vain, and the last node in the tree has nobody below.
        troubles = [text for text in exchange(trouble) if text]
        worst = troubles[-1] if troubles else ""
        if is_leader:
            self.say(rm.Formed(not troubles, worst))
        return worst
