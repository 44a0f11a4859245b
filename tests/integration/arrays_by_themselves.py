"""Collectives of names and new blocks of arrays, against NumPy; run under mpiexec by the tests.

Every rank draws the same cases from one seed, knows all ranks' values, and checks what it has got itself.
"""

from __future__ import annotations

import itertools
import sys
from functools import reduce as fold
from typing import Any

import numpy as np
from mpi4py import MPI

from ipmpi import communicator
from ipmpi.arrays.layout import Block, divided, in_a_grid, place_in
from ipmpi.arrays.local import Expected
from ipmpi.engine.mpi import collectives, spreading, team
from ipmpi.engine.mpi.team import Place, Refused

World = MPI.COMM_WORLD
rank, size = World.Get_rank(), World.Get_size()
random = np.random.default_rng(int(sys.argv[2]))
communicator.provide(World, MPI, World)
# Messages in pieces of a few bytes, as those of arrays above a gigabyte.
team.PIECE = collectives.PIECE = 64
DTYPES = ["f8", "f4", "i8", "i4", "u1", "?", ">f8", "f2", ">i2", "c16", "c8", "i1", "u8", "g"]
OPS = {
    "sum": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum, "land": np.logical_and,
    "lor": np.logical_or, "lxor": np.logical_xor, "band": np.bitwise_and, "bor": np.bitwise_or,
    "bxor": np.bitwise_xor,
}  # fmt: skip


def some_ranks() -> list[int]:
    """Ranks in any order; often all of them."""
    ranks = [*range(size)]
    if random.integers(2):
        random.shuffle(ranks)
        ranks = ranks[: random.integers(1, size + 1)]
    return ranks


def some_array(shape: Any = None, dtype: Any = None) -> Any:
    dtype = np.dtype(random.choice(DTYPES)) if dtype is None else dtype
    shape = tuple(random.integers(0, 5, random.integers(0, 4))) if shape is None else shape
    array = random.integers(0, 4, shape).astype(dtype)
    layout = random.integers(3)
    if layout == 2 and array.ndim:  # with holes
        array = np.repeat(array, 2, axis=0)[::2]
    return np.asarray(array, order="CFK"[layout])


def place_of(ranks: list[int]) -> Place:
    return Place(tuple(10 + each for each in ranks), tuple(ranks))


def same(found: Any, expected: Any) -> None:
    assert found.dtype == expected.dtype, (found.dtype, expected.dtype)
    np.testing.assert_array_equal(found, expected)


def refused(found: Any, kind: str, text: str) -> None:
    assert isinstance(found, Refused), found
    assert found.kind == kind, found
    assert text in found.text, found


def reductions() -> None:
    ranks, op = some_ranks(), str(random.choice([*OPS]))
    first = some_array()
    values = [first, *(some_array(first.shape, first.dtype) for _ in ranks[1:])]
    root = None if random.integers(2) else int(random.integers(len(ranks)))
    if rank not in ranks:
        return
    mine = ranks.index(rank)
    space: dict[str, Any] = {"x": values[mine]}
    found = collectives.reduce(space, place_of(ranks), "x", op, root, "y")
    kind = first.dtype.kind
    if (op.startswith("b") and kind not in "biu") or (op in ("min", "max") and kind == "c"):
        refused(found, "TypeError", f"no op={op!r}")
        return
    assert found is None, found
    if root not in (None, mine):
        assert "y" not in space
        return
    counted = [each.astype("i8") for each in values] if kind == "b" and op in ("sum", "prod") else values
    native = [each.astype(each.dtype.newbyteorder("=")) for each in counted]
    expected = fold(OPS[op], native) if len(ranks) > 1 else native[0] if op[0] != "l" else native[0] != 0
    same(space["y"], np.asarray(expected))


def broadcasts() -> None:
    ranks = some_ranks()
    root = int(random.integers(len(ranks)))
    text = [*range(int(random.integers(5)))]
    sent: dict[str, Any] = {"a": some_array(), "b": some_array(), "c": text}
    if random.integers(2):
        sent["d"] = np.array([(1, 2.5)] * 3, [("n", "i4"), ("v", "f8")])
        sent["e"] = np.array(["2026-11-27", "NaT"], "M8[s]")
        sent["f"] = np.array([1, "a", None], object)
        sent["g"] = np.ma.masked_less(np.arange(3), 1)
    if rank not in ranks:
        return
    is_root = ranks.index(rank) == root
    space = dict(sent) if is_root else {"a": "other"}
    assert collectives.bcast(space, place_of(ranks), [*sent], root) is None
    for name, value in sent.items():
        if is_root:
            assert space[name] is value
        elif isinstance(value, np.ndarray):
            assert type(space[name]) is type(value)
            assert space[name].flags.f_contiguous == value.flags.f_contiguous or not value.flags.forc
            assert space[name].flags.writeable
            same(space[name], value)
        else:
            assert space[name] == value


def exchanges() -> None:
    ranks = some_ranks()
    count = len(ranks)
    first = some_array((count * int(random.integers(3)), *random.integers(0, 3, random.integers(3))))
    values = [first, *(some_array(first.shape, first.dtype) for _ in ranks[1:])]
    if rank not in ranks:
        return
    mine, place = ranks.index(rank), place_of(ranks)
    space: dict[str, Any] = {"x": values[mine], "l": tuple(f"{mine} for {other}" for other in range(count))}
    assert collectives.alltoall(space, place, "x", "y") is None
    parts = [np.split(each, count)[mine] for each in values]
    same(space["y"], np.concatenate(parts))
    assert collectives.alltoall(space, place, "l", "l") is None
    assert space["l"] == [f"{other} for {mine}" for other in range(count)]


