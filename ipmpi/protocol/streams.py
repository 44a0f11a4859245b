"""What each end of a session knows of one stream (sans-IO)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from .. import limits
from ..errors import LocalProtocolError, RemoteProtocolError
from .frames import COUNT, PASSED, Buffer, FrameKind, prefix, size_of


class BodyFile(Protocol):
    """A part of a body in a file in memory, which another process of this machine can be given.

    Attributes:
        descriptor: of the open file; -1 for what only stands for one.
        size: how many bytes, from its beginning.
    """

    descriptor: int
    size: int

    def claim(self, size: int) -> None:
        """Take this as the size; raises RemoteProtocolError if the file is not what such a file has to be."""
        ...

    def part(self, at: int, size: int) -> memoryview:
        """Up to so many bytes from there, and at least one."""
        ...


class FileFrame(bytes):
    """A FILE frame, and the file that has to go with it."""

    file: BodyFile
    stream: OutgoingStream

    @classmethod
    def make(cls, stream: OutgoingStream, file: BodyFile) -> FileFrame:
        """The frame for the next bytes of a stream."""
        frame = cls(prefix(FrameKind.FILE, COUNT.size, stream.id) + COUNT.pack(file.size))
        frame.file, frame.stream = file, stream
        return frame


class LanePart(NamedTuple):
    """Bytes of a stream that go by a bulk lane: its number, that of the body there, and how many."""

    lane: int
    body: int
    size: int

    @classmethod
    def parsed(cls, payload: Buffer) -> LanePart:
        """What a PASSED frame says."""
        return cls(*PASSED.unpack(payload))

    def frame(self, stream: int) -> bytes:
        """The PASSED frame."""
        return prefix(FrameKind.PASSED, PASSED.size, stream) + PASSED.pack(*self)


class Carrier(Protocol):
    """The way of one stream by a bulk lane.

    Attributes:
        lane: the number of the lane.
    """

    lane: int

    @property
    def is_open(self) -> bool:
        """Whether it takes anything (more)."""
        ...

    def carry(self, parts: Sequence[memoryview], left: int) -> None:
        """Take the next bytes, of ``left`` that the stream still had."""
        ...

    def drop(self) -> None:
        """The stream was given up."""
        ...


class _Cursor:
    """How much of a file has been taken out of it."""

    __slots__ = ("at", "file")

    def __init__(self, file: BodyFile) -> None:
        self.file = file
        self.at = 0


class OutgoingStream:
    """Bulk data on its way out. ``credit`` counts all that the peer has ever granted, in bytes.

    ``last_frame`` is the number of the newest frame that has bytes of it. ``files`` says whether the peer takes
    files for it, and ``is_over`` that it was given up, or refused.
    """

    __slots__ = ("_queue", "carrier", "credit", "fed", "files", "id", "is_over", "last_frame", "sent", "total")

    def __init__(self, number: int, total: int, credit: int = 0) -> None:
        self.id = number
        self.total = total
        self.credit = credit
        self.fed = 0
        self.sent = 0
        self.last_frame = 0
        self.files = False
        self.is_over = False
        self.carrier: Carrier | None = None
        self._queue: deque[memoryview | _Cursor | LanePart] = deque()

    def feed(self, data: Buffer | BodyFile | LanePart) -> None:
        """Append data, to be sent when there is credit."""
        if isinstance(data, LanePart):
            self.fed += data.size
            self._queue.append(data)
        elif not isinstance(data, bytes | bytearray | memoryview):
            self.fed += data.size
            self._queue.append(_Cursor(data))
        elif size_of([data]):
            view = memoryview(data).cast("B")
            self.fed += len(view)
            self._queue.append(view)
        if self.fed > self.total:
            raise LocalProtocolError(
                f"stream {self.id} was given {self.fed} bytes; it was announced with {self.total}"
            )

    @property
    def ready(self) -> int:
        """Bytes that can go out now in chunks. A file may go as a whole if there are any."""
        return min(self.fed, self.credit) - self.sent

    def clear(self) -> None:
        """Hold on to nothing that was fed: the stream is given up."""
        self.is_over = True
        self._queue.clear()
        if self.carrier is not None:
            self.carrier.drop()

    def take_lane_part(self) -> LanePart | None:
        """What is next, if it goes by a bulk lane: passed on from another session, or carried from here."""
        first = self._queue[0]
        if isinstance(first, LanePart):
            self._queue.popleft()
            self.sent += first.size
            return first
        if self.carrier is None or not self.carrier.is_open:
            return None
        left = self.total - self.sent
        parts = self.take(min(self.ready, limits.STREAM_WINDOW))
        self.carrier.carry(parts, left)
        return LanePart(self.carrier.lane, self.id, size_of(parts))

    def take_file(self) -> BodyFile | None:
        """The file that is next, if one is, and nothing of it has been taken."""
        first = self._queue[0] if self._queue else None
        if not isinstance(first, _Cursor) or first.at:
            return None
        self._queue.popleft()
        self.sent += first.file.size
        return first.file

    def take(self, size: int, *, files: bool = False) -> list[memoryview]:
        """Views of the next ``size`` bytes; with ``files``, only of those before the next file."""
        taken: list[memoryview] = []
        while size:
            first = self._queue[0]
            if isinstance(first, LanePart):
                break
            if isinstance(first, _Cursor):
                if files and taken and not first.at:
                    break
                view = first.file.part(first.at, min(size, first.file.size - first.at))
                first.at += len(view)
                if first.at == first.file.size:
                    self._queue.popleft()
            elif len(first) <= size:
                view = first
                self._queue.popleft()
            else:
                view = first[:size]
                self._queue[0] = first[size:]
            size -= len(view)
            self.sent += len(view)
            taken.append(view)
        return taken

    def put_back(self, parts: Sequence[memoryview | BodyFile]) -> None:
        """Undo that these were taken: they are the next again."""
        for part in reversed(parts):
            self._queue.appendleft(part if isinstance(part, memoryview) else _Cursor(part))
            self.sent -= len(part) if isinstance(part, memoryview) else part.size


class IncomingStream:
    """Bulk data on its way in, as far as its sender may be believed.

    ``files``: they were asked for. ``lane``: by which it may come; 0 for none.
    """

    __slots__ = ("files", "granted", "lane", "received", "refused", "total")

    def __init__(self, total: int, granted: int = 0) -> None:
        self.total = total
        self.granted = granted
        self.received = 0
        self.refused = False
        self.files = False
        self.lane = 0

    def take(self, size: int, number: int, what: str) -> bool:
        """Count what comes beside the link, whose beginning must be in the credit; whether it is the last.

        Raises RemoteProtocolError if it is too much.
        """
        if self.received >= self.granted or not 0 < size <= self.total - self.received:
            raise RemoteProtocolError(f"{what} of {size} bytes for stream {number} that exceeds the credit given")
        self.received += size
        return self.received == self.total
