"""The agent of another node, right below or above this one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ...errors import KernelError
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
    registration: Registration = field(default_factory=Registration)
    has_registered: bool = False
    """It has said which ranks it has; they may be lost since."""
    farewell: str = ""
    """Why it was told to end, if it has said so."""
    fault: bool = False
    """It was not told to end: something went wrong in it."""

    @property
    def ranks(self) -> list[int]:
        """All ranks on this branch."""
        return [engine.rank for engine in self.engines]

    def registers(self, part: m.Register) -> bool:
        """It says who it is and who is below it; whether that is all now."""
        message = self.registration.add(part)
        if message is not None:
            self.engines = message.engines
            self.has_registered = True
        return message is not None

    def silent_end(self) -> str:
        """Why the ranks of this branch are gone, if its agent ended and had not said that it would."""
        host = min(self.engines, key=lambda engine: engine.rank).host if self.engines else "another node"
        return (
            f"the node agent on {host}, through which it is reached, ended without a word: it was killed, or the "
            "node is down or out of memory"
        )

    def start(
        self,
        loop: Loop,
        on_event: Callable[[Event], None],
        on_closed: Callable[[str, bool, KernelError | None], None],
    ) -> None:
        """Begin to move bytes; the callbacks are those of :class:`~ipmpi.transport.link.Link`."""
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
        """Say why this process ends: it was told to, so that its tasks are no cause; or it is at ``fault``."""
        if self.link is not None:
            self.connection.send(m.Goodbye(reason, fault))
            self.link.close(reason)
