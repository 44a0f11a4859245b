"""Packets between a rank and the agent of its node: a Unix socket that keeps them whole. And the rank's end.

The rank's end is where its main thread sleeps. The agent's end, which never blocks, is
:class:`ipmpi.transport.packetlink.PacketLink`: it needs a loop, and ranks load none. Open files go along with
packets. A packet that is larger than :data:`PACKET` goes as a file in memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import socket
import struct
from typing import Final

from .. import limits
from .memoryfile import in_memory as in_memory

PACKET: Final = 96 * limits.KIB
"""A socket takes packets up to its send buffer, by default 208 KiB with what the kernel adds."""

_IN_MEMORY: Final = b"\0\0\0\0"
"""A packet that is nothing but this (a header has bytes) is in the file that comes with it."""
_FD = struct.Struct("i")
_ANCILLARY: Final = socket.CMSG_SPACE(4 * _FD.size)
_FLAGS: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_QUIET: Final = getattr(socket, "MSG_NOSIGNAL", 0)
"""No SIGPIPE when the other end is gone: programs in C do not ignore that signal."""

_HIGH: Final = 960
"""Above the files that MPI and most programs open, and below the 1,024 that a process has by default."""

Socket = socket.socket
"""For those who only pass one on."""

Packet = tuple[bytes, list[int]]
"""The bytes, and the descriptors that came along; whoever takes it closes them."""


def stream_pair() -> tuple[Socket, Socket]:
    """Two connected sockets of this process, for bytes."""
    return socket.socketpair()


def packet_pair() -> tuple[Socket, Socket]:
    """Two connected sockets of this process, for packets."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def contents(descriptor: int) -> bytes:
    """All bytes of a file in memory."""
    size = os.fstat(descriptor).st_size
    if not size:
        return b""
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as memory:
        return bytes(memory)


def send_packet(sock: socket.socket, data: bytes, files: list[int]) -> None:
    """Send one packet, and leave the files to the caller."""
    if len(data) <= PACKET:
        _send_small(sock, data, files)
        return
    whole = in_memory([data], "ipmpi-packet")
    try:
        _send_small(sock, _IN_MEMORY, [whole, *files])
    finally:
        os.close(whole)


def _send_small(sock: socket.socket, data: bytes, files: list[int]) -> None:
    if files:
        rights = b"".join(map(_FD.pack, files))
        sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], _QUIET)
    else:
        sock.send(data, _QUIET)


def receive_packet(sock: socket.socket, space: memoryview | None = None) -> Packet | None:
    """The next packet, by way of ``space`` if that is given; None at the end."""
    if space is None:
        data, attached, _, _ = sock.recvmsg(PACKET, _ANCILLARY, _FLAGS)
    else:
        size, attached, _, _ = sock.recvmsg_into((space,), _ANCILLARY, _FLAGS)
        data = bytes(space[:size])
    files: list[int] = []
    for level, kind, content in attached:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            files.extend(_FD.unpack_from(content, at)[0] for at in range(0, len(content), _FD.size))
    if not data:
        close_files(files)
        return None
    if data == _IN_MEMORY and files:
        whole = files.pop(0)
        try:
            data = contents(whole)
        finally:
            os.close(whole)
    return data, files


def close_files(files: list[int]) -> None:
    """Close all of them, as far as they are open."""
    for descriptor in files:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _with_high_number(sock: socket.socket) -> socket.socket:
    """The same socket, as the last file of this process where that can be.

    When a process dies, Linux closes its files from the last one down. A launcher that sees its own socket to a
    rank closed kills the others within a millisecond, and the agent shall know by then which was the first.
    """
    with contextlib.suppress(OSError, ValueError):
        high = fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        sock.close()
        return socket.socket(fileno=high)
    return sock


class RankSocket:
    """The rank's end: its main thread sleeps here.

    Attributes:
        received: packets that have been received.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = _with_high_number(sock)
        # Made once: the rank hears its agent also when user code has taken all memory that it may have.
        self._space = memoryview(bytearray(PACKET))
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)
        self.received = 0

    def send(self, packet: bytes, files: tuple[int, ...] = ()) -> bool:
        """Send a packet, with copies of open files; False if the agent is gone. Also for signal handlers."""
        try:
            send_packet(self._sock, packet, list(files))
        except OSError:
            return False
        return True

    def try_send(self, packet: bytes) -> bool:
        """As :meth:`send`, but do not wait if the agent does not read: then it is False, and nothing is sent."""
        try:
            self._sock.send(packet, _QUIET | socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    def wait(self, milliseconds: int | None = None) -> bool:
        """Return when there is a packet, or the agent is gone (False: when the time is up).

        An exception of a signal handler ends the wait.
        """
        return bool(self._poll.poll(milliseconds))

    def receive(self) -> Packet | None:
        """The next packet; None if the agent is gone. Not to be ended by an exception of a signal handler."""
        try:
            packet = receive_packet(self._sock, self._space)
        except OSError:
            return None
        self.received += 1
        return packet

    def abandon(self) -> None:
        """Let go of the socket without touching the connection, in a forked child."""
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            os.dup2(nothing, self._sock.fileno(), inheritable=False)
        os.close(nothing)

    def wait_for_end(self, seconds: float) -> None:
        """Return when the agent is gone, or after so many seconds."""
        with contextlib.suppress(OSError):
            self._sock.settimeout(seconds)
            while receive_packet(self._sock, self._space) is not None:
                pass

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
