"""Bodies that pass through the controller, as streams, and those that begin or end in it.

Large results end here if the controller keeps them for clients that may come back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import limits
from ..errors import LocalProtocolError
from ..protocol.connection import Connection
from ..protocol.frames import Buffer, size_of
from ..protocol.messages import AnyMessage
from ..protocol.streams import BodyFile
from ..transport.bodyreceiver import BodyReceiver
from ..transport.transfers import Transfers
from .commands.router import Router
from .effects import Forward
from .sessions import PeerSession
from .stalled import Stalled
from .substitutes import send_instead

Kept = Callable[[Forward, bytes | None], object]
"""Called with what was forwarded, and its body; None instead of one that is too large to be kept."""


def send_whole(connection: Connection, message: AnyMessage, body: Sequence[Buffer]) -> None:
    """Send a message with a body in memory of any size."""
    size = size_of(list(body)) if body else 0
    if size <= limits.INLINE_BODY:
        connection.send(message, body)
        return
    stream = connection.send_streamed(message, size)
    for buffer in body:
        connection.feed(stream, buffer)


class _Heap:
    """Memory for a body that will be written as a whole; nothing of one that is too large."""

    def __init__(self, size: int) -> None:
        self.data = bytearray() if size <= limits.KEPT_RESULT else None

    def write(self, _at: int, data: memoryview) -> None:
        """Append a piece."""
        if self.data is not None:
            self.data += data

    def take(self, _at: int, _file: BodyFile) -> bool:
        """Return False: its bytes have to be written."""
        return False

    def segments(self, _lengths: Sequence[int]) -> list[Buffer]:
        """Return what there is."""
        return [] if self.data is None else [self.data]

    def close(self) -> None:
        """Free it."""
        self.data = None


def _kept_here(effect: Forward, kept: Kept) -> list[tuple[BodyReceiver, BodyReceiver]]:
    """Return the additional sink of a stream whose body the controller keeps."""
    if not effect.keep:
        return []
    memory = _Heap(effect.size)

    def complete(whole: BodyReceiver) -> None:
        del whole
        kept(effect, None if memory.data is None else bytes(memory.data))

    receiver = BodyReceiver([effect.size], memory, complete, lambda: None)
    return [(receiver, receiver)]


class Forwarding:
    """Carries out :class:`~ipmpi.controller.effects.Forward`.

    Args:
        ended: called with source and stream of each body that has ended, and whether it was complete.
        kept: see :data:`Kept`.
        began: called with source, stream, sinks and size of each stream that is being passed on.
    """

    def __init__(
        self,
        sessions: Mapping[int, PeerSession],
        transfers: Transfers,
        stalled: Stalled,
        router: Router,
        ended: Callable[[int, int, bool], None],
        kept: Kept,
        began: Callable[[PeerSession, int, Sequence[Any], int], None],
        log: Callable[[str], None],
    ) -> None:
        self._sessions = sessions
        self._transfers = transfers
        self._stalled = stalled
        self._router = router
        self._ended = ended
        self._kept = kept
        self._began = began
        self._log = log

    def give_up(self, key: int, stream: int) -> None:
        """Drop the rest of a reply that the client does not read."""
        self._router.give_up(key, stream)
        source = self._sessions.get(key)
        if source is None or not self._transfers.give_up(source, stream):
            if source is not None:
                source.refuse(stream)
            self._ended(key, stream, False)

    def forward(self, effect: Forward) -> None:
        """Pass a body on to all its sinks that are there."""
        if any(key in self._stalled for key, _ in effect.sinks):
            self.give_up(effect.source, effect.stream)
            return
        source = self._sessions.get(effect.source)
        sinks: list[Any] = []
        for key, message in effect.sinks:
            session = self._sessions.get(key)
            if session is not None:
                try:
                    sinks.append((session, session.connection.send_streamed(message, effect.size)))
                except LocalProtocolError as error:
                    send_instead(session.connection, f"{session.role} {session.key}", message, error, self._log)
                    session.wake()
        if source is None:
            for session, stream in sinks:
                session.connection.abort(stream)
                session.wake()
            return
        sinks += _kept_here(effect, self._kept)
        origin = (effect.source, effect.stream)
        # Ranks have put a large answer into files; a client would have to copy its array for that.
        self._transfers.start(
            source, effect.stream, sinks, lambda complete: self._ended(*origin, complete),
            files=source.role == "engine",
        )  # fmt: skip
        self._began(source, effect.stream, sinks, effect.size)
