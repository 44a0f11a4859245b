"""Two ends of an ssh session over a socket pair, in one loop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from ipmpi.protocol import sshmessages as m
from ipmpi.protocol.permissions import LAPTOP_RECEIVES, LOGIN_NODE_RECEIVES, Table
from ipmpi.transport.loop import Loop
from ipmpi.transport.ssh.channels import Channel, ChannelLink, ChannelUser
from tests.socketpipe import SocketPipe

SECONDS = 20.0


def run(loop: Loop, until: Callable[[], Any], what: str) -> None:
    """Turn the loop until ``until`` gives something."""
    end = loop.now() + SECONDS

    def look() -> None:
        if until() or loop.now() > end:
            loop.stop()
        else:
            loop.call_later(0.001, look)

    loop._stopped = False
    loop.call_soon(look)
    loop.run()
    assert until(), f"{what}: not within {SECONDS} s"


class Heard(ChannelUser):
    """Notes what it hears, and says that bytes have left unless it is told not to."""

    def __init__(self, channel: Channel | None = None) -> None:
        self.channel = channel
        self.said: list[tuple[Any, ...]] = []
        self.bytes = bytearray()
        self.takes = True
        self.reads = True

    def opened(self) -> None:
        self.said.append(("opened",))

    def data(self, data: memoryview) -> None:
        if not self.takes:
            super().data(data)
        self.bytes += data
        if self.reads and self.channel is not None:
            self.channel.consumed(len(data))

    def room(self) -> None:
        self.said.append(("room",))

    def ended(self) -> None:
        self.said.append(("ended", len(self.bytes)))

    def answered(self, code: int, text: str) -> None:
        self.said.append(("answered", code, text))

    def lost(self, reason: str) -> None:
        self.said.append(("lost", reason))


class End:
    """One end; requests are accepted, and bytes read, unless it is told otherwise."""

    def __init__(self, loop: Loop, sock: socket.socket, table: Table) -> None:
        self.requests: list[m.Request] = []
        self.users: list[Heard] = []
        self.closed = False
        self.accepts = self.reads = True
        self.link = ChannelLink(loop, SocketPipe(sock), table, self._closed, on_request=self._requested)

    def _closed(self) -> None:
        self.closed = True

    def _requested(self, channel: Channel, request: m.Request) -> None:
        self.requests.append(request)
        channel.user = user = Heard(channel)
        self.users.append(user)
        user.reads = self.reads
        if self.accepts:
            channel.accept()
        else:
            user.takes = False

    def connect(self) -> Heard:
        """Ask for a connection."""
        user = Heard()
        user.channel = self.link.open(lambda number: m.ConnectTo(number, "node1", 4000), user)
        return user


def laptop(loop: Loop, sock: socket.socket) -> End:
    return End(loop, sock, LAPTOP_RECEIVES)


def login_node(loop: Loop, sock: socket.socket) -> End:
    return End(loop, sock, LOGIN_NODE_RECEIVES)
