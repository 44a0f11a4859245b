"""Lines of many ranks in one order: each rank's own order is kept, and equal lines come together (no I/O)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ...numerals import masked
from .blocks import Block
from .escapes import settled
from .portions import streams

Key = tuple[int, str]


class Line(NamedTuple):
    """One line on the screen.

    Attributes:
        kind: :data:`~ipmpi.client.display.blocks.STDOUT` or ``STDERR``.
        engines: all that have printed it.
        texts: the different texts with the engines of each; more than one only where numbers differ.
    """

    kind: int
    engines: list[int]
    texts: list[tuple[list[int], str]]


class _Queue:
    """The lines of some engines that are still to come; the first is at the left."""

    def __init__(self, engines: list[int], lines: Iterable[tuple[int, str]], fold: str) -> None:
        self.engines = engines
        self.lines = deque(
            (kind, text, (kind, masked(text) if fold == "numeric" else text)) for kind, text in lines
        )
        self.left = Counter(key for _, _, key in self.lines)


def merged(queues: Iterable[tuple[list[int], Sequence[tuple[int, str]]]], fold: str) -> list[Line]:
    """The lines of several sets of engines, folded.

    A line comes when all ranks that print it have got to it. Where that is impossible (some print the same two
    lines in different orders) that of most ranks comes first.

    Args:
        queues: disjoint sets of engines, and for each the ``(kind, text)`` of its lines in their order.
        fold: as in :class:`~ipmpi.client.display.render.Renderer`.
    """
    if fold == "off":
        single = sorted(
            ((engine, lines) for engines, lines in queues for engine in engines), key=lambda each: each[0]
        )
        return [Line(kind, [engine], [([engine], text)]) for engine, lines in single for kind, text in lines]
    return _Merge([_Queue(engines, lines, fold) for engines, lines in queues]).lines()


class _Merge:
    """Repeatedly takes a line that is the next one of all queues that still have it."""

    def __init__(self, queues: list[_Queue]) -> None:
        self._queues = sorted(queues, key=lambda queue: min(queue.engines, default=0))
        self._having = Counter(key for queue in self._queues for key in queue.left)
        self._first: dict[Key, list[_Queue]] = {}
        # The last one is taken next, so that what one set of ranks prints stays together where it can.
        self._ready: list[Key] = []

    def lines(self) -> list[Line]:
        """All of them."""
        for queue in self._queues:
            self._advance(queue)
        self._find_ready(list(self._first))
        made = []
        while self._first:
            key = self._ready.pop() if self._ready else max(self._first, key=self._ranks)
            made.append(self._take(key))
        return made

    def _advance(self, queue: _Queue) -> Key | None:
        if not queue.lines:
            return None
        key = queue.lines[0][2]
        self._first.setdefault(key, []).append(queue)
        return key

    def _take(self, key: Key) -> Line:
        queues = self._first.pop(key)
        texts: dict[str, list[int]] = {}
        for queue in queues:
            _, text, _ = queue.lines.popleft()
            texts.setdefault(text, []).extend(queue.engines)
            queue.left[key] -= 1
            if not queue.left[key]:
                self._having[key] -= 1
        came = [self._advance(queue) for queue in queues]
        self._find_ready([each for each in (*came, key) if each is not None])
        engines = [engine for queue in queues for engine in queue.engines]
        return Line(key[0], engines, [(ids, text) for text, ids in texts.items()])

    def _find_ready(self, keys: Iterable[Key]) -> None:
        for key in reversed(dict.fromkeys(keys)):
            if key in self._first and len(self._first[key]) == self._having[key]:
                self._ready.append(key)

    def _ranks(self, key: Key) -> int:
        return sum(len(queue.engines) for queue in self._first[key])


def lines_of(blocks: Sequence[Block]) -> list[tuple[list[int], list[tuple[int, str]]]]:
    """What :func:`merged` takes, for all that some engines have printed: unfinished lines count as finished."""
    return [(engines, _lines(part)) for engines, part in streams(blocks)]


def _lines(blocks: Sequence[Block]) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    unfinished: dict[int, str] = {}
    for block in blocks:
        *whole, rest = (unfinished.pop(block.kind, "") + block.text).split("\n")
        found += [(block.kind, settled(line)) for line in whole]
        if rest:
            unfinished[block.kind] = rest
    return found + [(kind, settled(rest)) for kind, rest in unfinished.items()]
