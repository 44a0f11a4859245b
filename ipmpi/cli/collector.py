"""Python's garbage collector in the process of a controller.

What the collector looks for are objects that refer to each other and that nobody else refers to. It looks at all
objects that are not new whenever their number has grown by a quarter, which takes half a second where 100,000
single tasks wait, and nothing else happens meanwhile. In a controller, only what belonged to a session refers to
itself when it is gone; commands, tasks and messages do not. So new objects are looked at in larger lots, and all
objects when many sessions have ended (``docs/decisions/0057-what-many-cost-a-controller.rst``).
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final, Protocol

_NEW: Final = 5_000
"""Objects that have been added since the last look at new ones: it takes a millisecond."""
_LOOKS: Final = 10
"""Looks at new objects until the next one at those of all these looks."""
_LOOKS_AT_THOSE: Final = 200
"""Such looks until the next one at all objects, whatever has happened: after ten million new objects."""

SESSIONS: Final = 64
"""Sessions whose objects may be left: some 50 KB each."""
_PAUSE: Final = 1.0
"""Seconds after the last of them: those who ended may have been followed by others."""


class _Loop(Protocol):
    def call_later(self, delay: float, call: Callable[[], object]) -> object:
        """Make a call after ``delay`` seconds."""


class Collector:
    """Decides when to collect garbage. To be made when all modules are loaded: these are never looked at again."""

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._gone = 0
        gc.collect()
        gc.freeze()
        gc.set_threshold(_NEW, _LOOKS, _LOOKS_AT_THOSE)

    def session_gone(self) -> None:
        """A session has ended."""
        self._gone += 1
        if self._gone == SESSIONS:
            self._loop.call_later(_PAUSE, self._collect)

    def _collect(self) -> None:
        self._gone = 0
        gc.collect()
