"""What ranks print while they run a command, on its way to the client (no I/O)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ...ids import NONE, Ids
from ...protocol import messages as m
from .queuedcommand import QueuedCommand

_KINDS: Final = frozenset((m.STDOUT, m.STDERR, m.DISPLAY))
_LEAST: Final = 16
"""Bytes that a block counts for at least: empty ones need memory, too."""


def for_client(work: QueuedCommand, message: m.Output, running: Callable[[Sequence[int]], Ids]) -> m.Output | None:
    """The message for the client; None if there is nothing to pass on.

    Args:
        work: the command.
        message: from an engine set.
        running: the ids of those of these ranks that run the command now.
    """
    blocks = []
    for block in message.blocks:
        engines = running(block.engines) if block.kind in _KINDS else NONE
        work.output += max(len(block.data), _LEAST)
        if engines and work.output <= work.most_output:
            blocks.append(m.OutputBlock(block.kind, block.first, engines, block.data))
    return m.Output(work.id, blocks) if blocks else None
