"""The socket of a listener: by one address, or by all of this machine's, of both families."""

from __future__ import annotations

import errno
import socket
import sys
import time
from typing import Final

from ... import limits
from ...errors import ControllerStartError
from ...furl import place
from ..tcptable import LISTENS, tcp_sockets
from .addresses import is_unspecified

_BACKLOG: Final = 1024
_PAUSE: Final = 0.05
_NO_FAMILY: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)
"""What the system says where it has no IPv6, or no IPv4."""


def listen(host: str, port: int) -> socket.socket:
    """Listen on one address, or with an unspecified one (``""``, ``0.0.0.0``, ``::``) on all.

    Of a name with several addresses, ``localhost`` for one, it is the first that this machine has. ``""`` and
    ``::`` mean IPv6 and IPv4, as far as there are any.

    A port that no program listens on, and that is taken by a connection to somewhere else, is waited for.

    Raises:
        ControllerStartError: the port is taken, or there is no such address here.
    """
    end = time.monotonic() + limits.PORT_WAIT
    while True:
        try:
            return _listen(host, port)
        except _Taken as taken:
            listens, connection = users(port)
            if listens:
                raise ControllerStartError(
                    f"port {port} is taken on {taken}. Stop the program that has it, choose another port, or "
                    "leave the port option out: then the system picks a free one and the furl files tell it to "
                    "everyone."
                ) from None
            if time.monotonic() >= end:
                raise ControllerStartError(
                    f"port {port} is taken on {taken}: no program listens there, but "
                    f"{connection or 'something that the system does not show'} has it, and still had it after "
                    f"{limits.PORT_WAIT:g} s. Start again when it has ended, or choose a port "
                    f"{_given_to_nobody()}."
                ) from None
        time.sleep(_PAUSE)


class _Taken(Exception):
    """The port is taken; its text is where."""


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ControllerStartError(f"port {port} is not between 1 and 65535 (0 or no option: a free one)")
    everywhere = is_unspecified(host)
    try:
        if everywhere:
            places = [(socket.AF_INET6, ("::", port)), (socket.AF_INET, ("0.0.0.0", port))]
            places = places if host in ("", "::") else [place for place in places if place[1][0] == host] or places
        elif host == "localhost":  # whatever /etc/hosts has for it
            places = [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
        else:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            places = [(entry[0], entry[4]) for entry in found]  # type: ignore[misc]
    except (OSError, UnicodeError) as error:
        raise ControllerStartError(f"cannot listen on {host!r}: {_said(error)}") from None
    failure: OSError | None = None
    for family, address in places:
        try:
            return _bound(family, address)
        except OSError as error:
            failure = failure or error
            if error.errno not in _NO_FAMILY:
                failure = error
                break
    assert failure is not None
    where = f"{'all interfaces' if everywhere else host}:{port}"
    if failure.errno == errno.EADDRINUSE:
        raise _Taken(where)
    raise ControllerStartError(f"cannot listen on {where}: {_said(failure)}")


def _bound(family: int, place: tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and place[0] == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(place)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def users(port: int, proc: str = "/proc") -> tuple[bool, str]:
    """Who has a port of this machine, at any of its addresses.

    Returns:
        Whether a program listens there, or the system does not say; and a connection that has it, if there is one.
    """
    sockets = tcp_sockets(proc)
    if sockets is None:
        return True, ""
    theirs = [each for each in sockets if int(each.here.rpartition(":")[2], 16) == port]
    connections = [each for each in theirs if each.state != LISTENS]
    named = [f"the connection {_address(each.here)} - {_address(each.there)}" for each in connections[-1:]]
    return len(connections) < len(theirs), "".join(named)


def _address(text: str) -> str:
    """An address as ``/proc/net/tcp`` has it, in the usual way: words of 32 bits in this machine's byte order."""
    host, _, port = text.partition(":")
    words = b"".join(int(host[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(host), 8))
    return place(socket.inet_ntop(socket.AF_INET6 if len(words) > 4 else socket.AF_INET, words), int(port, 16))


def _given_to_nobody() -> str:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            low, high = map(int, file.read().split())
    except (OSError, ValueError):
        return "that the system gives to no connection"
    return f"that the system gives to no connection: one below {low} or above {high}"


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
