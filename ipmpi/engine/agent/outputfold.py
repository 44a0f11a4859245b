"""Folding equal lines of ranks on their way up (the time is an argument).

Ranks that run the same program print the same lines, at about the same time. Lines are compared by their number
within a command: where the n-th line of several ranks is the same, it goes up once, with all their ranks. What has
come is told :data:`limits.OUTPUT_WINDOW` after the first of it, or before an answer of the command.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ... import limits
from ...protocol import messages as m
from .linecutter import cut


class _Item(NamedTuple):
    """A line or a display; those of standard output and displays are numbered together."""

    kind: int
    number: int
    data: bytes


class _Collected:
    __slots__ = ("deadline", "items")

    def __init__(self) -> None:
        self.items: dict[_Item, list[int]] = {}
        self.deadline = math.inf


class OutputFold:
    """What was printed and not told yet, by command."""

    def __init__(self) -> None:
        self._commands: dict[int, _Collected] = {}

    def add(self, command: int, ranks: Sequence[int], kind: int, number: int, data: bytes, now: float) -> None:
        """Ranks have printed a line, or displayed something."""
        collected = self._commands.get(command)
        if collected is None:
            collected = self._commands[command] = _Collected()
        if not collected.items:
            collected.deadline = now + limits.OUTPUT_WINDOW
        collected.items.setdefault(_Item(kind, number, data), []).extend(ranks)

    def add_blocks(self, command: int, blocks: Iterable[m.OutputBlock], now: float) -> None:
        """What an agent below has folded."""
        for block in blocks:
            if block.kind == m.DISPLAY:
                self.add(command, block.engines, block.kind, block.first, block.data, now)
                continue
            for number, line in enumerate(cut(block.data), block.first):
                self.add(command, block.engines, block.kind, number, line, now)

    def take(self, command: int) -> list[m.OutputBlock]:
        """All that there is of a command."""
        collected = self._commands.pop(command, None)
        return [] if collected is None else _blocks(_in_order(collected.items))

    def due(self, now: float) -> list[int]:
        """The commands of which something has to be told now."""
        return [command for command, collected in self._commands.items() if collected.deadline <= now]

    @property
    def next_deadline(self) -> float:
        """When :meth:`due` will have something; infinite if it has nothing."""
        return min((collected.deadline for collected in self._commands.values()), default=math.inf)


def _in_order(items: dict[_Item, list[int]]) -> list[tuple[_Item, list[int]]]:
    """The items in the order in which each rank printed them: some ranks are further than others."""
    streams = list(dict.fromkeys(item.kind == m.STDERR for item in items))
    return sorted(items.items(), key=lambda each: (streams.index(each[0].kind == m.STDERR), each[0].number))


def _blocks(items: list[tuple[_Item, list[int]]]) -> list[m.OutputBlock]:
    """One block for lines that follow each other and are of the same ranks."""
    blocks: list[m.OutputBlock] = []
    parts: list[bytes] = []
    size, kind, first, following, engines = 0, -1, 0, -1, [-1]

    def close() -> None:
        if parts:
            blocks.append(m.OutputBlock(kind, first, engines, b"".join(parts)))
            parts.clear()

    for item, ranks in items:
        ranks.sort()
        ends_line = bool(parts) and parts[-1].endswith(b"\n")
        if not (
            item.kind == kind != m.DISPLAY
            and item.number == following
            and ends_line
            and size + len(item.data) <= limits.INLINE_BODY
            and ranks == engines
        ):
            close()
            size, kind, first, engines = 0, item.kind, item.number, ranks
        parts.append(item.data)
        size += len(item.data)
        following = item.number + 1
    close()
    return blocks


def messages_of(command: int, blocks: list[m.OutputBlock]) -> list[m.Output]:
    """As few messages as the limits allow."""
    made: list[m.Output] = []
    size = 0
    for block in blocks:
        cost = len(block.data) + 5 * len(block.engines) + 16
        if not made or size + cost > limits.MESSAGE // 2:
            made.append(m.Output(command, []))
            size = 0
        made[-1].blocks.append(block)
        size += cost
    return made
