"""Requests to keep tasks off engines (no I/O)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...ids import Ids
from ..registry import Registry
from .sets import Incarnation, SetStates
from .tasktable import TaskTable


class Reservations:
    """Reserves engines for clients, by their ids."""

    def __init__(self, registry: Registry, places: SetStates, table: TaskTable) -> None:
        self._registry = registry
        self._sets = places
        self._table = table

    def reserve(self, client: int, targets: Sequence[int] | None) -> Ids:
        """Start no more tasks on these engines; return their ids."""
        ids = self._registry.resolve(targets)
        self._table.effects += self._sets.reserve(client, self._incarnations(ids))
        return ids

    def release(self, client: int, targets: Sequence[int]) -> Ids:
        """End a reservation; return the ids of those engines that are still registered."""
        ids = self._registry.registered(targets)
        self._table.effects += self._sets.release(client, self._incarnations(ids))
        return ids

    def targets(self, targets: Sequence[int] | None) -> Ids:
        """Return the ids of those of these engines that are registered; None for all."""
        return self._registry.resolve(None) if targets is None else self._registry.registered(targets)

    def again(self, client: int, key: int, ranks: Iterable[int]) -> None:
        """A client had reserved these ranks of a set when the controller was started again."""
        there = self._sets.by_key[key].incarnations
        self._table.effects += self._sets.reserve(client, [there[rank] for rank in ranks if rank in there])

    def of(self, client: int) -> list[tuple[int, int]]:
        """Return set and rank of the engines that a client has reserved, some several times."""
        return [(each.key, each.rank) for each in self._sets.reserved_by(client)]

    def _incarnations(self, ids: Iterable[int]) -> list[Incarnation]:
        engines = [self._registry.engines[number] for number in ids]
        return [self._sets.by_key[engine.set_key].incarnations[engine.rank] for engine in engines]
