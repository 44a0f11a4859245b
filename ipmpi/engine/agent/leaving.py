"""The others leave a command in which a rank has failed: the messages of that, at one node agent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from ...ids import Ids
from ...protocol import messages as m
from .commandpeers import CommandPeers
from .localrank import LocalRank
from .peeragent import PeerAgent
from .settasks import SetTasks

_REMEMBERED = 64
"""Failed commands that are remembered: the body of one may still be arriving."""


class Node(Protocol):
    """The part of an agent that is needed here: see :class:`ipmpi.engine.agent.agent.Agent`."""

    local: dict[int, LocalRank]

    @property
    def is_root(self) -> bool:
        """Whether this agent has the link to the controller."""

    def by_peer(self, ranks: Sequence[int]) -> list[tuple[PeerAgent, Ids]]:
        """The ranks below, by the agent through which they are reached."""


class Leaving:
    """Tells ranks that others of the same command have failed.

    Args:
        node: the agent.
        joined: whether the ranks share a communicator.
        tasks: also hear at the root which ranks have answered.
    """

    def __init__(self, node: Node, joined: bool, tasks: SetTasks) -> None:
        self._node = node
        self._tasks = tasks
        self._peers = CommandPeers(joined)
        self._told: dict[int, m.LeaveCommand] = {}

    def registered(self, engines: Sequence[m.EngineInfo]) -> None:
        """The set has these ranks."""
        self._peers.registered([engine.rank for engine in engines])

    def give(self, message: m.Dispatch, pass_down: Callable[[m.Dispatch], None]) -> None:
        """Pass a command down."""
        left = None
        if self._node.is_root:
            message, left = self._peers.given(message)
        pass_down(message)
        if left is not None:
            self._tell(left)

    def answered(self, message: m.Result) -> None:
        """Ranks have answered a command."""
        if self._node.is_root:
            self._tasks.command_answered(message.engines)
            self._tell(self._peers.answered(message))

    def lost(self, ranks: Sequence[int], reason: str) -> None:
        """Ranks have ended, or their engines."""
        for left in self._peers.lost(ranks, reason):
            self._tell(left)

    def heard(self, message: m.LeaveCommand | m.CommandWithdrawn) -> None:
        """The agent above, or the controller, says that some ranks cannot complete a command."""
        self._tell(message if isinstance(message, m.LeaveCommand) else self._peers.will_not_run(message))

    def begun(self, local: LocalRank, number: int) -> None:
        """A rank of this node was given a command."""
        left = self._told.get(number)
        if left is not None:
            local.leave(number, left.rank, left.text)

    def _tell(self, left: m.LeaveCommand | None) -> None:
        if left is None:
            return
        self._told[left.id] = left
        if len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]
        for rank in left.ranks:
            local = self._node.local.get(rank)
            if local is not None:
                local.leave(left.id, left.rank, left.text)
        for peer, ranks in self._node.by_peer(left.ranks):
            peer.connection.send(msgspec.structs.replace(left, ranks=ranks))
            peer.wake()
