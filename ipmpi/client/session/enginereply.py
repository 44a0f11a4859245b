"""The answer of one engine to a command."""

from __future__ import annotations

from typing import NamedTuple

from ...protocol.frames import Buffer
from ...protocol.operations import Outcome
from .commandoutput import Printed


class EngineReply(NamedTuple):
    """One engine's answer, and what it printed. ``undone``: the error's name and text if it will not answer."""

    engine: int
    ok: bool
    outcome: Outcome
    body: list[Buffer]
    undone: tuple[str, str] | None = None
    printed: Printed = Printed()
