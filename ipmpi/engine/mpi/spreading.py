"""Moving the elements of an array that is spread over ranks to other ranks, which hold them in other blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...arrays.layout import Block, Position
from ...arrays.local import Expected, Halo, own
from .collectives import bytes_of, contiguous
from .team import Place, Refused, Team, act

Box = tuple[Position, Position]
"""Where elements begin in the whole array, and where they end."""


def redistribute(
    space: dict[str, Any], place: Place, found: Any, expected: Expected, source: Sequence[Block],
    target: Sequence[Block], whole: Position, halo: Halo, to: str,
) -> Refused | None:  # fmt: skip
    """Make an array of other blocks with the elements of this one.

    Args:
        space: the namespace.
        place: the ranks, in the order of the blocks.
        found: this rank's array now, with its ghost cells.
        expected: what it should be.
        source: the blocks as they are.
        target: the blocks as they shall be.
        whole: the shape of the whole array.
        halo: ghost cells of the new blocks. Those within the whole array get its elements, and the others zeros.
        to: the name of the new array.
    """  # fmt: skip

    def do(team: Team) -> Refused | None:
        try:
            mine = own(found, expected)
            problem = None
        except ValueError as error:
            problem = Refused("ValueError", str(error))
        problem = team.wrong(problem)
        if problem is None:
            # Elements travel in the order of memory, so all ranks must have the same.
            is_fortran = all(team.comm.allgather(_is_fortran(mine)))
            space[to] = _moved(team, contiguous(mine, is_fortran), is_fortran, source, target, halo, whole)
        return problem

    return act(place, do)  # type: ignore[no-any-return]


def box_of(block: Block) -> Box:
    """Return where a block is."""
    return block.offset, tuple(map(sum, zip(block.offset, block.shape, strict=True)))


def with_ghosts(block: Block, halo: Halo, whole: Position) -> Box:
    """Return where a block with its ghost cells is, as far as that lies within the whole array."""
    first, last = box_of(block)
    if 0 in block.shape:
        return first, first
    return (
        tuple(max(0, at - before) for at, (before, _) in zip(first, halo, strict=True)),
        tuple(min(size, at + behind) for at, (_, behind), size in zip(last, halo, whole, strict=True)),
    )


def overlap(one: Box, other: Box) -> Box | None:
    """Return what two boxes have in common; None if that is nothing."""
    first = tuple(map(max, one[0], other[0]))
    last = tuple(map(min, one[1], other[1]))
    return (first, last) if all(map(int.__lt__, first, last)) else None


def _is_fortran(array: Any) -> bool:
    """Return whether the first index is the fastest in memory, also of a part of an array."""
    return bool(array.ndim > 1 and abs(array.strides[0]) < abs(array.strides[-1]))


def _moved(
    team: Team, mine: Any, is_fortran: bool, source: Sequence[Block], target: Sequence[Block], halo: Halo,
    whole: Position,
) -> Any:  # fmt: skip
    """Exchange elements by one collective, which reads and writes them where they are."""
    import numpy

    rank, mpi = team.comm.Get_rank(), team.mpi
    block = target[rank]
    shape = tuple(size + sum(cells) for size, cells in zip(block.shape, halo, strict=True))
    result = numpy.zeros(shape, mine.dtype, order="F" if is_fortran else "C")
    corner = tuple(at - before for at, (before, _) in zip(block.offset, halo, strict=True))
    element = mpi.BYTE.Create_contiguous(mine.itemsize).Commit()
    order = mpi.ORDER_FORTRAN if is_fortran else mpi.ORDER_C

    def types(array: Any, origin: Position, boxes: Sequence[Box | None]) -> list[Any]:
        made = []
        for box in boxes:
            if box is None:
                made.append(mpi.BYTE)
                continue
            starts = [at - begin for at, begin in zip(box[0], origin, strict=True)]
            lengths = [end - begin for begin, end in zip(*box, strict=True)]
            made.append(element.Create_subarray(list(array.shape), lengths, starts, order).Commit())
        return made

    from_me = [overlap(box_of(source[rank]), with_ghosts(each, halo, whole)) for each in target]
    to_me = [overlap(box_of(each), with_ghosts(block, halo, whole)) for each in source]
    out, into = types(mine, source[rank].offset, from_me), types(result, corner, to_me)
    nowhere = [0] * len(out)
    team.comm.Alltoallw(
        [bytes_of(mine), [int(box is not None) for box in from_me], nowhere, out],
        [bytes_of(result), [int(box is not None) for box in to_me], nowhere, into],
    )
    for each in (*out, *into, element):
        if each != mpi.BYTE:
            each.Free()
    return result