def some_grid(ndim: int, count: int) -> tuple[int, ...]:
    grids = [g for g in itertools.product(range(1, count + 1), repeat=ndim) if np.prod(g) == count]
    return grids[random.integers(len(grids))]


def some_halo(ndim: int) -> tuple[tuple[int, int], ...]:
    return tuple((int(random.integers(3)), int(random.integers(3))) for _ in range(ndim))


def some_blocks(shape: tuple[int, ...], grid: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Blocks of any sizes: their places in the grid, and shapes."""
    along = []
    for length, parts in zip(shape, grid, strict=True):
        ends = [0, *sorted(random.integers(0, length + 1, parts - 1)), length]
        along.append([int(end - begin) for begin, end in itertools.pairwise(ends)])
    places = [place_in(grid, number) for number in range(int(np.prod(grid)))]
    return [(at, tuple(lengths[i] for lengths, i in zip(along, at, strict=True))) for at in places]


def cut(whole: Any, block: Block, halo: Any, ghosts: Any) -> Any:
    """A block with its ghost cells: zeros beyond the ends, and ``ghosts`` instead of others if it is a number."""
    padded = np.pad(whole, halo)
    part = padded[tuple(slice(a, a + n + sum(h)) for a, n, h in zip(block.offset, block.shape, halo, strict=True))]
    part = part.copy()
    if ghosts is not None or 0 in block.shape:
        inner = part[tuple(slice(b, b + n) for n, (b, _) in zip(block.shape, halo, strict=True))].copy()
        part[...] = ghosts or 0
        part[tuple(slice(b, b + n) for n, (b, _) in zip(block.shape, halo, strict=True))] = inner
    return part


def new_blocks() -> None:
    ranks = some_ranks()
    count, ndim = len(ranks), int(random.integers(1, 4))
    whole = some_array(tuple(random.integers(0, 8, ndim)))
    place = place_of(ranks)
    grid = some_grid(ndim, count)
    blocks = some_blocks(whole.shape, grid)
    source = in_a_grid([(e, at, shape) for e, (at, shape) in zip(place.engines, blocks, strict=True)], grid)
    target = divided(whole.shape, some_grid(ndim, count), place.engines)
    before, halo = some_halo(ndim), some_halo(ndim)
    orders = random.choice(["C", "F", "K"], count)
    if rank not in ranks:
        return
    mine = ranks.index(rank)
    block = np.asarray(cut(whole, source.blocks[mine], before, 1), order=orders[mine])
    expected = Expected(frozenset([block.shape]), whole.dtype.str, before)
    space: dict[str, Any] = {}
    args = (source.blocks, target.blocks, whole.shape, halo, "T")
    assert spreading.redistribute(space, place, block, expected, *args) is None
    same(space["T"], cut(whole, target.blocks[mine], halo, None))


def refusals() -> None:
    place = place_of([*range(size)])
    last = size - 1
    for value, text in (
        (np.zeros(3), "x is an array of <f8 with shape (2,) on engine 10, and an array of <f8 with shape (3,)"),
        (np.zeros(2, "f4"), "and an array of <f4 with shape (2,) on engine"),
        ([1, 2], "and of type list on engine"),
    ):
        space = {"x": value if rank == last else np.zeros(2)}
        found = collectives.reduce(space, place, "x", "sum", 0, None)
        refused(found, "ValueError", text)
    found = collectives.reduce({} if rank == last else {"x": 1}, place, "x", "sum", 0, None)
    assert found == Refused("NameError", f"on engine {10 + last}: name 'x' is not defined"), found
    found = collectives.reduce({"x": rank}, place, "1 / (x - 1)", "sum", 0, None)
    refused(found, "ValueError", "raised ZeroDivisionError")
    found = collectives.bcast({}, place, ["x"], last)
    assert found == Refused("NameError", f"on engine {10 + last}: name 'x' is not defined"), found
    found = collectives.alltoall({"x": np.zeros(size + 1)}, place, "x", "y")
    refused(found, "ValueError", "its first dimension cannot be divided among")
    found = collectives.alltoall({"x": 5}, place, "x", "y")
    refused(found, "TypeError", "must be a list with an item for each")
    blocks = divided((size,), (size,), place.engines).blocks
    found = spreading.redistribute(
        {}, place, "text" if rank == last else np.zeros(1), Expected(frozenset([(1,)]), "<f8", ((0, 0),)),
        blocks, blocks, (size,), ((0, 0),), "T",
    )  # fmt: skip
    refused(found, "ValueError", f"on engine {10 + last}: it is a str on this engine now")
    assert collectives.reduce({"x": f"{rank}"}, place, "x", "max", None, None) == str(last)
    assert collectives.reduce({"x": [rank]}, place, "x", "sum", None, None) == [*range(size)]


refusals()
for case in range(int(sys.argv[1])):
    for check in (reductions, broadcasts, exchanges, new_blocks):
        state = random.bit_generator.state
        try:
            check()
        except BaseException:
            print(f"rank {rank}: case {case} of {check.__name__}", file=sys.stderr, flush=True)
            sys.excepthook(*sys.exc_info())
            World.Abort(1)
World.Barrier()
if rank == 0:
    print("fine")
