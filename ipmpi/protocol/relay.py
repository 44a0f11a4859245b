"""Passing a stream on without holding it (sans-IO).

A relay copies one incoming stream to one or more outgoing ones. It gives its source exactly the credit that
*all* its sinks have given, so it never holds more than one window, and the slowest sink sets the pace. A sink
that is lost stops counting; when the last one is gone the source is told to stop.
"""

from __future__ import annotations

from typing import Any, Protocol

from .connection import Connection
from .frames import Buffer
from .streams import BodyFile, LanePart


class SinkStream(Protocol):
    """What a relay needs of an outgoing stream."""

    id: int

    @property
    def credit(self) -> int:
        """All bytes that may be sent."""
        ...

    @property
    def files(self) -> bool:
        """Whether it takes files."""
        ...


Sink = tuple[Any, SinkStream]
"""A :class:`Connection`, or what stands for one where a stream ends in this process, and the stream."""


class Relay:
    """One source stream, several sinks.

    ``files``: the source is to send files, where its link carries them, also if no sink takes any.
    """

    def __init__(self, source: Connection, stream: int, sinks: list[Sink], *, files: bool = False) -> None:
        self.source = source
        self.stream = stream
        self.sinks = list(sinks)
        self._files = files
        self._granted = 0

    def update_credit(self) -> None:
        """Pass on to the source what credit the sinks have given by now."""
        if not self.sinks:
            self.source.refuse(self.stream)
            return
        if self._files or any(stream.files for _, stream in self.sinks):
            self.source.allow_files(self.stream)
        credit = min(stream.credit for _, stream in self.sinks)
        if credit > self._granted:
            self.source.grant(self.stream, credit - self._granted)
            self._granted = credit

    def receive(self, data: Buffer | BodyFile | LanePart) -> None:
        """Pass on a piece, a file, or what stands for bytes that go by a lane."""
        for connection, stream in self.sinks:
            connection.feed(stream, data)
        self.update_credit()

    def abort(self) -> None:
        """The source gave up: so do all outgoing streams."""
        for connection, stream in self.sinks:
            connection.abort(stream)
        self.sinks.clear()

    def drop(self, connection: object, number: int | None = None) -> None:
        """A sink does not want the rest, or its connection is gone."""
        self.sinks = [
            (c, s) for c, s in self.sinks if c is not connection or (number is not None and s.id != number)
        ]
        self.update_credit()
