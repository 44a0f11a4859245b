"""Copying large arrays with several threads: one core moves a part only of what the memory could give."""

from __future__ import annotations

import _thread
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from threading import Semaphore  # not a queue: ranks have loaded this already
from typing import Any

from . import limits

Pair = tuple[Any, Any]
"""Two arrays of equal shape with at least one axis: where to copy to, and what."""


def copy(pairs: Sequence[Pair]) -> None:
    """Copy arrays into others, as ``numpy.copyto`` does; other threads of Python run meanwhile.

    Args:
        pairs: which do not overlap.

    Raises:
        TypeError, ValueError, MemoryError: of numpy. Some may have been copied then, and nobody writes any more.
    """
    copyto = sys.modules["numpy"].copyto
    for place, source in pairs:  # before anything is copied; and numpy would repeat what is too short
        if place.shape != source.shape:
            raise ValueError(f"an array of shape {source.shape} cannot be copied into one of {place.shape}")
    size = sum(place.nbytes for place, _ in pairs)
    threads = min(limits.COPY_THREADS, size // limits.COPY_SHARE)
    if threads < 2 or (threads := min(threads, _cores())) < 2:
        _copy(copyto, pairs)
        return
    shares = shared(pairs, -(-size // threads))
    waiting = deque(shares)
    failures: list[BaseException] = []
    ended = Semaphore(0)
    helper = partial(_take_shares, waiting, partial(_copy, copyto), failures, ended)
    # Not of threading.Thread, which waits until it runs. That may be long, where other threads keep the GIL, and
    # what no helper has begun is copied here meanwhile.
    for _ in shares[1:]:
        try:
            _thread.start_new_thread(helper, ())
        except RuntimeError:  # the system gives none, or the interpreter ends
            break
    helper()
    for _ in shares:
        ended.acquire()
    if failures:
        try:
            raise failures[0]
        finally:
            failures.clear()  # they refer to this frame, which refers to the arrays


def _take_shares(
    waiting: deque[list[Pair]],
    work: Callable[[list[Pair]], None],
    failures: list[BaseException],
    ended: Semaphore,
) -> None:
    """Copy what nobody else has begun, until there is nothing left; say of each share that it is over."""
    while True:
        try:
            share = waiting.popleft()
        except IndexError:
            return
        try:
            work(share)
        except BaseException as error:  # an interrupt, too: others are still writing
            failures.append(error)
        del share  # the caller may release the memory then
        ended.release()


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
