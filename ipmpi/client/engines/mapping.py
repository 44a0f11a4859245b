"""Partitioning sequences among engines and joining the parts: pure functions.

Two distributions. ``'b'``: consecutive blocks, where the first ``len % n`` get one item more. ``'r'``: round
robin, where part ``k`` gets the items ``k, k + n, k + 2n, ...``. numpy is used only if it is imported already.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections import UserList
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from ...copying import copy
from ..session.given import shown

DISTRIBUTIONS = ("b", "r")


def check_distribution(dist: str) -> None:
    """Raise KeyError unless ``dist`` is ``'b'`` (blocks) or ``'r'`` (round robin)."""
    if not isinstance(dist, str) or dist not in DISTRIBUTIONS:
        raise KeyError(f"dist must be 'b' (blocks) or 'r' (round robin), not {shown(dist)}")


def sliceable(items: Iterable[Any]) -> Any:
    """Return the items as an object with a length and slices: themselves if possible, otherwise a list.

    Raises:
        TypeError: they are not iterable, or have no length (a 0-d array).
    """
    return items if isinstance(items, _SLICES) or _has_slices(items) else list(items)


_SLICES: Final = (list, tuple, range, str, bytes, bytearray)
"""Types whose slices are known to contain the items that iteration gives."""


def _has_slices(items: Any) -> bool:
    if isinstance(items, Mapping) or not hasattr(items, "__getitem__"):
        return False
    try:
        len(items)
        items[0:0]
    except Exception:  # a deque, a data set that takes numbers only, a sparse matrix, which has no length
        return False
    return True


def listed(items: Iterable[Any]) -> Any:
    """Return the items as an object with a length and slices, and with exactly the items of ``list(items)``.

    Slices of a pandas DataFrame are rows, while iteration gives the names of its columns.
    """
    numpy = sys.modules.get("numpy")
    same = isinstance(items, _SLICES) or (numpy is not None and isinstance(items, numpy.ndarray))
    return sliceable(items) if same else list(items)


def slices(length: int, parts: int, dist: str = "b") -> list[slice]:
    """Return the slice of ``length`` items that each of ``parts`` parts gets.

    >>> slices(5, 2)
    [slice(0, 3, None), slice(3, 5, None)]
    >>> slices(5, 2, 'r')
    [slice(0, None, 2), slice(1, None, 2)]
    """
    check_distribution(dist)
    if not parts and length:
        raise ValueError(f"there is no engine to deal out {length} items to: targets is empty")
    if dist == "r" or not parts:
        return [slice(part, None, parts) for part in range(parts)]
    size, longer = divmod(length, parts)
    starts = [part * size + min(part, longer) for part in range(parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(starts)]


def check_items(items: Any, what: str) -> None:
    """Raise TypeError unless :func:`partition` can partition this."""
    if getattr(items, "shape", None) == () or not (hasattr(items, "__iter__") or hasattr(items, "__getitem__")):
        raise TypeError(
            f"{what} must be something with items (a list, a string, an array of one or more dimensions): "
            f"{shown(items)}. push() gives all engines the same value"
        )


def partition(items: Iterable[Any], parts: int, dist: str = "b") -> list[Any]:
    """Partition the items; parts have the type of the whole, arrays are split along axis 0. Parts may be empty.

    >>> partition('abcde', 2)
    ['abc', 'de']
    """
    whole = sliceable(items)
    places = getattr(whole, "iloc", whole)  # pandas has slices of labels, too
    return [places[chosen] for chosen in slices(len(whole), parts, dist)]


def partition_together(sequences: Sequence[Iterable[Any]], parts: int, dist: str = "b") -> list[list[Any]]:
    """Partition several sequences in the same way: for each part, its slice of every sequence.

    There are never more parts than items, so no part is empty.

    Raises:
        ValueError: the sequences differ in length.
    """
    wholes = [listed(items) for items in sequences]
    lengths = {len(whole) for whole in wholes}
    if len(lengths) > 1:
        raise ValueError("all sequences must have equal length")
    length = lengths.pop() if lengths else 0
    chosen = slices(length, min(parts, length), dist)
    return [[whole[share] for whole in wholes] for share in chosen]


Memory = Callable[[int], memoryview | None]
"""Gives writable memory of so many bytes or more, with anything in it, for a large array; None if it has none."""


def join(parts: Sequence[Any], dist: str = "b", memory: Memory = lambda _size: None) -> Any:
    """Join parts: the inverse of :func:`partition` for arrays, lists and tuples.

    If any part is an array, the result is one array, concatenated along axis 0; if any is a list, tuple or range,
    one list. Other parts count as one item each then, so that flattened parts are joined correctly. If there are
    neither (scalars, strings, tables), or the class of an array cannot be concatenated, it is the list of the
    parts.
    """
    check_distribution(dist)
    numpy = sys.modules.get("numpy")
    if numpy is not None and any(isinstance(part, numpy.ndarray) for part in parts):
        return _join_arrays(numpy, parts, dist, memory)
    if not any(type(part) in _LISTS for part in parts):
        return list(parts)
    rows = [part if type(part) in _LISTS else [part] for part in parts]
    if dist == "b":
        return [item for row in rows for item in row]
    longest = max(map(len, rows))
    return [row[turn] for turn in range(longest) for row in rows if turn < len(row)]


_LISTS: Final = (list, tuple, range, UserList)
"""Subclasses are excluded: a named tuple is a single value."""


def _join_arrays(numpy: Any, parts: Sequence[Any], dist: str, memory: Memory) -> Any:
    together = _concatenation(numpy, parts, memory)
    if together is None:
        return list(parts)
    arrays = [numpy.atleast_1d(part) for part in parts]
    whole = together(arrays)
    if dist == "b":
        return whole
    # Item j of part k was item j * n + k of the whole, whatever the lengths are now.
    places = [numpy.arange(len(array)) * len(arrays) + k for k, array in enumerate(arrays)]
    return whole[numpy.argsort(numpy.concatenate(places))]


def _concatenation(numpy: Any, parts: Sequence[Any], memory: Memory) -> Callable[[list[Any]], Any] | None:
    """Return a function that concatenates these arrays and keeps their class; None if none is known.

    ``numpy.concatenate`` silently returns plain arrays for most classes, and drops masks.
    """
    plain = (numpy.ndarray, numpy.matrix, numpy.memmap)
    kinds = {type(part) for part in parts if isinstance(part, numpy.ndarray)}
    special = [kind for kind in kinds if kind not in plain]
    if not special:
        return lambda arrays: _together(numpy, arrays, memory)
    if all(issubclass(kind, numpy.ma.MaskedArray) for kind in special):
        known = (numpy.ma.MaskedArray, type(numpy.ma.masked))
        joined: Callable[[list[Any]], Any] = numpy.ma.concatenate
        return joined if all(kind in known for kind in special) else None
    if len(kinds) > 1:
        return None
    kind = special[0]
    if kind is numpy.recarray:
        return lambda arrays: numpy.concatenate(arrays).view(kind)
    # A class that says how numpy's functions treat it (those with units do) also knows how it is joined.
    own = kind.__array_function__ is not numpy.ndarray.__array_function__
    return numpy.concatenate if own else None


def _together(numpy: Any, arrays: list[Any], memory: Memory) -> Any:
    """Return what ``numpy.concatenate`` does, in memory that is there already if all is alike."""
    first = arrays[0]
    alike = all(
        type(array) is numpy.ndarray
        and array.dtype == first.dtype
        and array.shape[1:] == first.shape[1:]
        and array.flags.c_contiguous
        for array in arrays
    )
    if not alike or first.dtype.hasobject:
        return numpy.concatenate(arrays)
    kind = numpy.result_type(first)  # in the machine's byte order; fields that overlap are beside each other
    shape = (sum(map(len, arrays)), *first.shape[1:])
    place = memory(math.prod(shape) * kind.itemsize)
    if place is None:
        return numpy.concatenate(arrays)
    whole = numpy.ndarray(shape, kind, buffer=place)
    ends = itertools.accumulate(map(len, arrays))
    copy([(whole[end - len(array) : end], array) for end, array in zip(ends, arrays, strict=True)])
    return whole
