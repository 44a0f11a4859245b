"""Engines with blocks of arrays, in this process."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from ipmpi.client.engines.arrayspread import distributed_array
from ipmpi.client.engines.distributed import DistributedArray
from ipmpi.client.engines.spread import spread_of
from ipmpi.engine.mpi.team import Place
from ipmpi.reference import Reference


class Engines:
    """Namespaces by engine id; counts what it was asked for."""

    def __init__(self, spaces: dict[int, dict[str, Any]]) -> None:
        self.spaces = spaces
        self.asked: list[list[int]] = []

    def run(self, groups: Sequence[tuple[list[int], Callable[..., Any], tuple[Any, ...]]]) -> list[Any]:
        """As :class:`~ipmpi.client.engines.distributed.Reach`."""
        found = []
        for engines, function, args in groups:
            self.asked.append(list(engines))
            for engine in engines:
                space = self.spaces[engine]
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
