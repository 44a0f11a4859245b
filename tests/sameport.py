"""A connection of a socket with itself, which the system makes by chance once in 28,000 times."""

from __future__ import annotations

import socket
from typing import Any


class SamePort(socket.socket):
    """As the system may choose: the port that is dialled, which nobody has, is that of the connection, too."""

    def connect_ex(self, address: Any) -> int:
        self.bind(address)
        return super().connect_ex(address)

    def connect(self, address: Any) -> None:
        self.bind(address)
        super().connect(address)
