"""What a journal has of engines: who has reserved them, and which tasks they have rejected (no I/O).

With it goes what tasks have used of their retries. Engine sets that come back after a restart of the controller
have new keys. So what concerns them waits until they are registered, and is written under the old and the new key
as long as it does: the controller may be killed again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Final, Generic, TypeVar

import msgspec

from ..errors import JournalDamaged
from ..ids import Ids
from ..journal.rows import Change, ReservedRow, UsedRow
from ..protocol import messages as m
from .farm.farm import Farm
from .farm.groups import TaskGroup, Tries

_T = TypeVar("_T")
_Engine = tuple[int, int]
"""Key of a set, and rank."""
_RESERVED = msgspec.msgpack.Decoder(tuple[list[_Engine], list[int]])
_USED = msgspec.msgpack.Decoder(tuple[dict[int, Tries], dict[int, list[_Engine]], str])


_REQUESTS: Final = 64
"""Requests of a client of which it is known that they were performed."""


class _Absent(Generic[_T]):
    """What concerns engines of sets that have not come back."""

    def __init__(self) -> None:
        self._by_set: dict[int, list[tuple[int, _T]]] = {}
        """By the key that the set had: ranks, and what concerns them."""

    def add(self, engine: _Engine, what: _T) -> None:
        self._by_set.setdefault(engine[0], []).append((engine[1], what))

    def take(self, key: int) -> list[tuple[int, _T]]:
        return self._by_set.pop(key, [])

    def drop(self, what: _T) -> None:
        for key, known in list(self._by_set.items()):
            self._by_set[key] = [each for each in known if each[1] != what]

    def of(self, what: _T) -> list[_Engine]:
        return [engine for engine, each in self.all() if each == what]

    def of_set(self, key: int) -> list[tuple[int, _T]]:
        return self._by_set.get(key, [])

    def all(self) -> list[tuple[_Engine, _T]]:
        return [((key, rank), each) for key, known in self._by_set.items() for rank, each in known]


class EngineMemory:
    """Reservations, used retries and rejections, as they are now and as they were when the controller began.

    Args:
        farm: all tasks.
        is_client: whether a client is in the journal.
    """

    def __init__(self, farm: Farm, is_client: Callable[[int], bool]) -> None:
        self._farm = farm
        self._is_client = is_client
        self._clients: dict[int, None] = {}
        self._groups: dict[int, TaskGroup] = {}
        """Those of which something has changed that is not written."""
        self._reserved = _Absent[int]()
        self._rejected = _Absent[tuple[int, int]]()
        self._performed: dict[int, deque[int]] = {}
        """By client: its last requests, which it makes again if the controller was killed before it answered."""
        self._former: dict[int, int] = {}
        """By key of a set, the one that it had."""
        self.is_unwritten = False
        """Whether the last :meth:`changes` had retries, which are not on the disk."""
        farm.recovery.on_used = self._used
        farm.recovery.on_reserved = self._has_reserved

    def reserve(self, client: int, message: m.Reserve) -> Ids:
        """As :meth:`~ipmpi.controller.farm.reservations.Reservations.reserve`, once for each request."""
        if self._is_new(client, message.id):
            return self._farm.reserve(client, message.targets)
        return self._farm.reservations.targets(message.targets)

    def release(self, client: int, message: m.Release) -> Ids:
        """As :meth:`~ipmpi.controller.farm.reservations.Reservations.release`, once for each request."""
        if self._is_new(client, message.id):
            return self._farm.release(client, message.targets)
        return self._farm.reservations.targets(message.targets)

    def _is_new(self, client: int, request: int) -> bool:
        performed = self._performed.setdefault(client, deque(maxlen=_REQUESTS))
        if request in performed:
            return False
        performed.append(request)
        return True

    def _used(self, group: TaskGroup) -> None:
        self._groups[group.serial] = group

    def _has_reserved(self, client: int) -> None:
        self._clients[client] = None

    # --- from the journal ------------------------------------------------------------------------------------

    def restore(self, clients: Collection[int], reserved: Iterable[ReservedRow], used: Iterable[UsedRow]) -> None:
        """These were in the journal when the controller began; groups were restored.

        ``clients``: those that may come back. Raises JournalDamaged.
        """
        try:
            for client, data in reserved:
                engines, requests = _RESERVED.decode(data)
                if client in clients:
                    self._performed[client] = deque(requests, maxlen=_REQUESTS)
                for engine in engines if client in clients else ():
                    self._reserved.add(engine, client)
            for serial, data in used:
                tries, rejected, text = _USED.decode(data)
                if self._farm.recovery.has_used(serial, tries, text):
                    for index, refusing in rejected.items():
                        for engine in refusing:
                            self._rejected.add(engine, (serial, index))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise JournalDamaged(
                f"the journal has reservations or retries that this release does not understand ({error}): start "
                "the release that wrote it, or remove the journal"
            ) from error

    # --- engine sets -----------------------------------------------------------------------------------------

    def came(self, former: int, key: int) -> None:
        """A set that had one key has another one."""
        self._former[key] = former
        self._changed(former)

    def registered(self, key: int) -> None:
        """The engines of a set are there."""
        former = self._former.pop(key, None)
        if former is None:
            return
        by_client: dict[int, list[int]] = {}
        for rank, client in self._reserved.take(former):
            by_client.setdefault(client, []).append(rank)
        for client, ranks in by_client.items():
            self._farm.reservations.again(client, key, ranks)
        for rank, (serial, index) in self._rejected.take(former):
            self._farm.recovery.has_rejected(serial, index, key, rank)
            self._has_changed(serial)

    def lost(self, keys: Iterable[int]) -> None:
        """Sets that had these keys do not come back."""
        for key in keys:
            self._changed(key)
            self._reserved.take(key)
            self._rejected.take(key)

    def set_lost(self, key: int) -> None:
        """The session of a set has ended; perhaps it is not the one in which it came back."""
        self._former.pop(key, None)

    def client_lost(self, client: int) -> None:
        """A client's reservations have ended."""
        self._reserved.drop(client)
        self._performed.pop(client, None)

    def _changed(self, former: int) -> None:
        for client in {client for _, client in self._reserved.of_set(former)}:
            self._clients[client] = None
        for serial in {serial for _, (serial, _) in self._rejected.of_set(former)}:
            self._has_changed(serial)

    def _has_changed(self, serial: int) -> None:
        group = self._farm.recovery.open_group(serial)
        if group is not None:
            self._groups[serial] = group

    # --- to the journal --------------------------------------------------------------------------------------

    def changes(self) -> list[Change]:
        """Return what has to be written since the last call."""
        clients, self._clients = self._clients, {}
        groups, self._groups = self._groups, {}
        found: list[Change] = []
        for client in clients:
            if self._is_client(client):
                engines = self._farm.reservations.of(client) + self._names(self._reserved.of(client))
                requests = list(self._performed.get(client, ()))
                found.append(ReservedRow(client, msgspec.msgpack.encode((engines, requests))))
        for serial, group in groups.items():
            if group.unfinished:
                found.append(UsedRow(serial, self._told(group)))
                self.is_unwritten = True
        return found

    def _told(self, group: TaskGroup) -> bytes:
        places = self._farm.recovery.places
        rejected = {index: places(numbers) for index, numbers in (group.rejected or {}).items()}
        for engine, (serial, index) in self._rejected.all():
            if serial == group.serial:
                rejected.setdefault(index, []).extend(self._names([engine]))
        return msgspec.msgpack.encode((group.tries or {}, rejected, group.last_refusal))

    def _names(self, engines: list[_Engine]) -> list[_Engine]:
        """Return these engines under all keys that their sets have had."""
        found = list(engines)
        for key, rank in engines:
            found += [(new, rank) for new, former in self._former.items() if former == key]
        return found
