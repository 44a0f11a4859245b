"""Notices that clients print on standard error."""

from __future__ import annotations

import sys
import threading
import time
from typing import Final

_AGAIN: Final = 5.0
"""Seconds in which the same notice is not repeated: a program often has two clients, of engines and of tasks."""

_lock = threading.Lock()
_said: dict[str, float] = {}


def say(text: str) -> None:
    """Print a notice, unless another client of this process has just printed it."""
    now = time.monotonic()
    with _lock:
        for old in [old for old, when in _said.items() if now - when > _AGAIN]:
            del _said[old]
        if text in _said:
            return
        _said[text] = now
    print(f"ipmpi: {text}", file=sys.stderr, flush=True)
