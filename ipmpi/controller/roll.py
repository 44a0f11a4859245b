"""Updates to clients about the registered engines (no I/O).

A session begins with the ids of all engines; after that, it gets the changes.
"""

from __future__ import annotations

from ..ids import NONE, IdSet
from ..protocol.messages import EnginesChanged
from .registry import Registry


class Roll:
    """The engine ids that were sent to clients."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._told = IdSet()

    def whole(self) -> EnginesChanged:
        """Return the first message of a session: the ids that the other clients have."""
        return EnginesChanged(self._told.ids(), NONE)

    def news(self) -> EnginesChanged | None:
        """Return the changes since the last call, for all clients; None if there are none."""
        now = self._registry.ids()
        came, gone = IdSet(now), self._told.ids()
        came.remove(gone)
        self._told.remove(now)
        gone, self._told = self._told.ids(), IdSet(now)
        return EnginesChanged(came.ids(), gone) if came or gone else None
