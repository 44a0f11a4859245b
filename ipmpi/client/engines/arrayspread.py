"""Finding out how an array is spread over engines."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from ...arrays import local
from ...arrays.layout import Block, Layout, Position, at_offsets, in_a_grid
from ...reference import Reference
from ..session import given
from .distributed import DistributedArray, Run

_MOST_DIMENSIONS: Final = 64
"""What NumPy 2 allows."""


class Spread(NamedTuple):
    """How an array is spread; see :meth:`EngineView.array`.

    Attributes:
        way: the name of the argument that says it: axis, grid, comm or offset; None if none does.
        halo: a number, or what there is for each dimension.
    """

    way: str | None
    axis: int
    grid: Position
    comm: Reference | None
    offset: Reference | None
    shape: Position | None
    halo: int | tuple[tuple[int, int], ...]


def spread_of(axis: Any, grid: Any, comm: Any, offset: Any, shape: Any, halo: Any) -> Spread:
    """Check the arguments of :meth:`EngineView.array`.

    Raises:
        TypeError, ValueError: one is not possible, or they contradict each other.
    """
    ways = {"axis": axis, "grid": grid, "comm": comm, "offset": offset}
    said = [name for name, value in ways.items() if value is not None]
    if len(said) > 1:
        raise ValueError(f"{said[0]}= and {said[1]}= both say how the array is spread: give one")
    if shape is not None and offset is None:
        raise ValueError("shape= is for blocks with offset=: else it follows from the blocks")
    return Spread(
        said[0] if said else None,
        0 if axis is None else given.whole_number(axis, "axis", -_MOST_DIMENSIONS, _MOST_DIMENSIONS - 1),
        () if grid is None else _lengths(grid, "grid", 1),
        None if comm is None else Reference(given.source(comm, "comm")),
        None if offset is None else Reference(given.source(offset, "offset")),
        None if shape is None else _lengths(shape, "shape", 0),
        _halo_of(halo),
    )


def _lengths(values: Any, what: str, least: int) -> Position:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{what} must be a sequence of ints: {given.shown(values)}")
    found = tuple(itertools.islice(iter(values), _MOST_DIMENSIONS + 1))
    if not 1 <= len(found) <= _MOST_DIMENSIONS:
        raise ValueError(f"{what} must be a sequence of 1 to {_MOST_DIMENSIONS} ints: {given.shown(values)}")
    return tuple(given.whole_number(each, f"each number of {what}", least, sys.maxsize) for each in found)


def _halo_of(halo: Any) -> int | tuple[tuple[int, int], ...]:
    expected = "halo must be a number of ghost cells; or a number or a pair (before, behind) for each dimension"
    try:
        if not isinstance(halo, Iterable):
            return given.whole_number(halo, "halo", 0, sys.maxsize)
        each = list(itertools.islice(iter(halo), _MOST_DIMENSIONS + 1))
        pairs = [tuple(one) if isinstance(one, Iterable) else (one, one) for one in each]
        if (
            isinstance(halo, str | bytes)
            or not 1 <= len(pairs) <= _MOST_DIMENSIONS
            or {len(p) for p in pairs} != {2}
        ):
            raise ValueError(given.shown(halo))
        return tuple(
            (given.whole_number(one, "halo", 0, sys.maxsize), given.whole_number(two, "halo", 0, sys.maxsize))
            for one, two in pairs
        )
    except (TypeError, ValueError) as error:
        raise type(error)(f"{expected}: {given.shown(halo)}") from None


def distributed_array(run: Run, name: str, engines: list[int], spread: Spread) -> DistributedArray:
    """Ask the engines what they have, and return a handle of it; see :meth:`EngineView.array`."""
    if not engines:
        raise ValueError("there are no engines among these targets")
    found: list[local.Found] = run([(engines, local.described, (Reference(name), spread.comm, spread.offset))])
    dtype = _checked(name, engines, found)
    halo = _halo(spread.halo, len(found[0].shape))
    inner = [_without(halo, each.shape, name, engine) for engine, each in zip(engines, found, strict=True)]
    layout = _layout(engines, inner, found, spread)
    return DistributedArray(
        run, name, layout, local.Expected(frozenset(each.shape for each in found), dtype, halo)
    )


def _checked(name: str, engines: Sequence[int], found: Sequence[local.Found]) -> str:
    """Return the dtype that the array has on all engines."""
    for engine, each in zip(engines, found, strict=True):
        if each.dtype is None:
            raise TypeError(f"{name} is {each.kind} on engine {engine}, and not a NumPy array of numbers")
        if (each.dtype, len(each.shape)) != (found[0].dtype, len(found[0].shape)):
            raise ValueError(
                f"{name} has dtype {found[0].dtype} and shape {found[0].shape} on engine {engines[0]}, and dtype "
                f"{each.dtype} and shape {each.shape} on engine {engine}: they are not parts of one array"
            )
    if not found[0].shape:
        raise ValueError(
            f"{name} has no dimensions: it is one number on each engine. Get them with mec.pull({name!r})"
        )
    return str(found[0].dtype)


def _layout(
    engines: Sequence[int], shapes: Sequence[Position], found: Sequence[local.Found], spread: Spread
) -> Layout:
    ndim = len(shapes[0])
    if spread.way == "offset":
        for engine, each in zip(engines, found, strict=True):
            if each.offset is None or len(each.offset) != ndim:
                raise ValueError(
                    f"offset= is {each.offset} on engine {engine}, and the array has {ndim} dimensions"
                )
        blocks = [Block(e, each.offset or (), s) for e, each, s in zip(engines, found, shapes, strict=True)]
        if spread.shape is not None and len(spread.shape) != ndim:
            raise ValueError(
                f"shape={spread.shape} has {len(spread.shape)} dimensions, and the blocks have {ndim}"
            )
        return at_offsets(blocks, spread.shape)
    if spread.way == "comm":
        places = [each.place or () for each in found]
        grid = found[0].grid or ()
    elif spread.way == "grid":
        grid = spread.grid
        places = [_place(number, grid) for number in range(len(engines))]
    else:
        if not -ndim <= spread.axis < ndim:
            raise ValueError(f"axis={spread.axis} is none of the {ndim} dimensions of the array")
        before = spread.axis % ndim
        grid = (*[1] * before, len(engines))
        places = [(*[0] * before, number) for number in range(len(engines))]
    return in_a_grid(list(zip(engines, places, shapes, strict=True)), grid)


def _place(number: int, grid: Position) -> Position:
    """Return the place of a block in a grid, in row-major order, as of ranks in MPI (MPI-4.1, section 8.5)."""
    place = []
    for length in reversed(grid):
        place.append(number % length)
        number //= length
    return tuple(reversed(place))


def _halo(halo: int | tuple[tuple[int, int], ...], ndim: int) -> local.Halo:
    """Return the ghost cells before and behind, for each dimension."""
    each = ((halo, halo),) * ndim if isinstance(halo, int) else halo
    if len(each) != ndim:
        raise ValueError(f"halo= is for {len(each)} dimensions, and the array has {ndim}")
    return each


def _without(halo: local.Halo, shape: Position, name: str, engine: int) -> Position:
    inner = tuple(size - sum(cells) for size, cells in zip(shape, halo, strict=True))
    if min(inner) < 0:
        raise ValueError(
            f"{name} has shape {shape} on engine {engine}: that is less than its ghost cells, halo={halo}"
        )
    return inner
