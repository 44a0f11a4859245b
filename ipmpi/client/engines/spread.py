"""How users say that an array is spread over engines."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from ...arrays.layout import Position
from ...arrays.local import Halo
from ...reference import Reference
from ..session import given

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

    def axis_of(self, ndim: int) -> int:
        """Return the dimension along which blocks follow each other; raise ValueError if the array has no such."""
        if not -ndim <= self.axis < ndim:
            raise ValueError(f"axis={self.axis} is none of the {ndim} dimensions of the array")
        return self.axis % ndim

    def grid_of(self, ndim: int, count: int) -> Position:
        """Return how many blocks there are along each dimension, of ``count`` in all."""
        if self.way == "grid":
            return self.grid
        return (*[1] * self.axis_of(ndim), count)


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
        halo_of(halo),
    )


def _lengths(values: Any, what: str, least: int) -> Position:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{what} must be a sequence of ints: {given.shown(values)}")
    found = tuple(itertools.islice(iter(values), _MOST_DIMENSIONS + 1))
    if not 1 <= len(found) <= _MOST_DIMENSIONS:
        raise ValueError(f"{what} must be a sequence of 1 to {_MOST_DIMENSIONS} ints: {given.shown(values)}")
    return tuple(given.whole_number(each, f"each number of {what}", least, sys.maxsize) for each in found)


def halo_of(halo: Any) -> int | tuple[tuple[int, int], ...]:
    """Return ghost cells as :class:`Spread` has them; TypeError or ValueError if users may not give them so."""
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


def ghost_cells(halo: int | tuple[tuple[int, int], ...], ndim: int) -> Halo:
    """Return the ghost cells before and behind, for each dimension."""
    each = ((halo, halo),) * ndim if isinstance(halo, int) else halo
    if len(each) != ndim:
        raise ValueError(f"halo= is for {len(each)} dimensions, and the array has {ndim}")
    return each
