"""Unix sockets between the ranks on one node (layer L3)."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable

from .loop import READ, Loop
from .pipes import UnixPipe

_UCRED = struct.Struct("3i")


class UnixListener:
    """A node leader's socket, in a folder that only its user can enter.

    A path of a Unix socket holds 108 bytes, and batch systems make long names for TMPDIR; so the folder has a
    short name, below /tmp if TMPDIR's is too long.
    """

    def __init__(self) -> None:
        base = tempfile.gettempdir()
        self._folder = tempfile.mkdtemp(prefix="ipmpi", dir=base if len(base) < 70 else "/tmp")
        self.path = os.path.join(self._folder, "s")
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.bind(self.path)
        self._sock.listen(1024)
        self._sock.setblocking(False)
        self._loop: Loop | None = None

    def accept(self, loop: Loop, count: int, on_pipe: Callable[[UnixPipe], None]) -> None:
        """Give ``on_pipe`` the pipes of ``count`` ranks, then stop listening."""
        self._loop = loop
        left = count

        def ready(_events: int) -> None:
            nonlocal left
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            if not _is_own(sock):
                sock.close()
                return
            left -= 1
            if not left:
                self.close()
            on_pipe(UnixPipe(sock))

        loop.register(self._sock, READ, ready)

    def close(self) -> None:
        """Stop listening and remove the folder; pipes stay open."""
        if self._loop is not None:
            self._loop.unregister(self._sock)
        self._sock.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _is_own(sock: socket.socket) -> bool:
    """Whether the process at the other end runs under our user (the folder keeps others out as well)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, user, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return bool(user == os.geteuid())


def connect_unix(path: str) -> UnixPipe:
    """A pipe to the leader that listens at ``path``."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    return UnixPipe(sock)
