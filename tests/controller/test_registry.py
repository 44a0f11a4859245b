"""Which ids engines get."""

from __future__ import annotations

import pytest

from ipmpi import limits
from ipmpi.controller.registry import Registry
from ipmpi.errors import InvalidEngineID, NoEnginesRegistered, RemoteProtocolError
from ipmpi.protocol.messages import EngineInfo, Register


def infos(wanted: list[int], ranks: list[int] | None = None) -> list[EngineInfo]:
    numbers = range(len(wanted)) if ranks is None else ranks
    return [EngineInfo(rank, want, f"host{rank}", 1000 + rank) for rank, want in zip(numbers, wanted, strict=True)]


def register(registry: Registry, key: int, wanted: list[int], ids: list[int] | None = None) -> list[int]:
    return registry.register(key, Register(infos(wanted), "Open MPI", "3.11", ids or []))


def test_ranks_are_ids_if_they_are_free() -> None:
    registry = Registry()
    assert register(registry, 1, [0, 1, 2]) == [0, 1, 2]
    assert registry.ids() == [0, 1, 2]
    engine = registry.engines[2]
    assert (engine.set_key, engine.rank, engine.host, engine.pid) == (1, 2, "host2", 1002)
    assert registry.sets[1].mpi == "Open MPI"


def test_colliding_sets_keep_the_order_of_ranks() -> None:
    registry = Registry()
    register(registry, 1, [0, 1])
    assert register(registry, 2, [0, 1, 2]) == [2, 3, 4]
    registry.remove([1, 3])
    assert register(registry, 3, [0, 1, 2]) == [1, 3, 5]


def test_ids_rise_with_ranks_whatever_the_order_of_the_list() -> None:
    registry = Registry()
    register(registry, 1, [0])
    message = Register(infos([2, 0, 1], ranks=[2, 0, 1]), "", "")
    assert registry.register(2, message) == [3, 1, 2]


def test_ids_are_kept_when_the_controller_is_started_anew() -> None:
    registry = Registry()
    assert register(registry, 2, [0, 1], ids=[4, 7]) == [4, 7]
    assert register(registry, 1, [0, 1], ids=[0, 1]) == [0, 1]


@pytest.mark.parametrize("ids", [[5, 5], [-1, 3], [0, limits.MAX_ENGINES], [1, 9], [3]], ids=str)
def test_ids_that_cannot_be_had(ids: list[int]) -> None:
    registry = Registry()
    register(registry, 1, [0, 1])
    got = register(registry, 2, [8, 9] if len(ids) == 1 else [0, 1], ids=ids)
    assert got == ([8, 9] if len(ids) == 1 else [2, 3])


@pytest.mark.parametrize("ranks", [[], [0, 0]])
def test_impossible_sets(ranks: list[int]) -> None:
    registry = Registry()
    with pytest.raises(RemoteProtocolError):
        registry.register(1, Register(infos([0] * len(ranks), ranks), "", ""))
    assert registry.ids() == []
    assert registry.sets == {}


def test_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ENGINES", 4)
    registry = Registry()
    register(registry, 1, [0, 1, 2])
    with pytest.raises(RemoteProtocolError, match="4 in all"):
        register(registry, 2, [0, 1])


def test_long_texts_are_shortened() -> None:
    registry = Registry()
    registry.register(1, Register([EngineInfo(0, 0, "h" * 10**6, 1)], "m" * 10**6, "p" * 10**6))
    engine_set = registry.sets[1]
    assert len(registry.engines[0].host) == len(engine_set.mpi) == len(engine_set.python) == 255


def test_the_words_of_engines_do_not_steer_a_terminal() -> None:
    registry = Registry()
    registry.register(1, Register([EngineInfo(0, 0, "node\x1b[2J1", 1)], "Open\nMPI", "3\x07"))
    engine_set = registry.sets[1]
    assert (registry.engines[0].host, engine_set.mpi, engine_set.python) == ("node?[2J1", "Open?MPI", "3?")


def test_remove_and_lookup() -> None:
    registry = Registry()
    register(registry, 1, [0, 1])
    register(registry, 2, [5, 6])
    assert registry.of_ranks(2, [1, 0, 9]) == [6, 5]
    assert registry.of_ranks(3, [0]) == []
    assert registry.by_set([6, 0, 5]) == {2: [1, 0], 1: [0]}
    registry.remove([0, 1, 99])
    assert list(registry.sets) == [2]
    assert registry.resolve(None) == [5, 6]
    assert registry.resolve([6, 5, 6]) == [6, 5]


def test_engines_that_are_not_there() -> None:
    registry = Registry()
    with pytest.raises(NoEnginesRegistered, match=r"mpirun -n 4 ipengine.*Check the logs"):
        registry.resolve(None)
    with pytest.raises(InvalidEngineID, match=r"Engine with id 3 is not registered \(registered: none\)"):
        registry.resolve([3])
    register(registry, 1, [0, 1, 2, 5, 7, 8])
    with pytest.raises(InvalidEngineID, match=r"registered: 0-2, 5, 7-8"):
        registry.resolve([0, 3])


def test_engines_are_described_in_columns_by_runs_of_their_ids() -> None:
    registry = Registry()
    register(registry, 1, [0, 1, 2, 3])
    register(registry, 2, [0, 1])
    registry.remove([1])
    rows = [(key, *row) for key, run in registry.columns(-1) for row in run]
    assert rows == [(e.set_key, e.id, e.rank, e.pid, e.host) for e in registry.engines.values()]
    assert [row[0] for _, run in registry.columns(3) for row in run] == [4, 5]
    assert list(registry.columns(5)) == list(registry.columns(2**70)) == []
