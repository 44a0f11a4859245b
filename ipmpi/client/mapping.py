"""How a sequence is dealt out to engines and put together again: pure functions (layer L4, no I/O).

Two distributions. ``'b'``: consecutive blocks, where the first ``len % n`` get one item more. ``'r'``: round
robin, where part ``k`` gets the items ``k, k + n, k + 2n, ...``. numpy is used only where arrays are already.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

DISTRIBUTIONS = ("b", "r")


def check_distribution(dist: str) -> None:
    """Raise KeyError unless ``dist`` is ``'b'`` (blocks) or ``'r'`` (round robin)."""
    if dist not in DISTRIBUTIONS:
        raise KeyError(f"dist must be 'b' (blocks) or 'r' (round robin), not {dist!r}")


def sliceable(items: Iterable[Any]) -> Any:
    """The items as something with a length and slices: themselves where they can, else a list of them.

    Raises:
        TypeError: they cannot be gone through, or have no length (an array of no dimensions).
    """
    has_slices = hasattr(items, "__len__") and hasattr(items, "__getitem__")
    return items if has_slices and not isinstance(items, Mapping) else list(items)


def slices(length: int, parts: int, dist: str = "b") -> list[slice]:
    """Which items each of ``parts`` parts gets, out of ``length`` items.

    >>> slices(5, 2)
    [slice(0, 3, None), slice(3, 5, None)]
    >>> slices(5, 2, 'r')
    [slice(0, None, 2), slice(1, None, 2)]
    """
    check_distribution(dist)
    if dist == "r":
        return [slice(part, None, parts) for part in range(parts)]
    size, longer = divmod(length, parts)
    starts = [part * size + min(part, longer) for part in range(parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(starts)]


def partition(items: Iterable[Any], parts: int, dist: str = "b") -> list[Any]:
    """The items dealt out to ``parts`` parts, of the same type as the whole; some parts may be empty.

    >>> partition('abcde', 2)
    ['abc', 'de']
    """
    whole = sliceable(items)
    return [whole[chosen] for chosen in slices(len(whole), parts, dist)]


def partition_together(sequences: Sequence[Iterable[Any]], parts: int, dist: str = "b") -> list[list[Any]]:
    """For each part its share of every sequence; never more parts than there are items, so none is empty.

    Raises:
        ValueError: the sequences differ in length.
    """
    wholes = [sliceable(items) for items in sequences]
    lengths = {len(whole) for whole in wholes}
    if len(lengths) > 1:
        raise ValueError("all sequences must have equal length")
    length = lengths.pop() if lengths else 0
    chosen = slices(length, min(parts, length), dist) if length else []
    return [[whole[share] for whole in wholes] for share in chosen]


def join(parts: Sequence[Any], dist: str = "b") -> Any:
    """Put together what :func:`partition` dealt out: the opposite for arrays, lists and tuples.

    Arrays become one array, and lists, tuples and ranges one list. Anything else (scalars, strings) stays a list
    of the parts. Which of these it is, the first part that is not a scalar decides, so that parts of one item
    that were flattened find their place.
    """
    check_distribution(dist)
    numpy = sys.modules.get("numpy")
    if numpy is not None and any(isinstance(part, numpy.ndarray) for part in parts):
        return _join_arrays(numpy, parts, dist)
    if not any(isinstance(part, (list, tuple, range)) for part in parts):
        return list(parts)
    rows = [part if isinstance(part, (list, tuple, range)) else [part] for part in parts]
    if dist == "b":
        return [item for row in rows for item in row]
    longest = max(map(len, rows))
    return [row[turn] for turn in range(longest) for row in rows if turn < len(row)]


def _join_arrays(numpy: Any, parts: Sequence[Any], dist: str) -> Any:
    arrays = [numpy.atleast_1d(part) for part in parts]
    whole = numpy.concatenate(arrays)
    if dist == "b":
        return whole
    # Item j of part k was item j * n + k of the whole, whatever the lengths are now.
    places = [numpy.arange(len(array)) * len(arrays) + k for k, array in enumerate(arrays)]
    return whole[numpy.argsort(numpy.concatenate(places))]
