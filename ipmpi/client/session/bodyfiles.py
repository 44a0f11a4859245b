"""Bodies that go to a controller on this machine in files in memory.

A body is copied once, into a file whose descriptor travels to the ranks; they map it. It is copied in a thread of
its own when its receiver gives credit, so until then it stays in the memory of the caller, as over TCP. Files that
no receiver has any more are used again for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ... import limits
from ...protocol.connection import Connection, CreditReceived, Event, Prepared, StreamRefused
from ...protocol.frames import Buffer, size_of
from ...protocol.messages import AnyMessage
from ...protocol.streams import OutgoingStream
from ...transport.loop import Loop
from ...transport.memoryfile import MemoryFile
from ...transport.timedpool import TimedPool


class BodyFiles:
    """The large bodies of one session that have no credit yet. Only for the thread of its loop.

    Args:
        wake: called when something is to be sent.
        broken: called with what nobody foresaw.
    """

    def __init__(self, loop: Loop, wake: Callable[[], None], broken: Callable[[BaseException], object]) -> None:
        self._loop = loop
        self._wake = wake
        self._broken = broken
        self._waiting: dict[int, tuple[OutgoingStream, Sequence[Buffer]]] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._pool = TimedPool(loop, broken)

    def send(self, connection: Connection, message: AnyMessage | Prepared, body: Sequence[Buffer]) -> None:
        """Send a message, and its body when there is credit."""
        stream = connection.send_streamed(message, size_of(body))
        if connection.files is not None and stream.total >= limits.FILE_BODY:
            self._waiting[stream.id] = stream, body
        else:
            _feed(connection, stream, body)

    def handle(self, connection: Connection, event: Event) -> None:
        """Look at an event of the connection."""
        if isinstance(event, StreamRefused):
            self._waiting.pop(event.stream, None)
        elif isinstance(event, CreditReceived) and event.stream in self._waiting:
            stream, body = self._waiting.pop(event.stream)
            if stream.files and connection.files is not None:
                self._copy(connection, stream, body)
            else:
                _feed(connection, stream, body)

    def close(self) -> None:
        """Keep nothing."""
        self._waiting.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        self._pool.close()

    def _copy(self, connection: Connection, stream: OutgoingStream, body: Sequence[Buffer]) -> None:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(limits.FILLERS, "ipmpi-bodies")

        def copy() -> None:
            try:
                file = self._pool.file_with(body, stream.total)
            except Exception:  # no room for a file, or whatever else is wrong with it: in chunks, then
                file = None
            self._loop.call_threadsafe(lambda: self._copied(connection, stream, body, file), self._broken)

        self._threads.submit(copy)

    def _copied(
        self, connection: Connection, stream: OutgoingStream, body: Sequence[Buffer], file: MemoryFile | None
    ) -> None:
        if file is not None:
            connection.feed(stream, file)
        else:
            _feed(connection, stream, body)
        self._wake()
        self._pool.used()


def _feed(connection: Connection, stream: OutgoingStream, body: Sequence[Buffer]) -> None:
    for buffer in body:
        if size_of([buffer]):
            connection.feed(stream, buffer)
