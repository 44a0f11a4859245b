"""A body that comes by TLS and goes on to a process of this machine: it is put together in a file in memory.

The receiver is handed the file when it is complete. So the bytes are copied once, into the file, instead of
through a socket and then by the receiver as well, and the three processes that one body keeps busy do not wait for
each other. The memory is what the receiver would take for the same body.
"""

from __future__ import annotations

import contextlib

from .. import limits
from ..memory import available_bytes
from ..protocol.connection import Connection
from ..protocol.frames import Buffer
from ..protocol.relay import SinkStream
from ..protocol.streams import BodyFile, LanePart, OutgoingStream
from .filewriting import FileWriting, begin_file
from .timedpool import TimedPool

_STEP = limits.STREAM_WINDOW // 4


def _room() -> int:
    """Bytes that a body may have whose file is used once."""
    return available_bytes() // 2


class Landing:
    """The sink of a relay in the place of a stream to a process of this machine.

    It asks for nothing before the receiver has given its first credit, so that one that does not listen holds up
    the sender as ever. If the receiver takes no files, or there is no memory for one, it passes on what comes.

    Attributes:
        id: that of the stream.
        files: whether it takes files; what comes by TLS is none.
    """

    files = False

    def __init__(self, connection: Connection, stream: OutgoingStream, pool: TimedPool) -> None:
        self.id = stream.id
        self._connection = connection
        self._stream = stream
        self._pool = pool
        self._file: FileWriting | None = None
        self._written = 0
        self._has_begun = False
        self._granted = 0

    @property
    def credit(self) -> int:
        """How much may come: before and without a file, what the receiver has asked for."""
        if not self._has_begun and self._stream.credit:
            self._has_begun = True
            if self._stream.files and self._connection.files is not None:
                with contextlib.suppress(OSError):
                    self._file = begin_file(self._pool, self._stream.total, sealed=True, room=_room)
        if self._file is not None and self._granted - self._written <= limits.STREAM_WINDOW - _STEP:
            self._granted = min(self._stream.total, self._written + limits.STREAM_WINDOW)
        return max(self._granted, self._stream.credit)

    def feed(self, _stream: SinkStream, data: Buffer | BodyFile | LanePart) -> None:
        """Store a piece, or pass it on."""
        if self._file is not None:
            if isinstance(data, bytes | bytearray | memoryview) and self._write(self._file, data):
                if self._written == self._stream.total:
                    self._hand_over()
                return
            self._hand_over()
        self._connection.feed(self._stream, data)

    def _write(self, file: FileWriting, data: Buffer) -> bool:
        """Write a piece; False if there is no room for all of it, and then it does not count."""
        try:
            file.write(self._written, data)
        except OSError:
            return False
        self._written += len(data)
        return True

    def _hand_over(self) -> None:
        """Pass on what there is: all, or what there was memory for."""
        file, self._file = self._file, None
        if file is not None and self._written:
            self._connection.feed(self._stream, file.finish(self._written))
        elif file is not None:
            file.give_up()

    def abort(self, _stream: SinkStream) -> None:
        """The rest will not come."""
        self.close()
        self._connection.abort(self._stream)

    def close(self) -> None:
        """Nobody wants the body."""
        if self._file is not None:
            self._file.give_up()
            self._file = None
