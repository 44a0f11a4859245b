"""The registered engines (no I/O).

An engine set registers all its ranks at once. A rank gets the id it asks for (its rank, or the id it had before
the controller was restarted) if that is free, else the lowest free one; within a set ids rise with ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .. import limits
from ..errors import InvalidEngineID, NoEnginesRegistered, RemoteProtocolError
from ..protocol.handshake import printable
from ..protocol.losses import LOSS_MODES
from ..protocol.messages import EngineInfo, Register
from ..ranges import ranges

_TEXT = 255
"""Characters of a host name or a version to store."""

_LAUNCH = 4096
"""Characters of the name of a launch to store, which is a path."""


@dataclass
class Engine:
    """One engine: its id, host and process."""

    id: int
    set_key: int
    rank: int
    host: str
    pid: int


@dataclass
class EngineSet:
    """The engines of one link."""

    key: int
    mpi: str
    python: str
    launch: str = ""
    """See :class:`~ipmpi.protocol.messages.Register`, for this and the next one."""
    program: str = ""
    on_loss: str = LOSS_MODES[0]
    """See :mod:`ipmpi.controller.onloss`."""
    engines: dict[int, Engine] = field(default_factory=dict)
    """By rank."""


class Registry:
    """All engines, by id and by set."""

    def __init__(self) -> None:
        self.engines: dict[int, Engine] = {}
        self.sets: dict[int, EngineSet] = {}

    def ids(self) -> list[int]:
        """All ids, ascending."""
        return sorted(self.engines)

    def register(self, key: int, message: Register) -> list[int]:
        """Add a set; return the ids in the order of ``message.engines``."""
        infos = message.engines
        if not infos or len(infos) + len(self.engines) > limits.MAX_ENGINES:
            raise RemoteProtocolError(f"a set of {len(infos)} engines; {limits.MAX_ENGINES} in all are possible")
        if len({info.rank for info in infos}) != len(infos):
            raise RemoteProtocolError("a set in which two engines have the same rank")
        wanted = message.ids if len(message.ids) == len(infos) else [info.wanted for info in infos]
        ids = self._choose(infos, wanted)
        engine_set = EngineSet(
            key, printable(message.mpi, _TEXT), printable(message.python, _TEXT), message.launch[:_LAUNCH],
            printable(message.program, _TEXT),
            message.on_loss if message.on_loss in LOSS_MODES and not message.program else LOSS_MODES[0],
        )  # fmt: skip
        for number, info in zip(ids, infos, strict=True):
            engine = Engine(number, key, info.rank, printable(info.host, _TEXT), info.pid)
            self.engines[number] = engine_set.engines[info.rank] = engine
        self.sets[key] = engine_set
        return ids

    def _choose(self, infos: Sequence[EngineInfo], wanted: Sequence[int]) -> list[int]:
        usable = all(0 <= w < limits.MAX_ENGINES and w not in self.engines for w in wanted)
        if usable and len(set(wanted)) == len(wanted):
            return list(wanted)
        by_rank = sorted(range(len(infos)), key=lambda i: infos[i].rank)
        ids = [0] * len(infos)
        number = 0
        for index in by_rank:
            while number in self.engines:
                number += 1
            ids[index] = number
            number += 1
        return ids

    def remove(self, ids: Iterable[int]) -> None:
        """Remove engines."""
        for number in ids:
            engine = self.engines.pop(number, None)
            if engine is not None:
                engine_set = self.sets[engine.set_key]
                del engine_set.engines[engine.rank]
                if not engine_set.engines:
                    del self.sets[engine.set_key]

    def of_ranks(self, key: int, ranks: Iterable[int]) -> list[int]:
        """Return the ids of those ranks of a set that are registered."""
        engine_set = self.sets.get(key)
        return [] if engine_set is None else [engine_set.engines[r].id for r in ranks if r in engine_set.engines]

    def by_set(self, ids: Iterable[int]) -> dict[int, list[int]]:
        """Return the ranks of engines, by set."""
        found: dict[int, list[int]] = {}
        for number in ids:
            engine = self.engines[number]
            found.setdefault(engine.set_key, []).append(engine.rank)
        return found

    def resolve(self, targets: list[int] | None) -> list[int]:
        """Return the ids of a client's targets; None means all.

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
        for number in targets:
            if number not in self.engines:
                known = ranges(self.ids()) or "none"
                raise InvalidEngineID(f"Engine with id {number} is not registered (registered: {known})")
        return list(dict.fromkeys(targets))
