"""Many engine ids or ranks in few words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from .ids import Ids, consecutive

LABEL: Final = 36
"""Characters of a label. A longer list of ranges is cut in the middle, and counted."""


def ranges(numbers: Iterable[int]) -> str:
    """``0-3, 7`` for 7, 0, 1, 2, 3; empty for none."""
    runs = consecutive(Ids.of(numbers).ascending().runs)
    return ", ".join(f"{run.start}" if len(run) == 1 else f"{run.start}-{run[-1]}" for run in runs)


def numbers_in(text: str) -> Iterator[int]:
    """Yield the numbers of what :func:`ranges` has written."""
    for run in text.split(", "):
        first, _, last = run.partition("-")
        yield from range(int(first), int(last or first) + 1)


def engines_named(ids: Sequence[int]) -> str:
    """``engine 3`` or ``engines 0-2, 5``."""
    return f"engine{'s' * (len(ids) != 1)} {ranges(ids)}"


def ranks_named(ranks: Sequence[int]) -> str:
    """``rank 3`` or ``ranks 0-2, 5``."""
    return f"rank{'s' * (len(ranks) != 1)} {ranges(ranks)}"


def shortened(ids: Iterable[int]) -> str:
    """``0-62, 64``; a long list of ranges is cut: ``0, 2, 4, ... 126 (64 in all)``."""
    distinct = set(ids)
    text = ranges(distinct)
    if len(text) > LABEL:
        first = text[:LABEL].split(", ")[:3]
        text = f"{', '.join(first)}, ... {text.rpartition(', ')[2]} ({len(distinct)} in all)"
    return text


def label(ids: Iterable[int]) -> str:
    """``[0-62, 64]``; a long list of ranges is cut: ``[0, 2, 4, ... 126 (64 in all)]``."""
    return f"[{shortened(ids)}]"
