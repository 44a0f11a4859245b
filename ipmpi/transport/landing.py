"""A body that comes by TLS and goes on to a process of this machine: it is put together in a file in memory.

The receiver is handed the file when it is complete. So the bytes are copied once, into the file, instead of
through a socket and then by the receiver as well, and the three processes that one body keeps busy do not wait for
each other. The memory is what the receiver would take for the same body.
"""

from __future__ import annotations

from .. import limits
from ..protocol.connection import Connection
from ..protocol.frames import Buffer
from ..protocol.relay import SinkStream
from ..protocol.streams import BodyFile, LanePart, OutgoingStream
from .memoryfile import GrowingFile

_STEP = limits.STREAM_WINDOW // 4


class Landing:
    """The sink of a relay in the place of a stream to a process of this machine.

    It asks for nothing before the receiver has given its first credit, so that one that does not listen holds up
    the sender as ever. If the receiver takes no files, or there is no memory for one, it passes on what comes.

    Attributes:
        id: that of the stream.
        files: whether it takes files; what comes by TLS is none.
    """

    files = False

    def __init__(self, connection: Connection, stream: OutgoingStream) -> None:
        self.id = stream.id
        self._connection = connection
        self._stream = stream
        self._file: GrowingFile | None = None
        self._has_begun = False
        self._granted = 0

    @property
    def credit(self) -> int:
        """How much may come: before and without a file, what the receiver has asked for."""
        if not self._has_begun and self._stream.credit:
            self._has_begun = True
            if self._stream.files and self._connection.files is not None:
                self._file = GrowingFile.make()
        if self._file is not None and self._granted - self._file.size <= limits.STREAM_WINDOW - _STEP:
            self._granted = min(self._stream.total, self._file.size + limits.STREAM_WINDOW)
        return max(self._granted, self._stream.credit)

    def feed(self, _stream: SinkStream, data: Buffer | BodyFile | LanePart) -> None:
        """Store a piece, or pass it on."""
        if self._file is not None:
            if isinstance(data, bytes | bytearray | memoryview) and self._file.append(data):
                if self._file.size == self._stream.total:
                    self._hand_over()
                return
            self._hand_over()
        self._connection.feed(self._stream, data)

    def _hand_over(self) -> None:
        """Pass on what there is: all, or what there was memory for."""
        file, self._file = self._file, None
        if file is not None and file.size:
            self._connection.feed(self._stream, file.sealed())

    def abort(self, _stream: SinkStream) -> None:
        """The rest will not come."""
        self._connection.abort(self._stream)
