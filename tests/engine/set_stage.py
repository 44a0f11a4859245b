"""A farm, and short ways to tell it things and to look at what it says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from ipmpi.engine.farm.scheduler import Down, SetScheduler, Up
from ipmpi.protocol import messages as m, packed
from ipmpi.protocol.frames import Buffer
from ipmpi.protocol.operations import Failed

M = TypeVar("M")


def options(width: int = 1, operation: bytes = b"f", **rest: Any) -> m.TaskOptions:
    return m.TaskOptions(operation, "f", width=width, **rest)


def failure(name: str, text: str = "broken") -> bytes:
    return packed.pack_failure(Failed(name, text, "Traceback"), [b"pickled"])


class Stage:
    """A farm, and what it has said since it was asked last."""

    def __init__(
        self, ranks: int = 4, joined: bool = True, nodes: dict[int, int] | None = None, survives: bool = False
    ) -> None:
        self.now = 0.0
        self.started: list[m.TasksStarted] = []
        self.farm = SetScheduler(joined, survives)
        self.farm.add_ranks(nodes or dict.fromkeys(range(ranks), 0))
        assert self.said() == [Up(m.WantTasks(len(nodes or range(ranks))))]

    def said(self) -> list[Down | Up]:
        effects = self.farm.decide(self.now)
        self.started += [e.message for e in effects if isinstance(e.message, m.TasksStarted)]
        return [effect for effect in effects if not isinstance(effect.message, m.TasksStarted)]

    def get(self, kind: type[M]) -> list[M]:
        """All messages of this kind in what it says now."""
        return [effect.message for effect in self.said() if isinstance(effect.message, kind)]

    def give(
        self, indices: Iterable[int], ranks: Sequence[int] = (), alone: bool = False, group: int = 1, **rest: Any
    ) -> None:
        indices = list(indices)
        lengths = packed.pack([2] * len(indices))
        body = b"".join(b"%02d" % (index % 100) for index in indices)
        message = m.GiveTasks(
            group, options(**rest), packed.pack(indices), lengths, list(ranks), alone, [len(body)]
        )
        self.farm.give(message, [body], self.now)

    def answer(self, rank: int, indices: Iterable[int], busy: float = 1.0, group: int = 1) -> m.TaskResults:
        indices = list(indices)
        lengths = packed.pack([0] * len(indices))
        message = m.TaskResults(group, rank, packed.pack(indices), b"", lengths, busy * len(indices), [0])
        self.farm.results(message, [b""], self.now)
        return message

    def part(self, index: int, rank: int, error: bytes = b"", group: int = 1) -> None:
        body: list[Buffer] = [error] if error else []
        message = m.TogetherEnded(group, index, rank, not error, 0.5, [len(error)] if error else [])
        self.farm.together_ended(message, body, self.now)

    def warm(self, seconds: float) -> None:
        """Let it know how long such tasks take."""
        self.give([9999])
        (given,) = self.get(m.GiveTasks)
        self.answer(given.ranks[0], [9999], seconds)
        self.said()


def brief(given: list[m.GiveTasks]) -> dict[int, list[int]]:
    return {message.ranks[0]: list(packed.unpack(message.indices)) for message in given}


def returned(effects: list[Down | Up]) -> list[tuple[list[int], int, str]]:
    found = [effect.message for effect in effects if isinstance(effect, Up)]
    return [(list(packed.unpack(r.indices)), r.rank, r.why) for r in found if isinstance(r, m.TasksReturned)]
