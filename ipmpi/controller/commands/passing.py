"""Large answers on their way from an engine set through the controller to a client."""

from __future__ import annotations

from dataclasses import dataclass

from ... import limits
from .queuedcommand import QueuedCommand

NOT_TAKEN = (
    f"this client took nothing of it for {limits.ANSWER_STUCK:.0f} s (was it stopped, or its network cut?), and "
    "others waited for the engine. Ask again"
)
"""Why an answer was given up."""


@dataclass
class Passing:
    """An answer whose body is on its way through: of which engines, and why the rest will not come."""

    work: QueuedCommand
    engines: list[int]
    error: str = "EngineLost"
    reason: str = "the engine was lost while it sent it"
