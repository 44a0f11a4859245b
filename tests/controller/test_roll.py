from __future__ import annotations

from ipmpi.controller.registry import Registry
from ipmpi.controller.roll import Roll
from ipmpi.protocol.messages import EngineInfo, EnginesChanged, Register


def register(registry: Registry, key: int, count: int) -> list[int]:
    engines = [EngineInfo(rank, rank, "host", 1) for rank in range(count)]
    return registry.register(key, Register(engines, "no MPI", "3"))


def test_clients_hear_of_changes_once_and_begin_with_all() -> None:
    registry = Registry()
    roll = Roll(registry)
    assert roll.whole() == EnginesChanged([], [])
    assert roll.news() is None
    assert register(registry, 1, 3) == [0, 1, 2]
    assert roll.whole() == EnginesChanged([], [])  # whoever begins now gets the news, too
    assert roll.news() == EnginesChanged([0, 1, 2], [])
    assert roll.news() is None
    assert roll.whole() == EnginesChanged([0, 1, 2], [])
    registry.remove([1])
    assert register(registry, 2, 2) == [1, 3]
    registry.remove([0])
    assert roll.news() == EnginesChanged([3], [0])  # another engine has the id 1: nothing to tell
    assert roll.whole() == EnginesChanged([1, 2, 3], [])
