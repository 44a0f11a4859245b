"""Which Unix sockets of processes are connected to which names. /proc/net/unix does not tell that."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path

_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBHIIIII")
_SOCKET = struct.Struct("=BBBBIII")
_ATTRIBUTE = struct.Struct("=HH")
_SOCK_DIAG, _BY_FAMILY, _DUMP, _DONE = 4, 20, 0x301, 3
_SHOW_NAME_AND_PEER = 1 | 4
_NAME, _PEER = 0, 2
_ESTABLISHED = 1


def _sockets() -> dict[int, tuple[int, bytes, int]]:
    """State, name and inode of the peer of each Unix socket of this network namespace, by inode."""
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW_NAME_AND_PEER, 0, 0)
    found: dict[int, tuple[int, bytes, int]] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as sock:
        sock.send(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _DUMP, 1, 0) + request)
        while True:
            data = sock.recv(1 << 20)
            while data:
                length, kind, *_ = _HEADER.unpack_from(data)
                if kind == _DONE:
                    return found
                body, data = data[_HEADER.size : length], data[-(-length // 4) * 4 :]
                _, _, state, _, inode, *_ = _SOCKET.unpack_from(body)
                attributes = dict(_attributes(body[_SOCKET.size :]))
                peer = struct.unpack("=I", attributes[_PEER])[0] if _PEER in attributes else 0
                found[inode] = state, attributes.get(_NAME, b""), peer


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        found.append((kind, data[_ATTRIBUTE.size : length]))
        data = data[-(-length // 4) * 4 :]
    return found


def links_to(name: bytes, pid: int) -> int:
    """How many sockets of a process are connected to a name."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(link)
            if target.startswith("socket:["):
                inodes.add(int(target[8:-1]))
    sockets = _sockets()
    peers = [sockets[inode][2] for inode in inodes if inode in sockets]
    return sum(1 for peer in peers if peer in sockets and sockets[peer][1] == name)


def connections_of(name: bytes) -> int:
    """How many connections a listener with this name has accepted."""
    return sum(1 for state, found, peer in _sockets().values() if found == name and state == _ESTABLISHED and peer)
