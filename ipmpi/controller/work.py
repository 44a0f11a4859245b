"""What is asked of engines: commands and tasks (layer L2, no I/O)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..protocol.frames import Buffer


@dataclass(eq=False)
class Work:
    """One thing that engines can run, with what the controller knows of its body.

    A body is here (``body``), or with the client: then ``stream`` is the stream on which it will come once
    credit is given. A stream can be used once; if engines become free at different times, the client is asked
    for the body again.
    """

    serial: int
    client: int
    id: int
    method: str
    label: str
    operation: bytes
    sizes: list[int]
    body: Sequence[Buffer] = ()
    stream: int = 0
    asked_again: bool = False

    @property
    def is_streamed(self) -> bool:
        """Whether the body has to come from the client."""
        return bool(self.sizes) and not self.body


@dataclass(eq=False)
class CommandWork(Work):
    """A command: ``outstanding`` holds the engines that have not answered; ``announce`` those to tell first."""

    outstanding: set[int] = field(default_factory=set)
    announce: list[int] = field(default_factory=list)
    inline_bytes: int = 0


@dataclass(eq=False)
class TaskWork(Work):
    """A task: tries left, engines it has taken down with it, and when it was submitted (epoch seconds)."""

    retries: int = 0
    engines_lost: int = 0
    submitted: float = 0.0
    aborted: bool = False
