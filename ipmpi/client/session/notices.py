"""Notices that clients print on standard error."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final

_AGAIN: Final = 5.0
"""Seconds in which the same notice is not repeated: a program often has two clients, of engines and of tasks."""

_lock = threading.Lock()
_said: dict[str, float] = {}
_holders: list[HeldNotices] = []
"""Those who show notices now; the newest does."""


def say(text: str) -> None:
    """Print a notice, unless another client of this process has just printed it."""
    now = time.monotonic()
    with _lock:
        for old in [old for old, when in _said.items() if now - when > _AGAIN]:
            del _said[old]
        if text in _said:
            return
        _said[text] = now
        holder = next((each for each in reversed(_holders) if each.takes), None)
        if holder is not None:
            holder.texts.append(text)
    if holder is None:
        print(f"ipmpi: {text}", file=sys.stderr, flush=True)
    else:
        holder.wake()


class HeldNotices:
    """While this context manager is open, notices are left to its thread, which has a line on the screen.

    Printed by another thread, they would be appended to that line. Those that are left at the end are printed.

    Args:
        wake: called in any thread when there is one.

    Attributes:
        texts: the notices that are to be shown, oldest first.
        takes: whether it takes notices now; else they are printed as without it.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        self.texts: deque[str] = deque()
        self.takes = True

    def __enter__(self) -> HeldNotices:
        with _lock:
            _holders.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _lock:
            _holders.remove(self)
        while self.texts:
            print(f"ipmpi: {self.texts.popleft()}", file=sys.stderr, flush=True)
