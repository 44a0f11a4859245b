"""Updates to clients about the registered engines (no I/O).

A session begins with the ids of all engines; after that, it gets the changes.
"""

from __future__ import annotations

from ..protocol.messages import EnginesChanged
from .registry import Registry


class Roll:
    """The engine ids that were sent to clients."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._told: set[int] = set()

    def whole(self) -> EnginesChanged:
        """Return the first message of a session: the ids that the other clients have."""
        return EnginesChanged(sorted(self._told), [])

    def news(self) -> EnginesChanged | None:
        """Return the changes since the last call, for all clients; None if there are none."""
        now = self._registry.engines.keys()
        came, gone = sorted(now - self._told), sorted(self._told - now)
        if not came and not gone:
            return None
        self._told = set(now)
        return EnginesChanged(came, gone)
