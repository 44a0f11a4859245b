"""What each end of a session knows of one stream (sans-IO)."""

from __future__ import annotations

from collections import deque

from ..errors import LocalProtocolError
from .frames import Buffer, size_of


class OutgoingStream:
    """Bulk data on its way out. ``credit`` counts all that the peer has ever granted, in bytes.

    ``last_frame`` is the number of the newest frame that has bytes of it.
    """

    __slots__ = ("_queue", "credit", "fed", "id", "last_frame", "sent", "total")

    def __init__(self, number: int, total: int, credit: int = 0) -> None:
        self.id = number
        self.total = total
        self.credit = credit
        self.fed = 0
        self.sent = 0
        self.last_frame = 0
        self._queue: deque[memoryview] = deque()

    def feed(self, data: Buffer) -> None:
        """Append data, to be sent when there is credit."""
        view = memoryview(data).cast("B") if size_of([data]) else memoryview(b"")
        self.fed += len(view)
        if self.fed > self.total:
            raise LocalProtocolError(
                f"stream {self.id} was given {self.fed} bytes; it was announced with {self.total}"
            )
        if len(view):
            self._queue.append(view)

    @property
    def ready(self) -> int:
        """Bytes that can go out now."""
        return min(self.fed, self.credit) - self.sent

    def clear(self) -> None:
        """Hold on to nothing that was fed: the stream is given up."""
        self._queue.clear()

    def take(self, size: int) -> list[memoryview]:
        """Views of the next ``size`` bytes."""
        taken = []
        self.sent += size
        while size:
            view = self._queue[0]
            if len(view) <= size:
                self._queue.popleft()
            else:
                self._queue[0] = view[size:]
                view = view[:size]
            size -= len(view)
            taken.append(view)
        return taken


class IncomingStream:
    """Bulk data on its way in, as far as its sender may be believed."""

    __slots__ = ("granted", "received", "refused", "total")

    def __init__(self, total: int, granted: int = 0) -> None:
        self.total = total
        self.granted = granted
        self.received = 0
        self.refused = False
