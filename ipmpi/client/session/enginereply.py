"""The answer of one engine to a command."""

from __future__ import annotations

from typing import NamedTuple

from ...protocol.frames import Buffer
from ...protocol.operations import Outcome


class EngineReply(NamedTuple):
    """One engine's answer. ``undone`` is the error's name and sentence if it will never answer."""

    engine: int
    ok: bool
    outcome: Outcome
    body: list[Buffer]
    undone: tuple[str, str] | None = None
