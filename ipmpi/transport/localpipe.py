"""The pipe between two processes of one user on one machine: a Unix socket.

It carries no TLS. The kernel says which user the process at the other end has, and nobody else can read what is
sent. So that a proof of a secret is worth nothing on any other connection, as with TLS, the listener begins with a
number that it uses once. Files in memory travel along, as open descriptors.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from ..errors import SecurityError
from ..protocol.frames import Buffer, size_of
from ..protocol.streams import BodyFile, FileFrame
from .memoryfile import MemoryFile
from .peercredentials import is_certainly_own, peer_credentials
from .pipes import READ_SIZE, PipeClosed, closed_by, flush

_CHALLENGE: Final = 32
"""Bytes that the listener sends first."""
_LABEL: Final = b"ipmpi local"
_FD: Final = struct.Struct("i")
_ANCILLARY: Final = socket.CMSG_SPACE(_FD.size)
_FLAGS: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_TRUNCATED: Final = int(socket.MSG_CTRUNC)
"""A plain number: ``&`` of the module's enum runs in Python, and costs as much as the system call."""
_FILES: Final = 8
"""Files that may have come and not been asked for: each comes with the frame that announces it."""


def is_possible() -> bool:
    """Whether this system has sockets without a file, and tells who is at the other end."""
    return sys.platform == "linux"


class _Scratch(threading.local):
    """One buffer for each thread: what was read is copied out of it at once."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_SIZE))


_scratch = _Scratch()


class LocalPipe:
    """Plain bytes over a Unix socket between two processes of one user.

    Args:
        sock: a stream socket, which this closes.
    """

    kind = "local"
    records = 0

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._out: deque[memoryview] = deque()
        self._waiting: deque[FileFrame | deque[memoryview]] = deque()
        """Behind what is in ``_out``: frames with files, and what comes after each."""
        self.files: deque[BodyFile] = deque()
        self._heard = b""
        self._challenge = b""
        self.backlog = 0

    def fileno(self) -> int | None:
        """The socket's descriptor."""
        return self._sock.fileno()

    write_fileno = fileno

    @property
    def peer(self) -> str:
        """The other process, for logs."""
        try:
            found = peer_credentials(self._sock)
        except OSError:
            return "a closed connection"
        return "this machine" if found is None else f"this machine (process {found.pid})"

    # --- until it is secure

    def greet(self) -> None:
        """Send the number that is used once."""
        self._challenge = secrets.token_bytes(_CHALLENGE)
        self.send([self._challenge])

    def hear(self) -> bool:
        """Take in what has arrived; False when nothing has."""
        data = self.receive()
        self._heard += data
        return len(data) > 0

    def secure(self) -> bool:
        """Whether the listener's number is known at this end."""
        if not self._challenge and len(self._heard) >= _CHALLENGE:
            self._challenge, self._heard = self._heard[:_CHALLENGE], self._heard[_CHALLENGE:]
        return bool(self._challenge)

    def check_peer(self, fingerprint: bytes, now: float, where: str) -> None:
        """Raise SecurityError if a process of another user listens."""
        del fingerprint, now
        if not is_certainly_own(self._sock):
            raise SecurityError(f"a process of another user listens at {where}. Nothing was sent to it")

    def binding(self, fingerprint: bytes) -> bytes:
        """A hash of the certificate's and of the listener's number."""
        return hashlib.sha256(_LABEL + fingerprint + self._challenge).digest()

    def heard(self) -> Buffer:
        """What came behind the number."""
        data, self._heard = self._heard, b""
        return data

    # --- the pipe

    def receive(self) -> Buffer:
        """What has arrived."""
        view = _scratch.view
        try:
            count, attached, flags, _ = self._sock.recvmsg_into((view,), _ANCILLARY, _FLAGS)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            raise closed_by(error) from None
        if attached or flags & _TRUNCATED:
            self._take_files(attached, flags)
        if not count:
            raise PipeClosed("the other process closed the connection", orderly=True)
        return bytes(view[:count])

    def _take_files(self, attached: Sequence[tuple[int, int, bytes]], flags: int) -> None:
        for level, kind, content in attached:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                for at in range(0, len(content) - _FD.size + 1, _FD.size):
                    self.files.append(MemoryFile(_FD.unpack_from(content, at)[0]))
        if flags & _TRUNCATED:
            raise PipeClosed("a file came with a message, and no descriptor is left for it", orderly=False)
        if len(self.files) > _FILES:
            raise PipeClosed("files came that no message has announced", orderly=False)

    def send(self, buffers: Sequence[Buffer]) -> None:
        """Take buffers; small neighbours are joined."""
        small: list[Buffer] = []
        for buffer in buffers:
            if isinstance(buffer, FileFrame):
                if small:
                    self._take(b"".join(small))
                    small = []
                self._waiting += [buffer, deque()]
                continue
            if len(buffer) < 4096:
                small.append(buffer)
                continue
            if small:
                self._take(b"".join(small))
                small = []
            self._take(buffer)
        if small:
            self._take(b"".join(small))
        self.backlog += size_of(buffers)

    def _take(self, buffer: Buffer) -> None:
        if len(buffer):
            last = self._waiting[-1] if self._waiting else self._out
            assert not isinstance(last, FileFrame)
            last.append(memoryview(buffer))

    def flush(self) -> bool:
        """Give the socket what it takes."""
        while flush(self._sock.sendmsg, self._out, self._sent):
            if not self._waiting:
                return True
            if not self._send_file():
                return False
        return False

    def _send_file(self) -> bool:
        """Send the next frame with a file; False if the socket does not take it now."""
        frame = self._waiting[0]
        assert isinstance(frame, FileFrame)
        assert isinstance(frame.file, MemoryFile)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _FD.pack(frame.file.descriptor))]
        try:
            count = self._sock.sendmsg([frame], rights)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:  # also where too many files of this user are on their way
            raise closed_by(error) from None
        self._waiting.popleft()
        rest = self._waiting.popleft()
        assert not isinstance(rest, FileFrame)
        self._sent(count)
        self._out = rest
        if count < len(frame):
            self._out.appendleft(memoryview(frame)[count:])
        return True

    def _sent(self, count: int) -> None:
        self.backlog -= count

    def close(self) -> None:
        """Close the socket, after what it still takes."""
        try:
            self.flush()
        except PipeClosed:
            pass
        finally:
            self._sock.close()
            self.files.clear()
            self._waiting.clear()
