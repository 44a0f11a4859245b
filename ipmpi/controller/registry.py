"""The registered engines (no I/O).

An engine set registers all its ranks at once. A rank gets the id it asks for (its rank, or the id it had before
the controller was restarted) if that is free, else the lowest free one; within a set ids rise with ranks.

A set may have 65,536 ranks. What there is to know of them is kept in columns, and ids and ranks are translated run
by run: usually all of a set are one run.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from sys import intern
from typing import NamedTuple

from .. import limits
from ..errors import InvalidEngineID, NoEnginesRegistered, RemoteProtocolError
from ..ids import NONE, Ids, shifted
from ..protocol.handshake import printable
from ..protocol.losses import LOSS_MODES
from ..protocol.messages import EngineInfo, Register
from ..ranges import ranges
from .runmap import RunMap

_TEXT = 255
"""Characters of a host name or a version to store."""

_LARGEST = 2**63 - 1
"""Of a process id, to be stored in 8 bytes."""

_LAUNCH = 4096
"""Characters of the name of a launch to store, which is a path."""


class Engine(NamedTuple):
    """One engine: its id, host and process."""

    id: int
    set_key: int
    rank: int
    host: str
    pid: int


class EngineSet(Mapping[int, Engine]):
    """The engines of one link, by rank.

    Attributes:
        key: of the link.
        mpi, python: its versions, in words.
        launch, program: see :class:`~ipmpi.protocol.messages.Register`.
        on_loss: see :mod:`ipmpi.controller.onloss`.
    """

    def __init__(self, key: int, message: Register, ids: Sequence[int]) -> None:
        self.key = key
        self.mpi = printable(message.mpi, _TEXT)
        self.python = printable(message.python, _TEXT)
        self.launch = message.launch[:_LAUNCH]
        self.program = printable(message.program, _TEXT)
        may_choose = message.on_loss in LOSS_MODES and not message.program
        self.on_loss = message.on_loss if may_choose else LOSS_MODES[0]
        names: dict[str, str] = {}
        order = sorted(range(len(ids)), key=lambda index: message.engines[index].rank)
        infos = [message.engines[index] for index in order]
        self._hosts = [
            names.get(info.host) or names.setdefault(info.host, intern(printable(info.host, _TEXT)))
            for info in infos
        ]
        self._pids = array("q", [min(info.pid, _LARGEST) for info in infos])
        # Of a run of ranks: what to add to a rank to get its id, and its place in the columns.
        self._there: RunMap[tuple[int, int]] = RunMap()
        for place, ranks, first in _together([info.rank for info in infos], [ids[index] for index in order]):
            self._there.insert(ranks, (first - ranks.start, place - ranks.start))

    def __len__(self) -> int:
        return len(self._there)

    def __iter__(self) -> Iterator[int]:
        return iter(self.ranks())

    def __getitem__(self, rank: int) -> Engine:
        found = self._there.get(rank)
        if found is None:
            raise KeyError(rank)
        to_id, place = found
        return Engine(rank + to_id, self.key, rank, self._hosts[rank + place], self._pids[rank + place])

    @property
    def engines(self) -> Mapping[int, Engine]:
        """Return the engines by rank."""
        return self

    def ranks(self) -> Ids:
        """Return the ranks that are registered, ascending."""
        return self._there.ids()

    def ids(self) -> Ids:
        """Return the ids of all, in the order of their ranks."""
        return self.of_ranks(self.ranks())

    def of_ranks(self, ranks: Iterable[int]) -> Ids:
        """Return the ids of those of these ranks that are registered, in their order."""
        found = self._there.within(ranks)
        return Ids([shifted(run, to_id) for run, (to_id, _) in found])

    def columns(self, ranks: range) -> tuple[array[int], list[str]]:
        """Return process ids and hosts of consecutive ranks, all of which are registered."""
        pids = array("q")
        hosts: list[str] = []
        for run, (_, place) in self._there.within(ranks):
            pids += self._pids[run.start + place : run.stop + place]
            hosts += self._hosts[run.start + place : run.stop + place]
        return pids, hosts

    def runs(self) -> Iterator[tuple[range, range]]:
        """Yield runs of ids, and the ranks of each."""
        for run, (to_id, _) in self._there.within(self.ranks()):
            yield shifted(run, to_id), run

    def remove(self, ranks: Iterable[int]) -> None:
        """Remove engines."""
        self._there.remove(ranks)


def _together(ranks: Sequence[int], ids: Sequence[int]) -> Iterator[tuple[int, range, int]]:
    """Yield runs of ranks whose ids are a run, too: the place of the first in the lists, ranks, the first id."""
    first = 0
    for place in range(1, len(ranks) + 1):
        if place == len(ranks) or ranks[place] != ranks[place - 1] + 1 or ids[place] != ids[place - 1] + 1:
            yield first, range(ranks[first], ranks[place - 1] + 1), ids[first]
            first = place


class Engines(Mapping[int, Engine]):
    """All engines, by id."""

    def __init__(self) -> None:
        self.there: RunMap[tuple[EngineSet, int]] = RunMap()
        """Of a run of ids: the set, and what to add to an id to get the rank."""

    def __len__(self) -> int:
        return len(self.there)

    def __iter__(self) -> Iterator[int]:
        return iter(self.there.ids())

    def __contains__(self, number: object) -> bool:
        return number in self.there

    def __getitem__(self, number: int) -> Engine:
        found = self.there.get(number)
        if found is None:
            raise KeyError(number)
        engine_set, to_rank = found
        return engine_set[number + to_rank]


class Registry:
    """All engines, by id and by set."""

    def __init__(self) -> None:
        self.engines = Engines()
        self.sets: dict[int, EngineSet] = {}

    def ids(self) -> Ids:
        """All ids, ascending."""
        return self.engines.there.ids()

    def register(self, key: int, message: Register) -> Ids:
        """Add a set; return the ids in the order of ``message.engines``."""
        infos = message.engines
        if not infos or len(infos) + len(self.engines) > limits.MAX_ENGINES:
            raise RemoteProtocolError(f"a set of {len(infos)} engines; {limits.MAX_ENGINES} in all are possible")
        if not all(0 <= info.rank <= limits.ENGINE_ID for info in infos):
            raise RemoteProtocolError("a set with a rank that no MPI gives")
        if len({info.rank for info in infos}) != len(infos):
            raise RemoteProtocolError("a set in which two engines have the same rank")
        wanted = message.ids if len(message.ids) == len(infos) else [info.wanted for info in infos]
        ids = self._choose(infos, wanted)
        engine_set = self.sets[key] = EngineSet(key, message, ids)
        for run, ranks in engine_set.runs():
            self.engines.there.insert(run, (engine_set, ranks.start - run.start))
        return Ids.of(ids)

    def _choose(self, infos: Sequence[EngineInfo], wanted: Sequence[int]) -> list[int]:
        usable = all(0 <= w < limits.MAX_ENGINES for w in wanted) and not any(self.engines.there.within(wanted))
        if usable and len(set(wanted)) == len(wanted):
            return list(wanted)
        by_rank = sorted(range(len(infos)), key=lambda i: infos[i].rank)
        ids = [0] * len(infos)
        taken = set(self.engines)
        number = 0
        for index in by_rank:
            while number in taken:
                number += 1
            ids[index] = number
            number += 1
        return ids

    def remove(self, ids: Iterable[int]) -> None:
        """Remove engines."""
        gone = Ids.of(ids)
        for key, ranks in self.by_set(gone).items():
            self.sets[key].remove(ranks)
            if not self.sets[key]:
                del self.sets[key]
        self.engines.there.remove(gone)

    def of_ranks(self, key: int, ranks: Iterable[int]) -> Ids:
        """Return the ids of those ranks of a set that are registered."""
        engine_set = self.sets.get(key)
        return NONE if engine_set is None else engine_set.of_ranks(ranks)

    def by_set(self, ids: Iterable[int]) -> dict[int, Ids]:
        """Return the ranks of those of these engines that are registered, by set."""
        found: dict[int, list[range]] = {}
        for run, (engine_set, to_rank) in self.engines.there.within(ids):
            found.setdefault(engine_set.key, []).append(shifted(run, to_rank))
        return {key: Ids(runs) for key, runs in found.items()}

    def columns(self, after: int) -> Iterator[tuple[int, Iterable[tuple[int, int, int, str]]]]:
        """Yield, for runs of ids above ``after``, ascending, the key of the set, and ``(id, rank, pid, host)``."""
        for run, (engine_set, to_rank) in self.engines.there.within(range(after + 1, limits.ENGINE_ID + 1)):
            ranks = shifted(run, to_rank)
            yield engine_set.key, zip(run, ranks, *engine_set.columns(ranks), strict=True)

    def registered(self, ids: Iterable[int]) -> Ids:
        """Return those of these engines that are registered, in their order."""
        return Ids(run for run, _ in self.engines.there.within(ids))

    def resolve(self, targets: Iterable[int] | None) -> Ids:
        """Return the ids of a client's targets, each once; None means all.

        Raises:
            InvalidEngineID: one of them is not registered.
            NoEnginesRegistered: all are wanted, and there are none.
        """
        if targets is None:
            if not self.engines:
                raise NoEnginesRegistered(
                    "There are no engines registered. Start some with `mpirun -n 4 ipengine`, and if you have: "
                    "Check the logs in ~/.ipython/log for what they say"
                )
            return self.ids()
        wanted = Ids.of(targets)
        if len(self.registered(wanted)) < len(wanted):
            number = next(each for each in wanted if each not in self.engines)
            known = ranges(self.ids()) or "none"
            raise InvalidEngineID(f"Engine with id {number} is not registered (registered: {known})")
        return wanted if len(wanted.ascending()) == len(wanted) else Ids.of(dict.fromkeys(wanted))
