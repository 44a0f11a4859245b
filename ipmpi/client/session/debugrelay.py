"""Editors on this machine, connected to debugpy in an engine: what ``ipcluster debug`` runs.

Listens on this machine's loopback interface. The first connection of an editor opens a channel to the engine;
others are closed at once while it lasts.
"""

from __future__ import annotations

import concurrent.futures
import enum
import queue
from collections.abc import Callable
from typing import NamedTuple

from ... import limits
from ...protocol import messages as m
from ...transport.bytestream import ByteStream, LoopbackServer
from ...transport.packets import Socket
from .session import Session


class Happened(enum.Enum):
    """What a relay tells."""

    WANTED = "debugpy is being attached"
    ATTACHED = "debugpy is attached"
    DETACHED = "it was detached, and the engine goes on"
    FAILED = "it could not be attached, or was detached by the other end"
    REFUSED = "another connection was refused"
    OVER = "the session with the controller has ended"


class News(NamedTuple):
    """What has happened, and words for it: why, or for ATTACHED the current folder of the engine."""

    what: Happened
    words: str = ""


class DebugRelay:
    """The port, and the connection of one editor at a time.

    Thread-safety: :meth:`listen`, :meth:`try_out` and :meth:`close` are for other threads than the session's.

    Args:
        session: it is left open.
        engine: the id of the engine.

    Attributes:
        news: what happens.
    """

    def __init__(self, session: Session, engine: int) -> None:
        self._session = session
        self._engine = engine
        self._server: LoopbackServer | None = None
        self._connection: _Connection | None = None
        self.news: queue.SimpleQueue[News] = queue.SimpleQueue()

    def try_out(self) -> None:
        """Attach debugpy, and detach it: ATTACHED or FAILED tell whether that is possible."""
        self._session.post(lambda: self._begin(None), self._broken)

    def listen(self, port: int) -> int:
        """Accept editors; return the port.

        Raises:
            ClientError: the port cannot be had.
        """
        return self._in_thread(lambda: self._listen(port))

    def close(self) -> None:
        """Close port and connection: debugpy is detached."""
        if self._session.failure is None:
            self._in_thread(self._close)

    # --- in the session's thread -----------------------------------------------------------------------------

    def _in_thread(self, call: Callable[[], int]) -> int:
        done: concurrent.futures.Future[int] = concurrent.futures.Future()
        self._session.post(lambda: done.set_result(call()), done.set_exception)
        return done.result()

    def _broken(self, error: BaseException) -> None:
        self.news.put(News(Happened.FAILED, str(error)))

    def _listen(self, port: int) -> int:
        self._server = LoopbackServer(self._session.loop, port, self._came, self._refused)
        return self._server.port

    def _close(self) -> int:
        if self._server is not None:
            self._server.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        return 0

    def _came(self, sock: Socket) -> None:
        if self._connection is None:
            self._begin(sock)
        else:
            sock.close()
            self._refused("another connection was refused: one editor at a time")

    def _refused(self, why: str) -> None:
        self.news.put(News(Happened.REFUSED, why))

    def _begin(self, sock: Socket | None) -> None:
        self.news.put(News(Happened.WANTED))
        self._connection = _Connection(self._session, self._engine, sock, self._tell)

    def _tell(self, what: Happened, words: str) -> None:
        if what is not Happened.ATTACHED:
            self._connection = None
        if self._session.failure is not None:
            what = Happened.OVER
        self.news.put(News(what, words))


class _Connection:
    """One editor and its channel; without an editor, the channel is closed as soon as it is open."""

    def __init__(
        self, session: Session, engine: int, sock: Socket | None, tell: Callable[[Happened, str], None]
    ) -> None:
        self._channels = session.debug_channels
        self._number = session.number()
        self._engine = engine
        self._tell = tell
        self._stream: ByteStream | None = None
        self._early: list[bytes] | None = []
        """What the editor has said before debugpy was attached: a channel has its credit from its opening on."""
        if sock is not None:
            self._stream = ByteStream(session.loop, sock, self._from_editor, self._taken, self._editor_gone)
            self._stream.grant(limits.DEBUG_WINDOW)
        self._channels.open(self._number, engine, self)

    # --- the editor ------------------------------------------------------------------------------------------

    def _from_editor(self, data: bytes) -> None:
        if self._early is not None:
            self._early.append(data)
        else:
            self._channels.send(m.DebugBytes(self._number, self._engine, data))

    def _taken(self, size: int) -> None:
        self._channels.send(m.DebugCredit(self._number, self._engine, size))

    def _editor_gone(self) -> None:
        self._channels.close(self._number, self._engine)
        self._tell(Happened.DETACHED, "")

    # --- the channel -----------------------------------------------------------------------------------------

    def opened(self, folder: str) -> None:
        """Debugpy is attached."""
        self._tell(Happened.ATTACHED, folder)
        if self._stream is None:
            self._editor_gone()
            return
        early, self._early = self._early or [], None
        for data in early:
            self._from_editor(data)

    def data(self, data: bytes) -> None:
        """Debugpy has said something."""
        if self._stream is not None:
            self._stream.write(data)

    def credit(self, size: int) -> None:
        """It has taken something."""
        if self._stream is not None:
            self._stream.grant(size)

    def closed(self, reason: str) -> None:
        """It is detached, or could not be attached."""
        if self._stream is not None:
            self._stream.finish()
        self._tell(Happened.FAILED, reason)

    def close(self) -> None:
        """Detach it, and disconnect the editor."""
        self._channels.close(self._number, self._engine)
        if self._stream is not None:
            self._stream.close()
