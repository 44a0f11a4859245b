"""The reply of one engine to a command."""

from __future__ import annotations

from typing import NamedTuple

from ...protocol.frames import Buffer
from ...protocol.operations import Outcome


class EngineReply(NamedTuple):
    """The reply of one engine. ``undone``: name and text of the error if the command will never be run."""

    engine: int
    ok: bool
    outcome: Outcome
    body: list[Buffer]
    undone: tuple[str, str] | None = None
