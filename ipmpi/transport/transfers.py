"""Bodies that pass through this process on their way: relays, and the links they wake."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .. import limits
from ..protocol.connection import (
    CreditReceived,
    DataReceived,
    Event,
    StreamAborted,
    StreamRefused,
)
from ..protocol.relay import Relay, SinkStream
from ..protocol.streams import OutgoingStream
from .landing import Landing
from .timedpool import TimedPool


class Endpoint(Hashable, Protocol):
    """One side of a transfer."""

    @property
    def connection(self) -> Any:
        """The :class:`Connection`; where a transfer ends in this process, whatever takes the pieces."""

    def wake(self) -> None:
        """Send what was queued on the connection."""


@dataclass(eq=False)
class _Transfer:
    source: Endpoint
    stream: int
    relay: Relay
    on_end: Callable[[bool], None]
    sinks: dict[tuple[Endpoint, int], Any] = field(default_factory=dict)
    """What the relay feeds, by where it goes."""


class Transfers:
    """All bodies that are being relayed here.

    Args:
        landing: where to put together what comes by TLS and goes to processes of this machine; None: nowhere.
    """

    def __init__(self, landing: TimedPool | None = None) -> None:
        self._landing = landing
        self._by_source: dict[tuple[Endpoint, int], _Transfer] = {}
        self._by_sink: dict[tuple[Endpoint, int], _Transfer] = {}

    def start(
        self,
        source: Endpoint,
        stream: int,
        sinks: Sequence[tuple[Endpoint, SinkStream]],
        on_end: Callable[[bool], None] = lambda _complete: None,
        *,
        files: bool = False,
    ) -> None:
        """Relay a stream of ``source`` to streams that were announced on ``sinks``.

        ``on_end`` is called once, with False if the body's sender gave it up; with True when it has come to its
        end, or nobody wants the rest. ``files``: the source has the body in files anyway, so that it should send
        them to whatever sinks.
        """
        fed = [self._sink(source, end, out) for end, out in sinks]
        relay = Relay(source.connection, stream, fed, files=files)
        keys = [(end, out.id) for end, out in sinks]
        transfer = _Transfer(source, stream, relay, on_end, dict(zip(keys, (to for to, _ in fed), strict=True)))
        self._by_source[source, stream] = transfer
        for key in keys:
            self._by_sink[key] = transfer
            key[0].wake()
        if not source.connection.is_coming(stream):
            # Its sender gave it up while it waited for this.
            relay.abort()
            self._end(transfer, False)
            return
        relay.update_credit()
        source.wake()
        if not sinks:
            self._end(transfer, True)

    def _sink(self, source: Endpoint, end: Endpoint, out: SinkStream) -> tuple[Any, SinkStream]:
        """What a relay feeds: the stream itself, or what puts its body together first."""
        is_here = getattr(end.connection, "files", None) is not None and source.connection.files is None
        if self._landing is None or not is_here or not isinstance(out, OutgoingStream):
            return end.connection, out
        if out.total < limits.FILE_BODY:
            return end.connection, out
        landing = Landing(end.connection, out, self._landing)
        return landing, landing

    def handle(self, endpoint: Endpoint, event: Event) -> bool:
        """Do what an event of an endpoint's stream asks for; False if it belongs to no transfer."""
        key = (endpoint, getattr(event, "stream", 0))
        if isinstance(event, DataReceived | StreamAborted):
            transfer = self._by_source.get(key)
            if transfer is None:
                return False
            if isinstance(event, StreamAborted):
                transfer.relay.abort()
                self._end(transfer, False)
            else:
                transfer.relay.receive(event.data)
                for sink, _ in transfer.sinks:
                    sink.wake()
                if event.last:
                    self._end(transfer, True)
            return True
        if isinstance(event, CreditReceived | StreamRefused):
            transfer = self._by_sink.get(key)
            if transfer is None:
                return False
            if isinstance(event, StreamRefused):
                self._drop(transfer, key)
            else:
                transfer.relay.update_credit()
                transfer.source.wake()
            return True
        return False

    def give_up(self, source: Endpoint, stream: int) -> bool:
        """Drop what is left of a body, at both ends; False if it is not under way."""
        transfer = self._by_source.get((source, stream))
        if transfer is None:
            return False
        source.connection.refuse(stream)
        transfer.relay.abort()
        self._end(transfer, False)
        return True

    def endpoint_lost(self, endpoint: Endpoint) -> None:
        """An endpoint is gone: what came from it ends, what went to it goes on without it."""
        for key, transfer in list(self._by_source.items()):
            if key[0] is endpoint:
                transfer.relay.abort()
                self._end(transfer, False)
        for key, transfer in list(self._by_sink.items()):
            if key[0] is endpoint:
                self._drop(transfer, key)

    def _drop(self, transfer: _Transfer, key: tuple[Endpoint, int]) -> None:
        self._by_sink.pop(key, None)
        fed = transfer.sinks.pop(key)
        transfer.relay.drop(fed, key[1])
        if isinstance(fed, Landing):
            fed.close()
        transfer.source.wake()
        if not transfer.sinks:
            self._end(transfer, True)

    def _end(self, transfer: _Transfer, complete: bool) -> None:
        if self._by_source.pop((transfer.source, transfer.stream), None) is None:
            return
        for key in transfer.sinks:
            self._by_sink.pop(key, None)
            key[0].wake()
        transfer.source.wake()
        transfer.on_end(complete)
