"""What the kernel says about the process at the other end of a Unix socket."""

from __future__ import annotations

import os
import socket
import struct
from typing import Final, NamedTuple

_UCRED: Final = struct.Struct("3i")
_NOBODY: Final = 65534
"""As whom the kernel shows users that a user namespace does not know, all of them."""


class PeerCredentials(NamedTuple):
    """Of who connected, or of who listened."""

    pid: int
    user: int


def peer_credentials(sock: socket.socket) -> PeerCredentials | None:
    """The process at the other end; None where the system does not tell. OSError if the socket is closed."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    pid, user, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return PeerCredentials(int(pid), int(user))


def is_certainly_own(sock: socket.socket) -> bool:
    """Whether the process at the other end runs under our user, and the kernel says so."""
    own, peer = os.geteuid(), peer_credentials(sock)
    return peer is not None and own != _NOBODY and peer.user == own
