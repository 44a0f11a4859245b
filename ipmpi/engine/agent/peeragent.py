"""The agent of another node, right below or above this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...errors import KernelError
from ...ids import IdSet
from ...protocol import messages as m
from ...protocol.connection import Connection, Event
from ...protocol.frames import Buffer
from ...protocol.registration import Registration
from ...transport.link import Link
from ...transport.loop import Loop
from ...transport.pipes import Pipe


@dataclass(eq=False)
class PeerAgent:
    """An agent, and the ranks that are reached through it."""

    pipe: Pipe
    connection: Connection
    link: Link | None = None
    engines: list[m.EngineInfo] = field(default_factory=list)
    ranks: IdSet = field(default_factory=IdSet)
    """All ranks on this branch."""
    registration: Registration = field(default_factory=Registration)
    has_registered: bool = False
    """Whether it has reported its ranks; they may be lost since."""
    farewell: str = ""
    """Why it ends, if it has reported that."""
    fault: bool = False
    """Whether it ends because of an error in it."""

    @property
    def has_left(self) -> bool:
        """Whether it ends as it was told to."""
        return bool(self.farewell) and not self.fault

    def registers(self, part: m.Register) -> bool:
        """Add ranks that it has reported; return whether its report is complete."""
        message = self.registration.add(part)
        if message is not None:
            self.engines = message.engines
            self.ranks = IdSet(engine.rank for engine in self.engines)
            self.has_registered = True
        return message is not None

    def loses(self, ranks: Sequence[int]) -> None:
        """Ranks of this branch have ended."""
        gone = IdSet(ranks)
        self.engines = [engine for engine in self.engines if engine.rank not in gone]
        self.ranks.remove(ranks)

    def silent_end(self, broken: str = "") -> str:
        """Return why the ranks of this branch are lost, if its agent ended without a message.

        ``broken`` says how its link broke, if it was not closed.
        """
        host = min(self.engines, key=lambda engine: engine.rank).host if self.engines else "another node"
        agent = f"the node agent on {host}, through which it is reached,"
        if broken:
            return f"the link to {agent} broke ({broken}): it was killed, or the node is down or cut off"
        return f"{agent} ended without a word: it was killed, or the node is down or out of memory"

    def start(
        self,
        loop: Loop,
        on_event: Callable[[Event], None],
        on_closed: Callable[[str, bool, KernelError | None], None],
    ) -> None:
        """Start the link; the callbacks are those of :class:`~ipmpi.transport.link.Link`."""
        self.link = Link(loop, self.pipe, self.connection, on_event, on_closed)

    def wake(self) -> None:
        """Send what was queued."""
        if self.link is not None:
            self.link.wake()

    def feed(self, data: Buffer) -> None:
        """Bytes that arrived before the link was made."""
        if self.link is not None:
            self.link.feed(data)

    def leave(self, reason: str, fault: bool = False) -> None:
        """Send the reason why this process ends; ``fault``: an error in it, else it was told to end."""
        if self.link is not None:
            self.connection.send(m.Goodbye(reason, fault))
            self.link.close(reason)
