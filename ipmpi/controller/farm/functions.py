"""The pickled functions of tasks, which the controller never unpickles (no I/O)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from ... import errors, limits
from ...errors import RemoteProtocolError
from ...protocol import messages as m
from ...protocol.frames import Buffer

KEY: Final = 16
"""Bytes of a key, the BLAKE2b hash of the pickled function."""


@dataclass
class _Function:
    data: bytes
    clients: set[int] = field(default_factory=set)
    groups: int = 0


class Functions:
    """All functions that clients hold, or that unfinished tasks use."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Function] = {}
        # One incomplete function for each client.
        self._arriving: dict[int, tuple[bytes, bytearray]] = {}
        self._held: dict[int, int] = {}

    def define(self, client: int, message: m.DefineFunction, body: Sequence[Buffer]) -> None:
        """Add a piece; raises RemoteProtocolError if it is not the next one.

        The first piece of a function discards an incomplete other one. A function for which there is no room, or
        whose bytes do not match its key, is dropped: tasks that use it are refused.
        """
        if message.offset == 0:
            self._arriving[client] = message.key, bytearray()
        key, data = self._arriving.get(client, (b"", None))
        if (
            data is None
            or key != message.key
            or len(key) != KEY
            or message.offset != len(data)
            or not 0 < message.total <= limits.FUNCTION
            or message.offset + sum(message.sizes) > message.total
            or (not sum(message.sizes))
        ):
            raise RemoteProtocolError("a piece of a function that is not the next one")
        for buffer in body:
            data += buffer
        if len(data) < message.total:
            return
        del self._arriving[client]
        if hashlib.blake2b(data, digest_size=KEY).digest() != message.key:
            return  # no client may define a function under the key of another
        held = self._held.get(client, 0)
        function = self._known.get(message.key)
        if function is not None and client in function.clients:
            return
        if held + len(data) <= limits.TASK_BYTES:
            function = function or self._known.setdefault(message.key, _Function(bytes(data)))
            function.clients.add(client)
            self._held[client] = held + len(data)

    def restore(self, client: int, key: bytes, data: bytes) -> None:
        """A client has defined this function before."""
        function = self._known.setdefault(key, _Function(data))
        if client not in function.clients:
            function.clients.add(client)
            self._held[client] = self._held.get(client, 0) + len(data)

    def data(self, key: bytes) -> bytes:
        """Return the pickle of a function that a group uses."""
        return self._known[key].data

    def use(self, client: int, keys: Sequence[bytes]) -> None:
        """A group of a client uses these; raises an error to refuse it."""
        for key in keys:
            function = self._known.get(key)
            if function is None or client not in function.clients:
                if self._held.get(client, 0) > limits.TASK_BYTES // 2:
                    raise errors.Backpressure(
                        f"functions of this client hold {self._held[client] >> 20} MiB at the controller: drop "
                        "some, or push large data first and use it by name"
                    )
                raise errors.ClientError("a task that names a function which was not defined before")
        for key in keys:
            self._known[key].groups += 1

    def unuse(self, keys: Iterable[bytes]) -> list[bytes]:
        """A group that used these has ended; return those that are removed now."""
        for key in keys:
            self._known[key].groups -= 1
        return self._tidy(keys)

    def forget(self, client: int, keys: Iterable[bytes]) -> list[bytes]:
        """A client drops these; return those that are removed now."""
        keys = [key for key in dict.fromkeys(keys) if key in self._known and client in self._known[key].clients]
        for key in keys:
            self._known[key].clients.remove(client)
            self._held[client] -= len(self._known[key].data)
        return self._tidy(keys)

    def client_lost(self, client: int) -> list[bytes]:
        """A client's session has ended; return the functions that are removed now."""
        self._arriving.pop(client, None)
        forgotten = self.forget(client, list(self._known))
        self._held.pop(client, None)
        return forgotten

    def _tidy(self, keys: Iterable[bytes]) -> list[bytes]:
        gone = [key for key in dict.fromkeys(keys) if not self._known[key].clients and not self._known[key].groups]
        for key in gone:
            del self._known[key]
        return gone

    def lacking(self, there: set[bytes], keys: Iterable[bytes]) -> Iterator[tuple[m.DefineFunction, list[Buffer]]]:
        """Yield the messages that define those functions that are not ``there``, and add these."""
        for key in keys:
            if key not in there:
                there.add(key)
                yield from self.pieces(key)

    def pieces(self, key: bytes) -> Iterator[tuple[m.DefineFunction, list[Buffer]]]:
        """Yield the messages that define a function, with their bodies."""
        view = memoryview(self._known[key].data)
        for offset in range(0, len(view), limits.INLINE_BODY):
            piece = view[offset : offset + limits.INLINE_BODY]
            yield m.DefineFunction(key, offset, len(view), [len(piece)]), [piece]
