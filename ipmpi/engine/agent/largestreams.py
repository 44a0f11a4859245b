"""Large replies of a rank: from pieces in shared memory into a stream.

A piece is passed on as a file, or mapped. Its memory is returned to the rank when neither is needed any more: then
it was sent and acknowledged.
"""

from __future__ import annotations

import errno
import mmap
import os
import weakref
from collections.abc import Callable
from typing import Any

from ... import limits
from ...protocol import messages as m
from ...protocol.frames import Buffer
from ...protocol.streams import BodyFile
from ...transport.loop import Loop, Timer
from ...transport.memoryfile import MemoryFile
from ...transport.transfers import Endpoint

_LOOK = 1.0
"""Seconds between two checks whether a reply makes progress."""


class _OpenFiles:
    """How many more pieces this process may keep open; others are mapped."""

    room = limits.FILES_UNDER_WAY


_open_files = _OpenFiles()


class LargeAnswer:
    """One large reply.

    Args:
        sizes: bytes of its segments.
        freed: called with a number of bytes that the rank may use again.
        is_wanted: returns whether something waits for the rank.
    """

    def __init__(
        self,
        loop: Loop,
        sizes: list[int],
        freed: Callable[[int], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self.sizes = sizes
        self._freed = freed
        self._is_wanted = is_wanted
        self._left = sum(sizes)
        """Bytes that the rank has not sent yet."""
        self._waiting: list[Buffer | BodyFile] = []
        self._dropped = False
        self._above: Endpoint | None = None
        self._connection: Any = None
        self._stream: Any = None
        self._timer: Timer | None = None
        self._sent = -1
        self._moved_at = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether all of it has arrived from the rank."""
        return self._left <= 0

    def begin(
        self, above: Endpoint, message: m.Result | m.LargeTaskResult, tell: Callable[[m.AnyMessage], None]
    ) -> None:
        """Send it as the body of a message; ``tell`` is called with messages about its progress."""
        self._above = above
        self._connection = above.connection
        self._stream = self._connection.send_streamed(message, sum(self.sizes))
        if self._dropped:  # its rank is lost
            self._connection.abort(self._stream)
            above.wake()
            self._end()
            return
        waiting, self._waiting = self._waiting, []
        for piece in waiting:
            self._connection.feed(self._stream, piece)
        above.wake()
        if not self.is_complete:
            self._timer = self._loop.call_later(_LOOK, lambda: self._look(message, tell))

    def drop(self) -> None:
        """Discard it, including what has not arrived yet."""
        self._dropped = True
        self._waiting.clear()
        self._end()

    def break_off(self) -> None:
        """The rank is lost, so the rest will not arrive."""
        if self._stream is not None and not self.is_complete:
            self._connection.abort(self._stream)
            if self._above is not None:
                self._above.wake()
        self.drop()

    def _end(self) -> None:
        self._above = self._connection = self._stream = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def add(self, size: int, piece: Buffer | None, descriptor: int) -> None:
        """Add the next bytes: ``piece``, or an anonymous file, which may be closed afterwards."""
        if self._dropped or (self._above is not None and self._above.connection is not self._connection):
            self._freed(size)
        else:
            view = self._shared(size, descriptor) if piece is None else self._copied(size, piece)
            if self._stream is None:
                self._waiting.append(view)
            else:
                self._connection.feed(self._stream, view)
                if self._above is not None:
                    self._above.wake()
        self._left -= size  # after the mapping, which may fail
        if self.is_complete and self._stream is not None:
            self._end()

    def _shared(self, size: int, descriptor: int) -> Buffer | BodyFile:
        """What is in the memory of the rank, as a file if the link above may carry that, else mapped."""
        if descriptor < 0:
            raise OSError(errno.EMFILE, "no descriptor is left for a piece of a large answer")
        if self._connection is not None and self._connection.files is not None and _open_files.room:
            _open_files.room -= 1
            return MemoryFile(os.dup(descriptor), size, lambda: self._close_file(size))
        # Private, although nothing is written: older kernels map sealed files in no other way.
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_POPULATE", 0)
        memory = mmap.mmap(descriptor, size, flags=flags, prot=mmap.PROT_READ)
        weakref.finalize(memory, self._give_back, size).atexit = False
        return memoryview(memory)

    def _close_file(self, size: int) -> None:
        _open_files.room += 1
        self._give_back(size)

    def _copied(self, size: int, piece: Buffer) -> Buffer:
        self._freed(size)
        return bytes(piece)

    def _give_back(self, size: int) -> None:
        self._loop.call_soon(lambda: self._freed(size))

    def _look(self, message: m.Result | m.LargeTaskResult, tell: Callable[[m.AnyMessage], None]) -> None:
        """The rank waits for room: check the progress of its reply, if something waits for the rank."""
        now = self._loop.now()
        if self._stream is None or self._above is None:
            return
        if self._above.connection is not self._connection:  # a new controller: no client waits for it
            self.drop()
            return
        if self._stream.sent != self._sent or not self._is_wanted():
            self._sent, self._moved_at = self._stream.sent, now
        elif now - self._moved_at >= limits.ANSWER_STUCK:
            self._moved_at = now  # report it again after the same time
            tell(_stuck(message))
        self._timer = self._loop.call_later(_LOOK, lambda: self._look(message, tell))


def _stuck(message: m.Result | m.LargeTaskResult) -> m.AnswerStuck:
    """Return the message about a reply that makes no progress."""
    if isinstance(message, m.LargeTaskResult):
        return m.AnswerStuck(message.rank, 0, message.group, message.index)
    return m.AnswerStuck(message.engines[0], message.id)
