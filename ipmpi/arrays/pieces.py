"""Cutting a block into pieces that are sent one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator

from .layout import Position


def pieces(shape: Position, most: int) -> Iterator[tuple[slice, ...]]:
    """Yield slices of a block, of at most ``most`` elements each, which together are the whole block.

    A block has a dimension or more. Pieces are cut along the first ones, to be as long as possible in memory.

    >>> list(pieces((2, 3), 4))
    [(slice(0, 1, None), slice(0, 3, None)), (slice(1, 2, None), slice(0, 3, None))]
    """
    if 0 in shape:
        return
    rest = math.prod(shape[1:])
    if rest > most:
        for first in range(shape[0]):
            yield from ((slice(first, first + 1), *others) for others in pieces(shape[1:], most))
        return
    step = max(1, most // rest)
    for first in range(0, shape[0], step):
        yield (slice(first, min(first + step, shape[0])), *map(slice, [0] * (len(shape) - 1), shape[1:]))
