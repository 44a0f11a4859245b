"""What clients say unasked, on standard error."""

from __future__ import annotations

import sys
import threading
import time
from typing import Final

_AGAIN: Final = 5.0
"""Seconds in which the same sentence is not said again: a program often has a client for engines and one for
tasks, and both are told."""

_lock = threading.Lock()
_said: dict[str, float] = {}


def say(text: str) -> None:
    """Print a sentence, unless another client of this process has just done so."""
    now = time.monotonic()
    with _lock:
        for old in [old for old, when in _said.items() if now - when > _AGAIN]:
            del _said[old]
        if text in _said:
            return
        _said[text] = now
    print(f"ipmpi: {text}", file=sys.stderr, flush=True)
