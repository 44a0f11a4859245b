"""The bodies of messages of the controller, of which large ones arrive as streams."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ...protocol.connection import Event, MessageReceived, StreamAborted
from ...protocol.frames import Buffer
from ...transport.bodyreceiver import BodyReceiver
from ...transport.loop import Loop
from ...transport.privatememory import PrivateMemory
from ...transport.transfers import Endpoint, Transfers
from ...transport.usedmaps import UsedMaps


class ArrivingBodies:
    """Waits for bodies, in the session's thread.

    Args:
        link: where they come from.
        transfers: those under way on it.
        loop: that of the thread.
    """

    def __init__(self, link: Endpoint, transfers: Transfers, loop: Loop) -> None:
        self._link = link
        self._used = UsedMaps(loop.call_later)
        self._transfers = transfers
        self._failed: dict[int, Callable[[str], None]] = {}

    def receive(
        self,
        message: Any,
        event: MessageReceived,
        done: Callable[[list[Buffer]], None],
        failed: Callable[[Any, str], None] = lambda _message, _lost: None,
    ) -> None:
        """Call ``done`` with the body once it is complete. If it will not be, the controller says so.

        But ``failed`` is called where the controller does not know: with the message, and why its bytes were lost
        on their way here; with no reason if there is no memory for it.
        """
        if not event.stream:
            done(list(event.body))
            return
        try:
            # On this machine, bodies are files that are mapped.
            comes_in_files = self._link.connection.files is not None
            memory = PrivateMemory(message.sizes, None if comes_in_files else self._used)
        except (OSError, ValueError, OverflowError):
            self._link.connection.refuse(event.stream)
            self._link.wake()
            failed(message, "")
            return

        def over() -> None:
            self._failed.pop(event.stream, None)

        def complete(whole: BodyReceiver) -> None:
            over()
            done(whole.segments())

        self._failed[event.stream] = partial(failed, message)
        assembly = BodyReceiver(message.sizes, memory, complete, over)
        self._transfers.start(self._link, event.stream, [(assembly, assembly)])

    def handle(self, event: Event) -> None:
        """Handle an event of a stream."""
        failed = self._failed.get(event.stream)
        self._transfers.handle(self._link, event)
        if failed is not None and isinstance(event, StreamAborted) and event.reason:
            failed(event.reason)
