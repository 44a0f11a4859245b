"""Lines that ranks have begun and not ended: progress bars, dots, questions (no I/O)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ...numerals import masked, with_ranges
from .blocks import Block
from .escapes import settled
from .portions import streams

_LONGEST: Final = 10_000
"""Characters of an open line; a longer one counts as ended there: one without an end must not fill the memory."""

_PERCENT: Final = re.compile(r"(\d+(?:\.\d+)?) ?%")
_BAR: Final = re.compile(r"[\s\0#=>\-.█▉▊▋▌▍▎▏━╸╺|/\\]+")
_Place = tuple[int, int]


class OpenLines:
    """The open lines of all ranks, by kind and engine."""

    def __init__(self) -> None:
        self._texts: dict[_Place, str] = {}

    def completed(self, blocks: Sequence[Block]) -> list[Block]:
        """The lines that have been ended by these blocks, whole; what is open afterwards is kept."""
        if not self._texts and all(block.text.endswith("\n") for block in blocks):
            return list(blocks)
        made: list[Block] = []
        for engines, part in streams(blocks):
            made += self._of(engines, part)
        return made

    def _of(self, engines: list[int], blocks: Sequence[Block]) -> list[Block]:
        """Blocks of ranks that have got the same, though what they had begun may differ."""
        by_rest: dict[tuple[str, ...], list[int]] = {}
        kinds = sorted({block.kind for block in blocks})
        for engine in engines:
            begun = tuple(self._texts.pop((kind, engine), "") for kind in kinds)
            by_rest.setdefault(begun, []).append(engine)
        made = []
        for rests, some in by_rest.items():
            rest = dict(zip(kinds, rests, strict=True))
            for block in blocks:
                whole, end, last = (rest[block.kind] + block.text).rpartition("\n")
                rest[block.kind] = last
                if end:
                    made.append(Block(block.kind, tuple(some), whole + end))
            for kind, text in rest.items():
                text = _bounded(text)
                if len(text) > _LONGEST:
                    made.append(Block(kind, tuple(some), text + "\n"))
                elif text:
                    self._texts.update(((kind, engine), text) for engine in some)
        return made

    def current(self) -> list[tuple[int, list[int], str]]:
        """Kind, ranks and what each open line shows now."""
        found: dict[tuple[int, str], list[int]] = {}
        for (kind, engine), text in self._texts.items():
            found.setdefault((kind, text), []).append(engine)
        return [
            (kind, engines, shown) for (kind, text), engines in found.items() if (shown := settled(text)).strip()
        ]

    def take_all(self) -> list[tuple[int, tuple[int, ...], str]]:
        """The same, and forget them."""
        found = [(kind, tuple(engines), text) for kind, engines, text in self.current()]
        self._texts.clear()
        return found


def _bounded(text: str) -> str:
    """The text without states of a bar that were overwritten long ago."""
    return settled(text) + "\r" * text.endswith("\r") if text.count("\r") > 1 else text


def folded_bars(lines: Sequence[tuple[int, list[int], str]], fold: str) -> list[tuple[list[int], str]]:
    """Open lines, those that differ by numbers and the length of a bar as one: that of the slowest rank.

    Returns:
        Ranks and text, in the order of the first rank.
    """
    alike: dict[object, list[tuple[list[int], str]]] = {}
    for kind, engines, text in lines:
        parts = [([engine], text) for engine in engines] if fold == "off" else [(engines, text)]
        for ids, line in parts:
            is_bar = "%" in line and fold != "off"
            key = (
                (kind, _BAR.sub(" ", masked(line)))
                if is_bar
                else (kind, (fold == "numeric" and masked(line)) or line)
            )
            alike.setdefault((key, ids[0]) if fold == "off" else key, []).append((ids, line))
    made = [([engine for ids, _ in same for engine in ids], _one(same)) for same in alike.values()]
    return sorted(((sorted(ids), text) for ids, text in made), key=lambda pair: pair[0])


def _one(same: Sequence[tuple[list[int], str]]) -> str:
    if len(same) == 1:
        return same[0][1]
    done = [(float(found[1]), ids, text) for ids, text in same if (found := _PERCENT.search(text))]
    if len(done) != len(same):
        return with_ranges([(engine, text) for ids, text in same for engine in ids])
    least, most = min(done, key=lambda each: each[0]), max(done, key=lambda each: each[0])
    if least[0] == most[0]:
        return least[2]
    return f"{least[2].rstrip()} (slowest: rank {min(least[1])}; rank {min(most[1])}: {most[0]:g}%)"
