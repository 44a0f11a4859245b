"""Finding out how an array is spread over engines."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...arrays import local
from ...arrays.layout import Block, Layout, Position, at_offsets, in_a_grid, place_in
from ...reference import Reference
from .distributed import DistributedArray, Reach
from .spread import Spread, ghost_cells, halo_of


def distributed_array(reach: Reach, name: str, engines: list[int], spread: Spread) -> DistributedArray:
    """Ask the engines what they have, and return a handle of it; see :meth:`EngineView.array`."""
    if not engines:
        raise ValueError("there are no engines among these targets")
    args = (Reference(name), spread.comm, spread.offset, name)
    found: list[local.Found] = reach.run([(engines, local.described, args)])
    dtype = _checked(name, engines, found)
    spread = _as_published(name, engines, found, spread)
    halo = ghost_cells(spread.halo, len(found[0].shape))
    inner = [_without(halo, each.shape, name, engine) for engine, each in zip(engines, found, strict=True)]
    layout = _layout(engines, inner, found, spread)
    return DistributedArray(
        reach, name, layout, local.Expected(frozenset(each.shape for each in found), dtype, halo)
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


def _as_published(name: str, engines: Sequence[int], found: Sequence[local.Found], spread: Spread) -> Spread:
    """Return how the array is spread by what the program says, where the client has not said it."""
    if spread.way is not None:
        return spread
    first = found[0]
    for engine, each in zip(engines, found, strict=True):
        if (each.is_published, each.whole, each.halo) != (first.is_published, first.whole, first.halo):
            raise ValueError(
                f"the program has published {name} with {_said(first)} on engine {engines[0]}, and with "
                f"{_said(each)} on engine {engine}: shape= and halo= must be the same on all ranks, and either "
                "all or none has an offset="
            )
    halo = halo_of(first.halo) if spread.halo == 0 else spread.halo
    if first.is_published:
        return spread._replace(way="offset", shape=first.whole, halo=halo)
    if all(each.place is not None for each in found) and math.prod(first.grid or ()) == len(found):
        return spread._replace(way="comm", halo=halo)
    return spread._replace(halo=halo)


def _said(found: local.Found) -> str:
    return f"offset={found.offset}, shape={found.whole}, halo={found.halo}"


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
        places = [place_in(grid, number) for number in range(len(engines))]
    else:
        before = spread.axis_of(ndim)
        grid = (*[1] * before, len(engines))
        places = [(*[0] * before, number) for number in range(len(engines))]
    return in_a_grid(list(zip(engines, places, shapes, strict=True)), grid)


def _without(halo: local.Halo, shape: Position, name: str, engine: int) -> Position:
    inner = tuple(size - sum(cells) for size, cells in zip(shape, halo, strict=True))
    if min(inner) < 0:
        raise ValueError(
            f"{name} has shape {shape} on engine {engine}: that is less than its ghost cells, halo={halo}"
        )
    return inner
