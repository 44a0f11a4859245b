"""Tasks that may be the cause of engines being told to end (no I/O).

When an engine dies, its tasks are suspected (:mod:`ipmpi.controller.farm.suspects`). When it is told to end they
are not, since jobs end; unless the same task is there each time and other engines stay: then the task probably
takes too much memory, and a service of the machine has ended the engine.
"""

from __future__ import annotations

from collections.abc import Sequence

from ... import limits
from .groups import EndingEngine, TaskGroup
from .sets import Incarnation, SetStates
from .tasktable import TaskTable


class Endings:
    """Engines that were told to end while they ran tasks."""

    def __init__(self, table: TaskTable, places: SetStates) -> None:
        self._table = table
        self._sets = places

    def told_to_end(self, group: TaskGroup, indices: Sequence[int], incarnation: Incarnation) -> list[int]:
        """These ran on an engine that was told to end; return those to run again."""
        incarnations = self._sets.incarnations
        ending = EndingEngine(incarnation.key, incarnation.host, max((incarnation.number, *incarnations)))
        group.endings = group.endings or {}
        for index in indices:
            before = group.endings.setdefault(index, [])
            alone = sum(map(self._was_alone, before))
            before.append(ending)
            if alone:
                group.strikes = group.strikes or {}
                group.strikes[index] = max(group.strikes.get(index, 0), alone)
        text = (
            f"{group.options.label} was given up: {limits.MAX_CRASHES} engines were told to end (SIGTERM) while"
            " they ran it, and others beside them were not. Most likely it takes too much memory, and a service of"
            f" the machine (earlyoom, systemd-oomd) has ended them. The last was {incarnation.text}"
        )
        return self._give_up(group, indices, limits.MAX_CRASHES - 1, text)

    def _was_alone(self, ending: EndingEngine) -> bool:
        """Return whether another engine of the same set or host has stayed: then no job has ended."""
        return any(
            incarnation.number <= ending.newest
            and (incarnation.key == ending.key or incarnation.host == ending.host)
            for incarnation in self._sets.incarnations.values()
        )

    def _give_up(self, group: TaskGroup, indices: Sequence[int], strikes: int, text: str) -> list[int]:
        known = group.strikes or {}
        poison = [index for index in indices if known.get(index, 0) >= strikes]
        self._table.undone(group, poison, "EngineLost", text)
        return [index for index in indices if known.get(index, 0) < strikes]
