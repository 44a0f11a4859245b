"""Where the agent of a node accepts its ranks."""

from __future__ import annotations

import socket
from collections.abc import Callable

from .agentsocket import is_own
from .loop import READ, Loop


class AgentListener:
    """The agent's end: accepts the ranks of its node.

    Args:
        descriptor: of the listening socket.
        on_rank: called with the socket of each process of our user that connects.
    """

    def __init__(self, loop: Loop, descriptor: int, on_rank: Callable[[socket.socket], None]) -> None:
        self._loop = loop
        self._on_rank = on_rank
        self._sock = socket.socket(fileno=descriptor)
        self._sock.setblocking(False)
        loop.register(self._sock, READ, self._ready)

    def _ready(self, _events: int) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return
        if is_own(sock):
            self._on_rank(sock)
        else:
            sock.close()

    def close(self) -> None:
        """Listen no more."""
        self._loop.unregister(self._sock)
        self._sock.close()
