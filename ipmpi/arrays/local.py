"""What engines compute of their block of a distributed array: clients send these functions by name."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..communicator import shared
from . import published
from .layout import Position
from .summary import Extreme, Summary

Halo = tuple[tuple[int, int], ...]
"""For each dimension, how many ghost cells there are before and behind the block's own elements."""


class Found(NamedTuple):
    """What an engine has under the name of a distributed array.

    Attributes:
        shape: with ghost cells.
        dtype: as NumPy writes it, such as ``<f8``; None if it is no array of numbers.
        kind: what it is otherwise, for a message.
        place: the engine's coordinates in its Cartesian communicator; None without one.
        grid: the dimensions of that communicator.
        offset: of the block in the whole array; None if neither the client nor the program has said it.
        whole: the shape of the whole array, if the program has said it.
        halo: the ghost cells that the program has said that there are.
        is_published: whether ``offset`` is what the program has said.
    """

    shape: Position
    dtype: str | None
    kind: str
    place: Position | None
    grid: Position | None
    offset: Position | None
    whole: Position | None = None
    halo: Any = 0
    is_published: bool = False


def described(array: Any, comm: Any, offset: Any, name: str = "") -> Found:
    """Describe what there is.

    Args:
        array: the engine's object.
        comm: its Cartesian communicator, or None.
        offset: where its block begins in the whole array, or None.
        name: of the array, if a program has said how it is spread.

    Raises:
        TypeError: ``comm`` has no Cartesian topology, or ``offset`` is no sequence of integers.
    """
    import numpy

    place = grid = start = whole = told = None
    joined, program = shared(), published.program()
    if program is not None and comm is None and offset is None:
        told = program.published.get(name)
        if joined is not None and hasattr(joined.whole, "Get_coords"):  # the program has been attached with it
            comm = joined.whole
    if told is not None and told.shape is not None:
        whole = _integers(told.shape, f"publish(shape=...) of {name}")
    if told is not None and told.offset is not None:
        start = _integers(told.offset, f"publish(offset=...) of {name}")
        comm = None
    if comm is not None:
        if not hasattr(comm, "Get_coords"):
            raise TypeError(
                f"comm= is the name of a communicator made by Create_cart, and on this engine it is a "
                f"{type(comm).__name__}"
            )
        place, grid = tuple(comm.Get_coords(comm.Get_rank())), tuple(comm.Get_topo()[0])
    if offset is not None:
        start = _integers(offset, "offset= is the name of the position of a block,")
    numbers = isinstance(array, numpy.ndarray) and array.dtype.kind in "biufc"
    shape = tuple(map(int, array.shape)) if numbers else ()
    dtype, halo = array.dtype.str if numbers else None, 0 if told is None else told.halo
    return Found(
        shape, dtype, _kind(array), place, grid, start, whole, halo, told is not None and told.offset is not None
    )


def _integers(values: Any, what: str) -> Position:
    import numpy

    try:
        return tuple(operator.index(each) for each in numpy.atleast_1d(values))
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be a sequence of integers; on this engine it is {values!r}") from None


def _kind(array: Any) -> str:
    import numpy

    return f"an array of {array.dtype}" if isinstance(array, numpy.ndarray) else f"a {type(array).__name__}"


class Expected(NamedTuple):
    """What the client knows of the block of each engine: the engine looks whether that is still so.

    Attributes:
        shapes: with ghost cells, of the blocks; any of them may be this engine's.
        dtype: as in :class:`Found`.
        halo: the ghost cells.
    """

    shapes: frozenset[Position]
    dtype: str
    halo: Halo


def own(array: Any, expected: Expected) -> Any:
    """Return the elements of an engine's block, without ghost cells, as a view.

    Raises:
        ValueError: the array is not what it was when the client asked for it.
    """
    import numpy

    is_array = isinstance(array, numpy.ndarray)
    if not is_array or array.shape not in expected.shapes or array.dtype.str != expected.dtype:
        now = _kind(array) + (f" with shape {array.shape}" if is_array else "")
        raise ValueError(
            f"it is {now} on this engine now, and is another than when the client asked for it: call array() again"
        )
    inside = zip(expected.halo, array.shape, strict=True)
    return array[tuple(slice(before, size - behind) for (before, behind), size in inside)]


def piece(
    array: Any, expected: Expected, sources: Mapping[int, tuple[slice, ...]], engine: int
) -> tuple[Any, int | None]:
    """Return a copy of some elements of the block, so that later changes do not show in it.

    With the number of the step that comes next, if the engine is a program with a loop.

    Args:
        array: the engine's object.
        expected: what it should be.
        sources: which elements, for each engine.
        engine: the id of this one.
    """
    import numpy

    return numpy.ascontiguousarray(own(array, expected)[sources[engine]]), published.current_step()


def summarized(array: Any, expected: Expected) -> Summary:
    """Summarize the block, of real numbers; positions are within the block, and the engine is -1."""
    import numpy

    block = own(array, expected)
    present = _present(block)
    count, nans = present.size, block.size - present.size
    if not count:
        return Summary(0, nans, math.nan, 0.0, None, None)
    present = present.astype(numpy.promote_types(block.dtype, numpy.float64), copy=False)
    with numpy.errstate(invalid="ignore", over="ignore"):  # infinities
        mean = float(present.mean())
        squares = float(numpy.square(present - mean).sum())
    first, last = (numpy.nanargmin, numpy.nanargmax) if nans else (numpy.argmin, numpy.argmax)

    def extreme(place: Any) -> Extreme:
        at = tuple(int(each) for each in numpy.unravel_index(int(place), block.shape))
        return Extreme(block[at].item(), at, -1)

    return Summary(count, nans, mean, squares, extreme(first(block)), extreme(last(block)))


def counted(array: Any, expected: Expected, bins: Any, limits: tuple[float, float] | None) -> Any:
    """Count the block's elements in bins, as ``numpy.histogram`` does."""
    import numpy

    block = own(array, expected)
    numbers = block.view(numpy.uint8) if block.dtype.kind == "b" else _present(block)
    return numpy.histogram(numbers, bins, limits)[0]


def _present(block: Any) -> Any:
    """Return the elements that are not NaN; the block itself if there is none, as of integers."""
    import numpy

    missing = numpy.isnan(block) if block.dtype.kind in "fc" else None
    return block if missing is None or not missing.any() else block[~missing]
