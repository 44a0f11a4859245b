"""The way up from a rank to the rank above it (layer L4)."""

from __future__ import annotations

from ..errors import KernelError
from ..protocol import messages as m
from ..protocol.connection import Connection, Event, StreamRefused
from ..transport.pipes import Pipe
from .child import Child
from .proxy import Proxy


def link_up(proxy: Proxy, pipe: Pipe, may_receive: frozenset[type[m.Message]]) -> Child:
    """Make ``pipe`` the proxy's way up, to another rank of the set."""
    above = Child(pipe, Connection(may_receive, resumable=False))

    def refused(event: Event) -> None:
        if not isinstance(event, StreamRefused):
            proxy.from_above(event)

    def closed(reason: str, orderly: bool, error: KernelError | None) -> None:
        del orderly
        proxy.stop(f"the rank above is gone: {error or reason}", orphaned=True)

    above.start(proxy.loop, refused, closed)
    proxy.above = above
    return above
