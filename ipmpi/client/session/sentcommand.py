"""A command of a session that is under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...protocol.frames import Buffer
from ...protocol.messages import Command, FollowCommand
from .commandoutput import CommandOutput
from .debuggertalk import DebuggerTalk
from .enginereply import EngineReply
from .partial import CommandFuture, SoFar


@dataclass(eq=False)
class SentCommand:
    """What is known of a command; ``order`` are its engines, None while they are unknown.

    ``cleared``: engines that have failed in another command after this one was sent, and in which: their queues
    were cleared, so this command will not run there. A ``body`` that was sent is kept, as a copy, for another
    controller, if this one has a journal.
    """

    message: Command | FollowCommand
    future: CommandFuture
    so_far: SoFar
    body: Sequence[Buffer]
    sizes: list[int]
    order: Sequence[int] | None
    output: CommandOutput
    talk: DebuggerTalk
    inline: int = 0
    replies: dict[int, EngineReply] = field(default_factory=dict)
    counted: Sequence[int] | None = None
    expected: int = 0
    cleared: dict[int, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether all engines have replied, as far as it is known which ones there are."""
        if self.order is not self.counted:  # counting again for each reply would take a minute for 65,536 engines
            self.counted, self.expected = self.order, len(set(self.order or ()))
        return self.order is not None and len(self.replies) >= self.expected
