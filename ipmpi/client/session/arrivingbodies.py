"""The bodies of messages of the controller, of which large ones arrive as streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...protocol.connection import MessageReceived
from ...protocol.frames import Buffer
from ...transport.bodyreceiver import BodyReceiver
from ...transport.privatememory import PrivateMemory
from ...transport.transfers import Endpoint, Transfers


class ArrivingBodies:
    """Waits for bodies, in the session's thread.

    Args:
        link: where they come from.
        transfers: those under way on it.
    """

    def __init__(self, link: Endpoint, transfers: Transfers) -> None:
        self._link = link
        self._transfers = transfers

    def receive(
        self,
        message: Any,
        event: MessageReceived,
        done: Callable[[list[Buffer]], None],
        no_memory: Callable[[], None] = lambda: None,
    ) -> None:
        """Call ``done`` with the body once it is complete. If it will not be, the controller says so."""
        if not event.stream:
            done(list(event.body))
            return
        try:
            memory = PrivateMemory(message.sizes)
        except (OSError, ValueError, OverflowError):
            self._link.connection.refuse(event.stream)
            self._link.wake()
            no_memory()
            return
        assembly = BodyReceiver(message.sizes, memory, lambda whole: done(whole.segments()), lambda: None)
        self._transfers.start(self._link, event.stream, [(assembly, assembly)])
