"""Which engine has which block of a distributed array."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..ranges import engines_named

Position = tuple[int, ...]
"""Indices into an array, one for each dimension."""


class Block(NamedTuple):
    """The part of an array that one engine has, without ghost cells.

    Attributes:
        engine: its id.
        offset: the position of the block's first element in the whole array.
        shape: of the block.
    """

    engine: int
    offset: Position
    shape: Position


class Layout(NamedTuple):
    """The blocks of an array; they cover it and do not overlap.

    Attributes:
        shape: of the whole array.
        blocks: in the order of the targets.
    """

    shape: Position
    blocks: tuple[Block, ...]


def in_a_grid(places: Sequence[tuple[int, Position, Position]], grid: Position) -> Layout:
    """Return the layout of blocks that form a Cartesian grid.

    Args:
        places: for each block its engine, its place in the grid, and its shape.
        grid: how many blocks there are along each dimension; dimensions of the array that follow are not divided.

    Raises:
        ValueError: places are missing or taken twice, or shapes do not fit together.
    """
    extents = _extents(places, grid)
    starts = [[0, *itertools.accumulate(along)] for along in extents]
    blocks = [
        Block(engine, tuple(starts[d][place] for d, place in enumerate(_padded(at, len(shape)))), shape)
        for engine, at, shape in places
    ]
    return Layout(tuple(along[-1] for along in starts), tuple(blocks))


def _check_grid(grid: Position, ndim: int, engines: int) -> None:
    if len(grid) > ndim:
        raise ValueError(f"a grid of {len(grid)} dimensions {grid} cannot divide an array of {ndim} dimensions")
    if math.prod(grid) != engines:
        raise ValueError(f"a grid of {grid} has {math.prod(grid)} places, and there are {engines} engines")


def _padded(at: Position, ndim: int) -> Position:
    return (*at, *[0] * (ndim - len(at)))


def _extents(places: Sequence[tuple[int, Position, Position]], grid: Position) -> list[list[int]]:
    """Return the lengths of blocks by dimension and place; raises ValueError where two blocks differ."""
    ndim = len(places[0][2])
    _check_grid(grid, ndim, len(places))
    taken: dict[Position, int] = {}
    found: list[dict[int, tuple[int, int]]] = [{} for _ in range(ndim)]
    for engine, at, shape in places:
        if at in taken:
            raise ValueError(f"engines {taken[at]} and {engine} both have the block at {at} of the grid {grid}")
        taken[at] = engine
        for dimension, place in enumerate(_padded(at, ndim)):
            length, first = found[dimension].setdefault(place, (shape[dimension], engine))
            if length != shape[dimension]:
                raise ValueError(
                    f"the blocks of engines {first} and {engine} are side by side and do not fit: along dimension "
                    f"{dimension} they have {length} and {shape[dimension]} elements. Say how the array is "
                    "spread, with axis=, grid=, comm= or offset="
                )
    return [[along[place][0] for place in range(len(along))] for along in found]


def at_offsets(blocks: Iterable[Block], shape: Position | None) -> Layout:
    """Return the layout of blocks that are anywhere.

    Args:
        blocks: with their offsets.
        shape: of the whole array; None for the smallest that contains all blocks.

    Raises:
        ValueError: blocks overlap, lie outside, or leave holes.
    """
    made = tuple(blocks)
    ends = [tuple(map(sum, zip(block.offset, block.shape, strict=True))) for block in made]
    whole = tuple(map(max, zip(*ends, strict=True))) if shape is None else shape
    for block, end in zip(made, ends, strict=True):
        if any(first < 0 or last > size for first, last, size in zip(block.offset, end, whole, strict=True)):
            raise ValueError(
                f"the block of engine {block.engine} is at {block.offset} and has the shape {block.shape}: it "
                f"does not lie within the whole array of shape {whole}"
            )
    _refuse_overlaps([(block, end) for block, end in zip(made, ends, strict=True) if 0 not in block.shape])
    have, need = sum(math.prod(block.shape) for block in made), math.prod(whole)
    if have != need:
        raise ValueError(
            f"the blocks of {engines_named([block.engine for block in made])} have {have} elements together, and "
            f"an array of shape {whole} has {need}: some are missing"
        )
    return Layout(whole, made)


def _refuse_overlaps(blocks: list[tuple[Block, Position]]) -> None:
    """Raise ValueError if two blocks overlap; only those that meet along the first dimension are compared."""
    blocks.sort(key=lambda each: each[0].offset)
    active: list[tuple[Block, Position]] = []
    for block, end in blocks:
        active = [each for each in active if each[1][0] > block.offset[0]]
        for other, others_end in active:
            if all(map(int.__lt__, block.offset, others_end)) and all(map(int.__lt__, other.offset, end)):
                raise ValueError(
                    f"the blocks of engines {other.engine} and {block.engine} overlap: {other.shape} elements at "
                    f"{other.offset}, and {block.shape} at {block.offset}. If they have ghost cells, say how many "
                    "with halo="
                )
        active.append((block, end))


def place_in(grid: Position, number: int) -> Position:
    """Return the place of a block in a grid, in row-major order, as of ranks in MPI (MPI-4.1, section 8.5)."""
    place = []
    for length in reversed(grid):
        place.append(number % length)
        number //= length
    return tuple(reversed(place))


def divided(shape: Position, grid: Position, engines: Sequence[int]) -> Layout:
    """Return the layout of blocks of nearly equal sizes in a grid, the first ones being the larger.

    Args:
        shape: of the whole array.
        grid: how many blocks there are along each dimension; dimensions that follow are not divided.
        engines: the ids, in row-major order of the grid.

    Raises:
        ValueError: the grid does not fit the array or the engines.
    """
    _check_grid(grid, len(shape), len(engines))
    blocks = []
    for number, engine in enumerate(engines):
        at = _padded(place_in(grid, number), len(shape))
        parts = zip(shape, _padded_grid(grid, len(shape)), at, strict=True)
        ends = [(_begin(size, n, place), _begin(size, n, place + 1)) for size, n, place in parts]
        blocks.append(Block(engine, tuple(low for low, _ in ends), tuple(high - low for low, high in ends)))
    return Layout(shape, tuple(blocks))


def _padded_grid(grid: Position, ndim: int) -> Position:
    return (*grid, *[1] * (ndim - len(grid)))


def _begin(size: int, parts: int, part: int) -> int:
    """Return where a part begins, of parts of which the first ``size % parts`` have one element more."""
    least, longer = divmod(size, parts)
    return part * least + min(part, longer)
