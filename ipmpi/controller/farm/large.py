"""Large results of tasks on their way through the controller (no I/O).

A task with a large result has ended when all of it is through: its engine may be lost in the middle. For its set
it has ended before, so that others' tasks do not wait for a client that takes its results slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...protocol import messages as m, packed
from ...protocol.frames import Buffer
from ..effects import Decline, Forward, GiveUp, Send
from .groups import DROPPED, GIVEN, INTERRUPTED, TaskGroup
from .sets import Incarnation, SetState, SetStates
from .tasktable import TaskTable


class _Coming(NamedTuple):
    place: SetState
    group: int
    task: int
    rank: int


class LargeResults:
    """Those that are on their way.

    Args:
        ended: called when all of a result is through.
        returned: called with the set and what it would have said, if the task is to be run again.
    """

    def __init__(
        self,
        table: TaskTable,
        places: SetStates,
        ended: Callable[[SetState, TaskGroup, int, Incarnation], None],
        returned: Callable[[int, m.TasksReturned], None],
    ) -> None:
        self._table = table
        self._sets = places
        self._ended = ended
        self._returned = returned
        self._coming: dict[tuple[int, int], _Coming] = {}

    def result(self, key: int, message: m.LargeTaskResult, body: Sequence[Buffer], stream: int) -> bool:
        """A task has succeeded with a large result; False if the set was not asked for it."""
        place, group = self._sets.by_key.get(key), self._table.groups.get(message.group)
        incarnation = place.former.get(message.rank) if place is not None else None
        wanted = group is not None and group.is_given(key, message.index) and not self._names(key, message)
        if place is not None and group is not None and incarnation is not None and wanted:
            if group.states[message.index] in (DROPPED, INTERRUPTED):
                self._ended(place, group, message.index, incarnation)
            else:
                self._pass_on(place, group, incarnation, message, body, stream)
                return True
        if stream:
            self._table.effects.append(Decline(key, stream))
        return place is not None and group is not None and incarnation is not None and wanted

    def _pass_on(
        self,
        place: SetState,
        group: TaskGroup,
        incarnation: Incarnation,
        message: m.LargeTaskResult,
        body: Sequence[Buffer],
        stream: int,
    ) -> None:
        done = m.TaskDone(group.id, message.index, incarnation.id, message.sizes)
        if stream:
            sinks = ((group.client, done),)
            self._table.effects.append(Forward(place.key, stream, sum(message.sizes), sinks))
            self._coming[place.key, stream] = _Coming(place, message.group, message.index, message.rank)
            self._comes(place, 1)
        else:
            self._table.effects.append(Send(group.client, done, body))
            self._ended(place, group, message.index, incarnation)

    def _comes(self, place: SetState, results: int) -> None:
        place.coming += results
        place.exclusive = place.exclusive and place.in_hand > 0
        self._sets.update(place)

    def passed_on(self, key: int, stream: int, complete: bool) -> None:
        """A result is through (or its client does not want it), or will not come."""
        coming = self._coming.pop((key, stream), None)
        if coming is None:
            return
        place, serial, index, rank = coming
        self._comes(place, -1)
        group = self._table.groups.get(serial)
        if self._sets.by_key.get(key) is not place or group is None or not group.is_given(key, index):
            return
        if complete:
            group.states[index] = GIVEN if group.states[index] == INTERRUPTED else group.states[index]
            self._ended(place, group, index, place.former[rank])
        else:
            self._returned(key, m.TasksReturned(serial, packed.pack([index]), rank, "taken"))

    def stuck(self, key: int, message: m.AnswerStuck, others_wait: Callable[[int, int], bool]) -> int:
        """An engine waits for its result to be taken; gives it up if anybody but its client waits for the engine.

        The task is run again. Arguments and result as of :meth:`Router.stuck`.
        """
        names, group = self._names(key, message), self._table.groups.get(message.group)
        if not names or group is None or key not in self._sets.by_key:
            return 0
        if not others_wait(self._sets.by_key[key].former[message.rank].id, group.client):
            return 0
        self._table.effects.append(GiveUp(*names[0]))
        return group.client

    def passing(self) -> dict[int, list[tuple[str, int]]]:
        """By engine, the results on their way: of which tasks, and to which client."""
        found: dict[int, list[tuple[str, int]]] = {}
        for place, serial, _, rank in self._coming.values():
            group = self._table.groups.get(serial)
            if group is not None:
                found.setdefault(place.former[rank].id, []).append((group.options.label, group.client))
        return found

    def _names(self, key: int, message: m.LargeTaskResult | m.AnswerStuck) -> list[tuple[int, int]]:
        """Set and stream of the result of a task on one rank, if it is on its way."""
        task = message.group, message.index, message.rank
        return [name for name, coming in self._coming.items() if name[0] == key and coming[1:] == task]
