"""Debugpy in one rank, in its node agent: attached for one channel of a client at a time.

The rank listens nowhere. It is asked by its control block and the signal of interrupts, which Python hears between
two instructions of the main thread, whatever runs there. Then it makes a pair of connected sockets, and sends
one of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Final

from ... import limits
from ...protocol import messages as m, rankmessages as rm
from ...shortage import FILES_FOR_ENGINES
from ...transport.bytestream import ByteStream
from ...transport.loop import Loop
from ..rank.controlblock import DEBUGGER, DEBUGGER_HEARD, ControlBlock

_FULL: Final = f"the engine has too many open files: close some there, or {FILES_FOR_ENGINES}"
_AGAIN: Final = 0.05
_AGAIN_LONGEST: Final = 60.0
"""Seconds after which a rank that has not reacted is told again; then doubled. Python remembers one signal; only
while it imports something, or hears its agent, it needs another. Each one ends a sleep of C code early."""


class DebugPort:
    """The agent's end of the connection.

    Args:
        rank: its number in the set.
        block: the memory shared with it.
        send_signal: sends it the signal of interrupts.
        is_there: whether its socket is open.
    """

    def __init__(
        self,
        loop: Loop,
        rank: int,
        block: ControlBlock,
        send_signal: Callable[[], None],
        is_there: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._rank = rank
        self._block = block
        self._send_signal = send_signal
        self._is_there = is_there
        self._channel = 0
        """The channel that it serves; 0 for none."""
        self._number = 0
        """Of the last connection."""
        self._stream: ByteStream | None = None
        self._send_up: Callable[[m.AnyMessage], object] = lambda message: None
        self._repeats = False

    def heard(self, message: m.ChannelMessage, send_up: Callable[[m.AnyMessage], object]) -> None:
        """Handle a message from above; one of a channel that is closed is ignored. Channel 0 stands for any."""
        self._send_up = send_up
        if isinstance(message, m.DebugOpen):
            self._open(message.channel)
        elif message.channel not in (0, self._channel):
            return
        elif isinstance(message, m.DebugClosed):
            self.close()
        elif isinstance(message, m.DebugBytes) and self._stream is not None:
            self._stream.write(message.data)
        elif isinstance(message, m.DebugCredit) and self._stream is not None:
            self._stream.grant(message.size)

    def _open(self, channel: int) -> None:
        self.close()  # one of a former controller
        self._channel = channel
        self._number += 1
        self._want(self._number)

    def attached(self, message: rm.DebuggerAttached, descriptor: int) -> None:
        """The rank has attached debugpy, or has not; ``descriptor`` is that of its socket, which is taken."""
        is_wanted = self._channel and message.number == self._number
        if not is_wanted or message.trouble or descriptor < 0:
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
            if is_wanted:
                self._ended(message.trouble or _FULL)
            else:  # it had heard of this connection before that was closed
                self._want(self._block.words[DEBUGGER])
            return
        channel, rank = self._channel, self._rank
        self._send_up(m.DebugOpened(channel, rank, message.folder[: limits.LINE]))
        self._stream = ByteStream(
            self._loop,
            descriptor,
            lambda data: self._send_up(m.DebugBytes(channel, rank, data)),
            lambda size: self._send_up(m.DebugCredit(channel, rank, size)),
            lambda: self._ended("debugpy in the engine has closed the connection: connect the editor again"),
        )
        self._stream.grant(limits.DEBUG_WINDOW)

    def _ended(self, reason: str) -> None:
        self._send_up(m.DebugClosed(self._channel, self._rank, reason[: limits.SSH_TEXT]))
        self.close()

    def close(self) -> None:
        """Detach debugpy: the rank forgets its breakpoints and goes on."""
        if not self._channel:
            return
        self._channel = 0
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        self._want(0)

    def _want(self, number: int) -> None:
        self._block.words[DEBUGGER] = number
        self._block.fence()
        if self._has_reacted():
            return
        self._send_signal()
        if not self._repeats:
            self._repeats = True
            self._loop.call_later(_AGAIN, lambda: self._again(_AGAIN))

    def _has_reacted(self) -> bool:
        words = self._block.words
        return bool(words[DEBUGGER_HEARD] == words[DEBUGGER]) or not self._is_there()

    def _again(self, delay: float) -> None:
        if self._has_reacted():
            self._repeats = False
            return
        self._send_signal()
        delay = min(2 * delay, _AGAIN_LONGEST)
        self._loop.call_later(delay, lambda: self._again(delay))
