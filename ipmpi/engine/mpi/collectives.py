"""Collectives of values that ranks have under the same name.

The elements of NumPy arrays are sent as they are, other objects by pickle.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from ...ranges import engines_named
from .team import PIECE, Place, Refused, Team, act

Namespace = dict[str, Any]


class Told(NamedTuple):
    """What a rank tells the others of its value.

    Attributes:
        kind: its type, for a message.
        shape: of an array; ``None`` if it is none. ``(n,)`` for a list or tuple.
        dtype: of an array, as NumPy writes it; empty for others.
        is_fortran: whether the first index of the array is the fastest in memory, and not the last.
        problem: why there is no value.
    """

    kind: str
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    is_fortran: bool = False
    problem: Refused | None = None


def told_of(value: Any) -> Told:
    """Describe a value. Arrays of objects, and subclasses of ``numpy.ndarray``, count as objects."""
    import numpy

    if type(value) is numpy.ndarray and not value.dtype.hasobject and value.dtype.itemsize:
        flags = value.flags
        # Of a structured dtype, .str says the size only.
        dtype = value.dtype.newbyteorder("=").str if value.dtype.names is None else str(value.dtype)
        return Told("ndarray", value.shape, dtype, flags.f_contiguous and not flags.c_contiguous)
    if isinstance(value, list | tuple):
        return Told(type(value).__name__, (len(value),))
    return Told(type(value).__name__)


def looked_up(space: Namespace, expression: str) -> tuple[Any, Told]:
    """Return the value of an expression and its description, which says so if it has none."""
    try:
        value = eval(compile(expression.strip(), "<collective>", "eval", dont_inherit=True), space)
        return value, told_of(value)
    except Exception as error:
        kind = "NameError" if isinstance(error, NameError) else "ValueError"
        text = (
            str(error) if isinstance(error, NameError) else f"{expression} raised {type(error).__name__}: {error}"
        )
        return None, Told("", problem=Refused(kind, text))


def bytes_of(array: Any) -> Any:
    """Return the memory of a contiguous array, in either order, as an array of bytes."""
    import numpy

    straight = array if array.flags.c_contiguous else array.T
    return straight.reshape(-1).view(numpy.uint8)


def contiguous(array: Any, is_fortran: bool) -> Any:
    """Return the array with its elements in this order in memory; itself if they are."""
    import numpy

    return numpy.asarray(array, order="F" if is_fortran else "C")


# --- Broadcast -------------------------------------------------------------------------------------------------


def bcast(space: Namespace, place: Place, names: Sequence[str], root: int) -> Refused | None:
    """Assign the values of one rank to the same names at all others.

    Args:
        space: the namespace.
        place: the ranks.
        names: of the values.
        root: the index of that rank in ``place``.
    """

    def do(team: Team) -> Refused | None:
        is_root = team.comm.Get_rank() == root
        told = team.comm.bcast([_told_for_bcast(space, name) for name in names] if is_root else None, root)
        problem = next((each.problem for each, _ in told if each.problem), None)
        if problem is not None:
            return Refused(problem.kind, f"on {engines_named([place.engines[root]])}: {problem.text}")
        for name, (each, dtype) in zip(names, told, strict=True):
            value = space[name] if is_root else None
            if each.dtype:
                value = _bcast_array(team.comm, value, each, dtype, root)
            else:
                value = team.comm.bcast(value, root)
            if not is_root:
                space[name] = value
        return None

    return act(place, do)  # type: ignore[no-any-return]


def _told_for_bcast(space: Namespace, name: str) -> tuple[Told, Any]:
    if name not in space:
        return Told("", problem=Refused("NameError", f"name {name!r} is not defined")), None
    told = told_of(space[name])
    return told, space[name].dtype if told.dtype else None


def _bcast_array(comm: Any, array: Any, told: Told, dtype: Any, root: int) -> Any:
    import numpy

    if array is None:
        array = numpy.empty(told.shape or (), dtype, order="F" if told.is_fortran else "C")
    data = bytes_of(contiguous(array, told.is_fortran))
    for start in range(0, len(data), PIECE):
        comm.Bcast(data[start : start + PIECE], root)
    return array


# --- Reductions ------------------------------------------------------------------------------------------------


class Operation(NamedTuple):
    """How values are combined.

    Attributes:
        mpi: the name of the operation in mpi4py.MPI.
        numpy: that of the NumPy function that does it with arrays which MPI does not know.
        plain: does it with other objects.
    """

    mpi: str
    numpy: str
    plain: Callable[[Any, Any], Any]


OPERATIONS: Final = {
    "sum": Operation("SUM", "add", operator.add),
    "prod": Operation("PROD", "multiply", operator.mul),
    "min": Operation("MIN", "minimum", min),
    "max": Operation("MAX", "maximum", max),
    "land": Operation("LAND", "logical_and", lambda one, other: bool(one and other)),
    "lor": Operation("LOR", "logical_or", lambda one, other: bool(one or other)),
    "lxor": Operation("LXOR", "logical_xor", lambda one, other: bool(one) != bool(other)),
    "band": Operation("BAND", "bitwise_and", operator.and_),
    "bor": Operation("BOR", "bitwise_or", operator.or_),
    "bxor": Operation("BXOR", "bitwise_xor", operator.xor),
}


def reduce(space: Namespace, place: Place, expression: str, op: str, root: int | None, to: str | None) -> Any:
    """Combine the values of all ranks.

    Args:
        space: the namespace.
        place: the ranks.
        expression: the value.
        op: one of :data:`OPERATIONS`.
        root: the index in ``place`` of the rank that gets the result; None for all.
        to: the name under which it is kept; None to return it.
    """
    value, told = looked_up(space, expression)

    def do(team: Team) -> Any:
        everybody = team.comm.allgather(told)
        problem = _unequal(expression, everybody, place.engines) or _unable(expression, told, op)
        if problem is not None:
            return problem
        if told.dtype and _transit_type(told.dtype, op) is not None:
            result = _reduce_array(team, value, all(each.is_fortran for each in everybody), op, root)
        elif root is None:
            result = team.comm.allreduce(value, _combine(op))
        else:
            result = team.comm.reduce(value, _combine(op), root)
        if root is not None and team.comm.Get_rank() != root:
            return None
        if to is None:
            return result
        space[to] = result
        return None

    return act(place, do)


def _unequal(what: str, everybody: Sequence[Told], engines: Sequence[int]) -> Refused | None:
    """Return what does not fit together."""
    for each in everybody:
        if each.problem is not None:
            same = [engine for engine, other in zip(engines, everybody, strict=True) if other == each]
            return Refused(each.problem.kind, f"on {engines_named(same)}: {each.problem.text}")
    first = everybody[0]
    for engine, each in zip(engines, everybody, strict=True):
        if (each.dtype, each.dtype and each.shape) != (first.dtype, first.dtype and first.shape):
            return Refused(
                "ValueError",
                f"{what} is {_in_words(first)} on engine {engines[0]}, and {_in_words(each)} on engine {engine}",
            )
    return None


def _in_words(told: Told) -> str:
    return f"an array of {told.dtype} with shape {told.shape}" if told.dtype else f"of type {told.kind}"


def _unable(what: str, told: Told, op: str) -> Refused | None:
    if not told.dtype or told.dtype.startswith("["):
        return None
    import numpy

    kind = numpy.dtype(told.dtype).kind
    if (op in ("band", "bor", "bxor") and kind not in "biu") or (op in ("min", "max") and kind == "c"):
        return Refused("TypeError", f"{what} is {_in_words(told)}, for which there is no op={op!r}")
    return None


def _combine(op: str) -> Callable[[Any, Any], Any]:
    chosen = OPERATIONS[op]

    def combine(one: Any, other: Any) -> Any:
        import numpy

        either = isinstance(one, numpy.ndarray) or isinstance(other, numpy.ndarray)
        return getattr(numpy, chosen.numpy)(one, other) if either else chosen.plain(one, other)

    return combine


def _transit_type(dtype: str, op: str) -> tuple[str, str] | None:
    """Return the dtypes in which MPI combines arrays, and that of the result; None if MPI cannot.

    Bools are counted by sum and prod, as Python does.
    """
    import numpy

    kind = "V" if dtype.startswith("[") else numpy.dtype(dtype).kind
    if kind not in "biufc":
        return None
    if op in ("land", "lor", "lxor"):
        return "u1", "?"
    if kind == "b":
        return ("i8", "i8") if op in ("sum", "prod") else ("u1", "?")
    if dtype.endswith("f2"):
        return "f4", dtype
    return dtype, dtype


def _reduce_array(team: Team, array: Any, is_fortran: bool, op: str, root: int | None) -> Any:
    import numpy

    transit, final = _transit_type(told_of(array).dtype, op) or ("", "")
    numbers = array != 0 if OPERATIONS[op].mpi.startswith("L") else array
    sent = numpy.asarray(numbers, dtype=transit, order="F" if is_fortran else "C")
    gets = root is None or team.comm.Get_rank() == root
    result = numpy.empty_like(sent) if gets else None
    step = PIECE // sent.itemsize
    how = getattr(team.mpi, OPERATIONS[op].mpi)
    out = _flat(sent)
    into = None if result is None else _flat(result)
    for start in range(0, len(out), step):
        end = start + step
        piece = None if into is None else into[start:end]
        if root is None:
            team.comm.Allreduce(out[start:end], piece, how)
        else:
            team.comm.Reduce(out[start:end], piece, how, root)
    return None if result is None else result.astype(final, copy=False)


def _flat(array: Any) -> Any:
    return (array if array.flags.c_contiguous else array.T).reshape(-1)


# --- All to all ------------------------------------------------------------------------------------------------


def alltoall(space: Namespace, place: Place, expression: str, to: str) -> Refused | None:
    """Give each rank its part of every rank's value.

    Args:
        space: the namespace.
        place: the ranks.
        expression: the value: an array whose first dimension is divided among the ranks, or a list with an item
            for each.
        to: the name under which the parts are kept, in the order of the ranks.
    """
    value, told = looked_up(space, expression)

    def do(team: Team) -> Refused | None:
        everybody = team.comm.allgather(told)
        problem = _unequal(expression, everybody, place.engines)
        for engine, each in zip(place.engines, everybody, strict=True):
            problem = problem or _undivided(expression, engine, each, len(place.engines))
        if problem is not None:
            return problem
        if told.dtype:
            space[to] = _exchange_array(team, value)
        else:
            space[to] = team.comm.alltoall(list(value))
        return None

    return act(place, do)  # type: ignore[no-any-return]


def _undivided(what: str, engine: int, told: Told, count: int) -> Refused | None:
    if told.dtype:
        if told.shape and told.shape[0] % count == 0:
            return None
        return Refused(
            "ValueError",
            f"{what} has shape {told.shape} on engine {engine}: its first dimension cannot be divided among "
            f"{count} engines. Of unequal parts, make a list",
        )
    if told.shape == (count,):
        return None
    has = "" if told.shape is None else f" with {told.shape[0]} items"
    return Refused(
        "TypeError" if told.shape is None else "ValueError",
        f"{what} is of type {told.kind}{has} on engine {engine}: it must be a list with an item for each of the "
        f"{count} engines, or an array",
    )


def _exchange_array(team: Team, array: Any) -> Any:
    import numpy

    native = array.dtype if array.dtype.names else array.dtype.newbyteorder("=")
    sent = numpy.asarray(array, native, order="C")
    result = numpy.empty_like(sent, order="C")
    count, element = sent.size // len(team.engines), team.mpi.BYTE.Create_contiguous(sent.itemsize).Commit()
    team.comm.Alltoall([bytes_of(sent), count, element], [bytes_of(result), count, element])
    element.Free()
    return result
