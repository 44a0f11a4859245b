"""Large replies that are being forwarded from an engine set to a client."""

from __future__ import annotations

from dataclasses import dataclass

from ... import limits
from ...ids import Ids
from .queuedcommand import QueuedCommand

NOT_TAKEN = (
    f"this client did not read it for {limits.ANSWER_STUCK:.0f} s (was it stopped, or its network cut?), and "
    "others waited for the engine. Ask again"
)
"""Why a reply was dropped."""


@dataclass
class Passing:
    """A reply whose body is being forwarded: its engines, and why the rest will not arrive."""

    work: QueuedCommand
    engines: Ids
    error: str = "EngineLost"
    reason: str = "the engine was lost while it sent it"
