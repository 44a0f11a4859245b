"""Unix sockets between the ranks on one node (layer L3)."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable

from ..errors import LauncherError
from .agentsocket import is_own
from .loop import READ, Loop
from .pipes import UnixPipe

_WITHOUT_FILE = "@"
"""Begins a name without a file, as in /proc/net/unix; the system's own zero byte would not pass everywhere."""


_LONGEST_FOLDER = 70
"""A path of a Unix socket holds 108 bytes, and batch systems make long names for TMPDIR."""


class UnixListener:
    """A node leader's socket, in a folder that only its user can enter.

    Some file systems have no sockets (Lustre, FUSE), so several places are tried. The last is a name without a
    file, which Linux has: every user of the machine can connect to that, and both ends look who the other one is.

    Attributes:
        path: to be given to :func:`connect_unix`.

    Raises:
        LauncherError: there is no place for a socket.
    """

    def __init__(self) -> None:
        self._folder = ""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.path = self._bind()
        except LauncherError:
            self._sock.close()
            raise
        self._sock.listen(1024)
        self._sock.setblocking(False)
        self._loop: Loop | None = None

    def accept(self, loop: Loop, count: int, on_pipe: Callable[[UnixPipe], object]) -> None:
        """Give ``on_pipe`` the pipes of ``count`` ranks, then stop listening."""
        self._loop = loop
        left = count

        def ready(_events: int) -> None:
            nonlocal left
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            if not is_own(sock):
                sock.close()
                return
            left -= 1
            if not left:
                self.close()
            on_pipe(UnixPipe(sock))

        loop.register(self._sock, READ, ready)

    def _bind(self) -> str:
        problems: dict[str, str] = {}
        for base in dict.fromkeys([tempfile.gettempdir(), "/tmp", "/dev/shm", "/var/tmp"]):
            if len(base) >= _LONGEST_FOLDER:
                continue
            folder = ""
            try:
                folder = tempfile.mkdtemp(prefix="ipmpi", dir=base)
                path = os.path.join(folder, "s")
                self._sock.bind(path)
            except OSError as error:
                problems[base] = error.strerror or str(error)
                if folder:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            self._folder = folder
            return path
        if sys.platform == "linux":
            name = f"{_WITHOUT_FILE}ipmpi-{secrets.token_hex(16)}"
            with contextlib.suppress(OSError):
                self._sock.bind(_address(name))
                return name
        tried = "; ".join(f"{base}: {why}" for base, why in problems.items())
        raise LauncherError(
            f"no folder here takes the socket by which the ranks of this node talk ({tried}): set TMPDIR to a "
            "folder on a local disk"
        )

    def close(self) -> None:
        """Stop listening and remove the folder; pipes stay open."""
        if self._loop is not None:
            self._loop.unregister(self._sock)
        self._sock.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def _address(path: str) -> str:
    return path.replace(_WITHOUT_FILE, "\0", 1) if path.startswith(_WITHOUT_FILE) else path


def connect_unix(path: str) -> UnixPipe:
    """A pipe to the leader that listens at ``path``.

    Raises:
        LauncherError: another user's process listens there.
        OSError: nobody does.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(_address(path))
        if not is_own(sock):
            raise LauncherError(f"a process of another user listens at the address {path} of this node's leader")
    except BaseException:
        sock.close()
        raise
    return UnixPipe(sock)
