"""The packets that ranks of a node send are often equal, and are decoded once."""

from __future__ import annotations

from ...protocol import rankmessages as rm


class LastPacket:
    """A cache of the last decoded packet of any rank of a node."""

    def __init__(self) -> None:
        self._data = b""
        self._meaning: tuple[rm.ToAgent, memoryview] = rm.Bell(), memoryview(b"")

    def understood(self, data: bytes) -> tuple[rm.ToAgent, memoryview]:
        """Return the message of a packet and its inline body."""
        if data != self._data:
            self._meaning = rm.for_agent(data)
            self._data = data
        return self._meaning
