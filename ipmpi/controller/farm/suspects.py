"""Which tasks may be the cause when engines are lost (no I/O).

A task that was on a rank when the rank, or its whole set, was lost is a suspect: it is run alone on its rank,
after the second time alone in its set, since many launchers end all ranks when one dies. After
``limits.MAX_CRASHES`` times it fails.
"""

from __future__ import annotations

from collections.abc import Sequence

from ... import limits
from ...protocol import messages as m
from .answers import numbers
from .groups import TaskGroup, as_range
from .tasktable import TaskTable


class Suspects:
    """Counts, for each task, the engines that were lost while they had it."""

    def __init__(self, table: TaskTable) -> None:
        self._table = table

    def started(self, key: int, message: m.TasksStarted) -> None:
        """Ranks of a set have these tasks."""
        group = self._table.groups.get(message.group)
        if group is None:
            return
        span = as_range(message.indices)
        if span is not None and group.all_given(key, *span):
            group.started[span[0] : span[1]] = b"\1" * (span[1] - span[0])
            return
        for index in numbers(message.indices):
            if group.is_given(key, index):
                group.started[index] = 1

    def clients(self) -> list[int]:
        """Return the clients that have tasks."""
        return self._table.clients()

    @staticmethod
    def split(group: TaskGroup, held: Sequence[int]) -> tuple[list[int], list[int]]:
        """Split the tasks of a set into those that ranks had and those that waited at its agent."""
        return [i for i in held if group.started[i]], [i for i in held if not group.started[i]]

    def strike(self, group: TaskGroup, indices: list[int], last: str) -> list[int]:
        """These were on an engine that was lost; return those to run again."""
        group.strikes = group.strikes or {}
        for index in indices:
            group.strikes[index] = group.strikes.get(index, 0) + 1
        poison = [index for index in indices if group.strikes[index] >= limits.MAX_CRASHES]
        text = (
            f"{group.options.label} was given up: {limits.MAX_CRASHES} engines were lost while they had it. It is"
            f" most likely the cause: it crashes, calls MPI_Abort, or takes too much memory. The last was {last}"
        )
        self._table.undone(group, poison, "EngineLost", text)
        return [index for index in indices if group.strikes[index] < limits.MAX_CRASHES]
