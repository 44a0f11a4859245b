"""What debuggers on ranks say, on its way up, and lines for them, on their way down; and the same for debugpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, get_args

from ...ids import Ids
from ...protocol import messages as m, rankmessages as rm
from .debugport import DebugPort
from .peeragent import PeerAgent
from .setoutput import SetOutput


class Rank(Protocol):
    """The part of a rank that is needed here: see :class:`ipmpi.engine.agent.localrank.LocalRank`."""

    @property
    def rank(self) -> int:
        """Its number in the set."""

    @property
    def debug_port(self) -> DebugPort:
        """Where debugpy is attached to it."""

    def debugger_line(self, command: int, text: str | None) -> None:
        """Give its debugger a line."""


class Node(Protocol):
    """The part of an agent that is needed here: see :class:`ipmpi.engine.agent.agent.Agent`."""

    output: SetOutput
    children: list[PeerAgent]

    @property
    def local(self) -> Mapping[int, Rank]:
        """The ranks of this node."""

    def by_peer(self, ranks: Sequence[int]) -> list[tuple[PeerAgent, Ids]]:
        """The ranks below, by the agent through which they are reached."""

    def send_up(self, message: m.AnyMessage) -> None:
        """Send to the agent or controller above."""


class Debuggers:
    """The debuggers of the ranks of one node, and of those below.

    What they say is never folded, and comes after all output that there is of its command.

    Args:
        node: the agent.

    Attributes:
        orders: what hears messages from above, by their types.
        reports: what hears those from below.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        kinds = get_args(m.ChannelMessage)
        self.orders: dict[type[m.Message], Callable[[Any], object]] = {
            m.DebuggerLine: self.line, **dict.fromkeys(kinds, self._for_port),
        }  # fmt: skip
        self.reports: dict[type[m.Message], Callable[[Any], object]] = {
            m.DebuggerSaid: self.from_below, **dict.fromkeys(kinds, node.send_up),
        }  # fmt: skip

    def told(self, local: Rank, command: int, message: rm.DebuggerTold) -> None:
        """The debugger of a rank of this node has said something, in command ``command`` of the controller."""
        self.from_below(
            m.DebuggerSaid(command, local.rank, message.state, message.text, message.prompt, message.place)
        )

    def from_below(self, message: m.DebuggerSaid) -> None:
        """A debugger has said something."""
        self._node.output.flush(message.id)
        self._node.send_up(message)

    def line(self, message: m.DebuggerLine) -> None:
        """A client has a line for debuggers that wait."""
        for rank in message.engines:
            local = self._node.local.get(rank)
            if local is not None:
                local.debugger_line(message.command, message.text)
        for peer, ranks in self._node.by_peer(message.engines):
            peer.connection.send(m.DebuggerLine(message.command, ranks, message.text))
            peer.wake()

    def nobody_is_there(self) -> None:
        """The controller, and with it the clients, are others than before: user code goes on everywhere."""
        below = [rank for peer in self._node.children for rank in peer.ranks]
        self.line(m.DebuggerLine(0, [*self._node.local, *below], None))
        for rank in [*self._node.local, *below]:
            self._for_port(m.DebugClosed(0, rank))

    def _for_port(self, message: m.ChannelMessage) -> None:
        """An editor's message for debugpy in a rank, or what opens or closes the channel between them."""
        local = self._node.local.get(message.engine)
        if local is not None:
            local.debug_port.heard(message, self._node.send_up)
        for peer, _ in self._node.by_peer([message.engine]):
            peer.connection.send(message)
            peer.wake()
