"""How the ranks of a node find the process that carries their traffic: by the name of their launch.

The name is one without a file, which only Linux has: nothing is left behind when the process ends, and to take it
is atomic, so of all ranks that come at once exactly one starts the process. Every user of the machine can connect
to such a name or take it, so both ends look who the other one is. The agent's end is in
:mod:`ipmpi.transport.agentlistener`.
"""

from __future__ import annotations

import errno
import os
import pwd
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

from ..errors import LauncherError
from ..namedigest import digest_of
from .peercredentials import peer_credentials

STARTS_WITHIN: Final = 30.0
"""Seconds until a rank gives up. Between the two system calls for which it waits is no work, but a node may be
short of memory or the rank that makes them stopped, so leave it time."""

_AGAIN: Final = 0.002
"""Seconds between tries: to take the name and to listen are two system calls."""
_BACKLOG: Final = 4096
"""Ranks that connect before the first one is accepted; the kernel has a limit of its own."""
_LONGEST: Final = 107
"""Bytes of a name after the zero byte that begins it."""
_PREFIX: Final = "ipmpi-"


def meet_agent(name: str, start: Callable[[socket.socket], None], timeout: float = STARTS_WITHIN) -> socket.socket:
    """A connection to the agent process of a launch, which is started if it is not there.

    Args:
        name: the launch, from :func:`~ipmpi.engine.agent.launchid.launch_id`.
        start: called in exactly one of the ranks that come, to start a process that has this listening socket.
            This rank's own copy is closed afterwards.
        timeout: seconds to try.

    Returns:
        A blocking SOCK_SEQPACKET. The process at its other end is of our user; it need not have accepted yet.

    Raises:
        LauncherError: nobody listens in time, or another user's process does, or this system has no such sockets.
    """
    if sys.platform != "linux":
        raise LauncherError(f"engines run on Linux, and this is {sys.platform}: start them on a Linux machine")
    address = _address(name)
    deadline = time.monotonic() + timeout
    while True:
        listener = _take(address)
        if listener is not None:
            with listener:
                start(listener)
        found = _connect(address)
        if found is not None:
            return found
        if listener is not None:
            raise LauncherError(
                "the agent process of this node ended as soon as this rank had started it: its log says why "
                "(too little memory, or a limit on processes: ulimit -u)"
            )
        if time.monotonic() >= deadline:
            shown = address[1:].decode()
            raise LauncherError(
                f"no agent process of this node answered within {timeout:g} s at @{shown}: the rank that was to "
                "start it is stopped or stuck, or another program has taken that name (`grep "
                f"{shown} /proc/net/unix` shows whether anybody has). Stop all engines of this launch on this "
                "node and start them again"
            )
        time.sleep(_AGAIN)


def is_own(sock: socket.socket) -> bool:
    """Whether the process at the other end of a Unix socket runs under our user."""
    user = peer_user(sock)
    return user is None or user == os.geteuid()


def peer_user(sock: socket.socket) -> int | None:
    """Who connected, or who listened, at the other end of a Unix socket; None where the system does not tell."""
    found = peer_credentials(sock)
    return None if found is None else found.user


def _address(name: str) -> bytes:
    """Where the agent of a launch listens; long names, and those with odd characters, are shortened."""
    text = _PREFIX + name
    if len(text) > _LONGEST or not text.isascii() or not text.isprintable() or " " in text:
        digest = digest_of(name)
        head = "".join(c for c in name[:40] if c.isascii() and (c.isalnum() or c in "-.@"))
        text = f"{_PREFIX}{head}-{digest}"
    return b"\0" + text.encode()


def _take(address: bytes) -> socket.socket | None:
    """Listen at the address; None if somebody has it."""
    sock = _new_socket()
    try:
        sock.bind(address)
        sock.listen(_BACKLOG)
        return sock
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise _impossible(error) from error


def _connect(address: bytes) -> socket.socket | None:
    """Connect; None if nobody listens yet, or as many wait to be accepted as may."""
    sock = _new_socket()
    try:
        sock.setblocking(False)
        sock.connect(address)
        sock.setblocking(True)
    except OSError as error:
        sock.close()
        if error.errno in (errno.ECONNREFUSED, errno.EAGAIN, errno.EINTR):
            return None
        raise _impossible(error) from error
    if not is_own(sock):
        user = peer_user(sock)
        sock.close()
        raise LauncherError(
            f"a process of another user ({_user_name(user)}) listens at @{address[1:].decode()}, the name of this "
            "launch on this node. Start the engines again: the next launch has another name; and tell the "
            "administrator, as this does not happen by chance"
        )
    return sock


def _new_socket() -> socket.socket:
    """Not inherited by programs that are started, as all sockets that Python makes."""
    try:
        return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        raise _impossible(error) from error


def _impossible(error: OSError) -> LauncherError:
    return LauncherError(
        f"the processes of a node cannot talk by Unix sockets here: {error.strerror or error}. Engines need "
        "Linux, and a container must not forbid Unix sockets without a file (abstract ones)"
    )


def _user_name(user: int | None) -> str:
    try:
        return "unknown" if user is None else pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
