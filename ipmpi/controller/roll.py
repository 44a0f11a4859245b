"""Which engines there are, as clients are told it (no I/O).

Every client knows without asking. A session begins with all of them; after that it hears of those that came and
those that are gone.
"""

from __future__ import annotations

from ..protocol.messages import EnginesChanged
from .registry import Registry


class Roll:
    """What clients have been told of the engines in a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._told: set[int] = set()

    def whole(self) -> EnginesChanged:
        """For a client that begins: all that the others have been told."""
        return EnginesChanged(sorted(self._told), [])

    def news(self) -> EnginesChanged | None:
        """For all clients: what has changed since this was called before; None if nothing has."""
        now = self._registry.engines.keys()
        came, gone = sorted(now - self._told), sorted(self._told - now)
        if not came and not gone:
            return None
        self._told = set(now)
        return EnginesChanged(came, gone)
