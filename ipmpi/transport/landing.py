"""A body that comes by TLS and goes on to a process of this machine: it is put together in a file in memory.

The receiver is handed the file when it is complete. So the bytes are copied once, into the file, instead of
through a socket and then by the receiver as well, and the three processes that one body keeps busy do not wait for
each other. The memory is what the receiver would take for the same body.
"""

from __future__ import annotations

import contextlib
import errno
import os

from .. import limits
from ..memory import available_bytes
from ..protocol.connection import Connection
from ..protocol.frames import Buffer
from ..protocol.relay import SinkStream
from ..protocol.streams import BodyFile, LanePart, OutgoingStream
from .memoryfile import MemoryFile, new_file, seal, write_all
from .timedpool import TimedPool

_STEP = limits.STREAM_WINDOW // 4


class _Body:
    """The file of one body; of the pool, or used once if it may keep none.

    Attributes:
        size: bytes that have been written.

    Raises:
        OSError: the system gives no file, or has too little memory for one of this size.
    """

    def __init__(self, pool: TimedPool, total: int) -> None:
        self.size = 0
        self._pool = pool
        self._writing = pool.begin(total)
        self._file: MemoryFile | None = None
        if self._writing is None:
            if total > available_bytes() // 2:  # a file in memory is not refused: a process is ended later
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            self._file = MemoryFile(new_file(sealed=True))

    def append(self, data: Buffer) -> bool:
        """Write a piece at the end; False if there is no room for all of it, and then nothing was added."""
        to = self._writing or self._file
        assert to is not None
        try:
            write_all(to.descriptor, [data], self.size)
        except OSError:
            return False
        self.size += len(data)
        return True

    def finish(self) -> MemoryFile:
        """What was written; nothing can be added any more."""
        if self._writing is not None:
            return self._pool.finish(self._writing, self.size)
        assert self._file is not None
        seal(self._file.descriptor, self.size)
        self._file.claim(self.size)
        return self._file

    def drop(self) -> None:
        """It is not needed."""
        if self._writing is not None:
            self._writing.give_up()


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
        self._file: _Body | None = None
        self._has_begun = False
        self._granted = 0

    @property
    def credit(self) -> int:
        """How much may come: before and without a file, what the receiver has asked for."""
        if not self._has_begun and self._stream.credit:
            self._has_begun = True
            if self._stream.files and self._connection.files is not None:
                with contextlib.suppress(OSError):
                    self._file = _Body(self._pool, self._stream.total)
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
            self._connection.feed(self._stream, file.finish())
        elif file is not None:
            file.drop()

    def abort(self, _stream: SinkStream) -> None:
        """The rest will not come."""
        self.close()
        self._connection.abort(self._stream)

    def close(self) -> None:
        """Nobody wants the body."""
        if self._file is not None:
            self._file.drop()
            self._file = None
