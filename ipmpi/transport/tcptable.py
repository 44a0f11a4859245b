"""The TCP sockets of this machine, as Linux lists them in ``/proc/net``."""

from __future__ import annotations

import contextlib
from typing import Final, NamedTuple

LISTENS: Final = "0A"
"""The state of a socket that listens (TCP_LISTEN)."""
_UID: Final = 7
"""The column that has the user."""


class TcpSocket(NamedTuple):
    """One line.

    Attributes:
        here: the socket's address and port in hexadecimal digits; words of 32 bits in this machine's byte order.
        there: those of the other end.
        state: in hexadecimal digits.
        user: the number of whom it belongs to.
    """

    here: str
    there: str
    state: str
    user: int


def tcp_sockets(proc: str = "/proc") -> list[TcpSocket] | None:
    """Return all of this network, of IPv4 and IPv6; None where the system does not tell."""
    found: list[TcpSocket] | None = None
    for name in ("tcp", "tcp6"):
        with (
            contextlib.suppress(OSError, ValueError, IndexError),
            open(f"{proc}/net/{name}", encoding="ascii") as table,
        ):
            lines = table.readlines()[1:]  # without the heading
            found = found or []
            for words in map(str.split, lines):
                found.append(TcpSocket(words[1], words[2], words[3], int(words[_UID])))
    return found
