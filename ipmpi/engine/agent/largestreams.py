"""Large answers of a rank on their way up: from pieces in shared memory into a stream.

A piece is mapped, and its memory given back when the last view of it is gone: then it has left, and nobody will
ask for it again.
"""

from __future__ import annotations

import errno
import mmap
import weakref
from collections.abc import Callable
from typing import Any

from ... import limits
from ...protocol import messages as m
from ...protocol.frames import Buffer
from ...transport.loop import Loop, Timer
from ...transport.transfers import Endpoint

_LOOK = 1.0
"""Seconds between two looks whether an answer gets on."""


class LargeAnswer:
    """One large answer.

    Args:
        sizes: of its segments.
        freed: called with a number of bytes that the rank may use again.
        is_wanted: whether something waits for the rank.
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
        self._waiting: list[Buffer] = []
        self._dropped = False
        self._above: Endpoint | None = None
        self._connection: Any = None
        self._stream: Any = None
        self._timer: Timer | None = None
        self._sent = -1
        self._moved_at = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether all of it has come from the rank."""
        return self._left <= 0

    def begin(
        self, above: Endpoint, message: m.Result | m.LargeTaskResult, tell: Callable[[m.AnyMessage], None]
    ) -> None:
        """Send it as the body of a message; ``tell`` is called with what the controller is to hear of it."""
        self._above = above
        self._connection = above.connection
        self._stream = self._connection.send_streamed(message, sum(self.sizes))
        if self._dropped:  # its rank is gone
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
        """Nobody wants it: what has come and is to come is forgotten."""
        self._dropped = True
        self._waiting.clear()
        self._end()

    def break_off(self) -> None:
        """The rank is gone, and the rest will not come."""
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
        """The next bytes have come: here, or in a file in memory, which may be closed afterwards."""
        if self._dropped or (self._above is not None and self._above.connection is not self._connection):
            self._freed(size)
        else:
            view = self._mapped(size, descriptor) if piece is None else self._copied(size, piece)
            if self._stream is None:
                self._waiting.append(view)
            else:
                self._connection.feed(self._stream, view)
                if self._above is not None:
                    self._above.wake()
        self._left -= size  # now, as a piece that cannot be mapped has not come
        if self.is_complete and self._stream is not None:
            self._end()

    def _mapped(self, size: int, descriptor: int) -> Buffer:
        if descriptor < 0:
            raise OSError(errno.EMFILE, "no descriptor is left for a piece of a large answer")
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        memory = mmap.mmap(descriptor, size, flags=flags, prot=mmap.PROT_READ)
        weakref.finalize(memory, self._give_back, size).atexit = False
        return memoryview(memory)

    def _copied(self, size: int, piece: Buffer) -> Buffer:
        self._freed(size)
        return bytes(piece)

    def _give_back(self, size: int) -> None:
        self._loop.call_soon(lambda: self._freed(size))

    def _look(self, message: m.Result | m.LargeTaskResult, tell: Callable[[m.AnyMessage], None]) -> None:
        """The rank waits for room: see whether its answer gets on, if others wait for the rank."""
        now = self._loop.now()
        if self._stream is None or self._above is None:
            return
        if self._above.connection is not self._connection:  # a new controller: nobody waits for it
            self.drop()
            return
        if self._stream.sent != self._sent or not self._is_wanted():
            self._sent, self._moved_at = self._stream.sent, now
        elif now - self._moved_at >= limits.ANSWER_STUCK:
            self._moved_at = now  # and again after as long
            tell(_stuck(message))
        self._timer = self._loop.call_later(_LOOK, lambda: self._look(message, tell))


def _stuck(message: m.Result | m.LargeTaskResult) -> m.AnswerStuck:
    """What the controller is to hear of an answer that does not get on."""
    if isinstance(message, m.LargeTaskResult):
        return m.AnswerStuck(message.rank, 0, message.group, message.index)
    return m.AnswerStuck(message.engines[0], message.id)
