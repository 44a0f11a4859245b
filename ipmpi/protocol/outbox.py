"""What was sent and is not yet acknowledged (sans-IO).

Frames are numbered in the order in which they go out, beginning with 1. The outbox keeps the buffers of each
until the peer has acknowledged it, so that a new link can go on where the old one broke. Unless it is told to
(:meth:`Outbox.detach`), it copies nothing: the chunks of an array are views of that array.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from ..errors import RemoteProtocolError
from .frames import Buffer


class Outbox:
    """Numbered frames that wait for their acknowledgement."""

    def __init__(self) -> None:
        self._frames: deque[tuple[Sequence[Buffer], int]] = deque()
        self._acknowledged = 0
        self._detached = 0
        self.size = 0
        """Bytes of all frames that wait."""

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def sent(self) -> int:
        """How many frames have been numbered so far."""
        return self._acknowledged + len(self._frames)

    def append(self, frame: Sequence[Buffer], size: int) -> None:
        """Keep a frame of ``size`` bytes that goes out now."""
        self._frames.append((frame, size))
        self.size += size

    def acknowledge(self, received: int) -> None:
        """Forget the frames up to number ``received``."""
        if not self._acknowledged <= received <= self.sent:
            raise RemoteProtocolError(
                f"the peer acknowledges frame {received}; {self._acknowledged} to {self.sent} were possible"
            )
        while self._acknowledged < received:
            self.size -= self._frames.popleft()[1]
            self._acknowledged += 1

    def is_free(self, number: int) -> bool:
        """Whether the memory that frame ``number`` was made of is not needed any more."""
        return min(number, self.sent) <= max(self._acknowledged, self._detached)

    def detach(self) -> None:
        """Copy the frames that wait, so that the memory they were made of is free."""
        self._frames = deque((copied(frame), size) for frame, size in self._frames)
        self._detached = self.sent

    def withdraw(self, is_withdrawn: Callable[[Sequence[Buffer]], bool]) -> None:
        """Forget some of the frames that wait, and so that they were numbered. Only between two links."""
        frames = [(frame, size) for frame, size in self._frames if not is_withdrawn(frame)]
        self._frames = deque(frames)
        self.size = sum(size for _, size in frames)

    def unacknowledged(self) -> list[Sequence[Buffer]]:
        """The frames to send again on a new link, in order."""
        return [frame for frame, _ in self._frames]


def copied(frame: Sequence[Buffer]) -> Sequence[Buffer]:
    """A frame in memory of its own."""
    return [bytes(part) if isinstance(part, memoryview) else part for part in frame]
