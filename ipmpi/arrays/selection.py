"""What an index such as ``T[10:20, ::4]`` selects, and which part of it a block has."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, NamedTuple

from .layout import Block, Position


@dataclass(frozen=True)
class Along:
    """Elements ``start, start + step, ...`` along one dimension; ``count`` of them."""

    start: int
    step: int
    count: int


class Selection(NamedTuple):
    """The elements that an index selects.

    Attributes:
        along: for each dimension of the array.
        kept: the dimensions that the result has; an integer removes one.
    """

    along: tuple[Along, ...]
    kept: tuple[int, ...]

    @property
    def counts(self) -> Position:
        """The shape of the result, with dimensions of length 1 for those that are removed."""
        return tuple(each.count for each in self.along)

    @property
    def shape(self) -> Position:
        """The shape of the result."""
        return tuple(self.along[dimension].count for dimension in self.kept)


def select(index: Any, shape: Position) -> Selection:
    """Return what an index selects of an array of this shape: integers, slices and ``...``, as in NumPy.

    Raises:
        IndexError: there are more indices than dimensions, or an integer lies outside.
        TypeError: it has something else, such as a list or a mask.
    """
    given = list(index) if isinstance(index, tuple) else [index]
    dots = [place for place, each in enumerate(given) if each is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    indices = len(given) - len(dots)
    if indices > len(shape):
        raise IndexError(f"too many indices: the array has {len(shape)} dimensions, and {indices} were given")
    fill = [slice(None)] * (len(shape) - indices)
    place = dots[0] if dots else len(given)
    full = [*given[:place], *fill, *given[place + len(dots) :]]
    along, kept = [], []
    for dimension, (each, size) in enumerate(zip(full, shape, strict=True)):
        if isinstance(each, slice):
            start, stop, step = each.indices(size)
            along.append(Along(start, step, len(range(start, stop, step))))
            kept.append(dimension)
        else:
            along.append(Along(_inside(each, size, dimension), 1, 1))
    return Selection(tuple(along), tuple(kept))


def _inside(index: Any, size: int, dimension: int) -> int:
    try:
        number = -1 if isinstance(index, bool) else operator.index(index)
    except TypeError:
        number = None
    if number is None or isinstance(index, bool):
        raise TypeError(
            f"a distributed array takes integers, slices and ... as indices, not {type(index).__name__}: for "
            "others, index what gather() returns"
        )
    if not -size <= number < size:
        raise IndexError(f"index {number} is out of bounds for dimension {dimension} with size {size}")
    return number % size


class Part(NamedTuple):
    """The part of a selection that one block has.

    Attributes:
        source: slices of the block.
        target: slices of the result, with all dimensions.
    """

    source: tuple[slice, ...]
    target: tuple[slice, ...]


def part_in(selection: Selection, block: Block) -> Part | None:
    """Return the part of a selection that lies in a block; None if there is none."""
    source, target = [], []
    for each, offset, size in zip(selection.along, block.offset, block.shape, strict=True):
        first, end = _overlap(each, offset, offset + size)
        if first >= end:
            return None
        begin = each.start + first * each.step - offset
        last = begin + (end - first - 1) * each.step
        stop = last + (1 if each.step > 0 else -1)
        source.append(slice(begin, None if stop < 0 else stop, each.step))
        target.append(slice(first, end))
    return Part(tuple(source), tuple(target))


def _overlap(along: Along, low: int, high: int) -> tuple[int, int]:
    """Return the numbers of the elements that lie in ``low .. high - 1``, as a half-open range."""
    if along.step > 0:
        first, end = -((along.start - low) // along.step), -((along.start - high) // along.step)
    else:
        back = -along.step
        first, end = -((high - 1 - along.start) // back), (along.start - low) // back + 1
    return max(first, 0), min(end, along.count)
