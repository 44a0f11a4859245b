"""Engines with blocks of arrays, in this process."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from ipmpi.client.engines.arrayspread import distributed_array
from ipmpi.client.engines.distributed import DistributedArray
from ipmpi.client.engines.spread import spread_of
from ipmpi.engine.mpi.team import Place
from ipmpi.reference import ENGINE, Reference


class Engines:
    """Namespaces by engine id; notes what it was asked for, and whose function is called now."""

    def __init__(self, spaces: dict[int, dict[str, Any]]) -> None:
        self.spaces = {engine: {ENGINE: engine, **space} for engine, space in spaces.items()}
        self.asked: list[list[int]] = []
        self.current = -1
        self.is_changed = False

    def run(
        self, groups: Sequence[tuple[list[int], Callable[..., Any], tuple[Any, ...]]], changes: bool = False
    ) -> list[Any]:
        """As :class:`~ipmpi.client.engines.distributed.Reach`."""
        found = []
        self.is_changed = self.is_changed or changes
        for engines, function, args in groups:
            self.asked.append(list(engines))
            for self.current in engines:
                space = self.spaces[self.current]
                values = [space[each.name] if isinstance(each, Reference) else each for each in args]
                found.append(pickle.loads(pickle.dumps(function(*values))))
        return found

    def place(self, engines: Sequence[int]) -> Place:
        """As :class:`~ipmpi.client.engines.distributed.Reach`: these share no communicator."""
        return Place(tuple(engines), tuple(range(len(engines))))

    def array(self, **spread: Any) -> DistributedArray:
        words = ("axis", "grid", "comm", "offset", "shape")
        how = spread_of(*(spread.get(word) for word in words), spread.get("halo", 0))
        return distributed_array(self, "T", list(self.spaces), how)
