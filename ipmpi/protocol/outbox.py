"""What was sent and is not yet acknowledged (layer L1, sans-IO).

Frames are numbered in the order in which they go out, beginning with 1. The outbox keeps the buffers of each
until the peer has acknowledged it, so that a new link can go on where the old one broke. It copies nothing:
the chunks of an array are views of that array, and credit bounds how many of them can be under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..errors import RemoteProtocolError
from .frames import Buffer


class Outbox:
    """Numbered frames that wait for their acknowledgement."""

    def __init__(self) -> None:
        self._frames: deque[Sequence[Buffer]] = deque()
        self._acknowledged = 0

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def sent(self) -> int:
        """How many frames have been numbered so far."""
        return self._acknowledged + len(self._frames)

    def append(self, frame: Sequence[Buffer]) -> None:
        """Keep a frame that goes out now."""
        self._frames.append(frame)

    def acknowledge(self, received: int) -> None:
        """Forget the frames up to number ``received``."""
        if not self._acknowledged <= received <= self.sent:
            raise RemoteProtocolError(
                f"the peer acknowledges frame {received}; {self._acknowledged} to {self.sent} were possible"
            )
        while self._acknowledged < received:
            self._frames.popleft()
            self._acknowledged += 1

    def copy(self) -> None:
        """Replace views of others' arrays by copies."""
        for frame in self._frames:
            if isinstance(frame, list):  # in place: it may also wait to be sent again
                frame[:] = [bytes(buffer) if isinstance(buffer, memoryview) else buffer for buffer in frame]

    def unacknowledged(self) -> list[Sequence[Buffer]]:
        """The frames to send again on a new link, in order."""
        return list(self._frames)
