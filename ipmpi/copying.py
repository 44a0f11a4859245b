"""Copying large arrays with several threads: one core moves a part only of what the memory could give."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

from . import limits

Pair = tuple[Any, Any]
"""Two arrays of equal shape with at least one axis: where to copy to, and what."""


def copy(pairs: Sequence[Pair]) -> None:
    """Copy arrays into others, as ``numpy.copyto`` does; other threads of Python run meanwhile.

    Args:
        pairs: which do not overlap.

    Raises:
        TypeError, ValueError: of numpy, for arrays that do not fit; some may have been copied then.
    """
    copyto = sys.modules["numpy"].copyto
    for place, source in pairs:  # in another thread, that would be nobody's exception
        if place.shape != source.shape:
            raise ValueError(f"an array of shape {source.shape} cannot be copied into one of {place.shape}")
    size = sum(place.nbytes for place, _ in pairs)
    threads = min(limits.COPY_THREADS, _cores(), size // limits.COPY_SHARE)
    if threads < 2:
        _copy(copyto, pairs)
        return
    shares = shared(pairs, -(-size // threads))
    started = []
    for share in shares[1:]:
        thread = threading.Thread(target=_copy, args=(copyto, share), name="ipmpi-copy", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system gives no thread
            _copy(copyto, share)
        else:
            started.append(thread)
    _copy(copyto, shares[0])
    for thread in started:
        thread.join()


def _copy(copyto: Any, pairs: Sequence[Pair]) -> None:
    for place, source in pairs:
        copyto(place, source)


def shared(pairs: Sequence[Pair], size: int) -> list[list[Pair]]:
    """Cut pairs along their first axis, and return lists of them that have about ``size`` bytes each."""
    shares: list[list[Pair]] = [[]]
    room = size
    for place, source in pairs:
        at, length = 0, len(place)
        row = place.nbytes // length if length else 0
        while at < length:
            if room <= 0:
                shares.append([])
                room = size
            end = min(length, at + max(1, room // row)) if row else length
            shares[-1].append((place[at:end], source[at:end]))
            room -= (end - at) * row
            at = end
    return shares


def _cores() -> int:
    """How many this process may use; launchers often bind a rank to one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
