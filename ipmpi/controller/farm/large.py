"""Large results of tasks that the controller is forwarding (no I/O).

A task with a large result has ended when all of it was forwarded: its engine may be lost before. For its set it
ends earlier, so that tasks of others do not wait for a slow client.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from ...protocol import messages as m, packed
from ...protocol.frames import Buffer
from ..effects import Decline, Forward, GiveUp, Send
from .groups import DROPPED, GIVEN, INTERRUPTED, TaskGroup
from .sets import Incarnation, SetState, SetStates
from .tasktable import TaskTable


class _Coming(NamedTuple):
    set_state: SetState
    group: int
    task: int
    rank: int


class LargeResults:
    """The results that are being forwarded.

    Args:
        ended: called when all of a result was forwarded.
        returned: called with the set and a TasksReturned, if the task is to be run again.
        taken: called with each task that has ended although a set has not said so yet.
    """

    def __init__(
        self,
        table: TaskTable,
        places: SetStates,
        ended: Callable[[SetState, TaskGroup, int, Incarnation], None],
        returned: Callable[[int, m.TasksReturned], None],
        taken: Callable[[SetState, TaskGroup, int], None],
    ) -> None:
        self._table = table
        self._sets = places
        self._ended = ended
        self._returned = returned
        self._taken = taken
        self._coming: dict[tuple[int, int], _Coming] = {}

    def result(self, key: int, message: m.LargeTaskResult, body: Sequence[Buffer], stream: int) -> bool:
        """A task has succeeded with a large result; return False if the set does not have the task."""
        set_state, group = self._sets.by_key.get(key), self._table.groups.get(message.group)
        incarnation = set_state.former.get(message.rank) if set_state is not None else None
        wanted = group is not None and group.is_given(key, message.index) and not self._names(key, message)
        if set_state is not None and group is not None and incarnation is not None and wanted:
            if group.states[message.index] in (DROPPED, INTERRUPTED):
                self._ended(set_state, group, message.index, incarnation)
            else:
                self._pass_on(set_state, group, incarnation, message, body, stream)
                return True
        if stream:
            self._table.effects.append(Decline(key, stream))
        return set_state is not None and group is not None and incarnation is not None and wanted

    def _pass_on(
        self,
        set_state: SetState,
        group: TaskGroup,
        incarnation: Incarnation,
        message: m.LargeTaskResult,
        body: Sequence[Buffer],
        stream: int,
    ) -> None:
        done = m.TaskDone(group.id, message.index, incarnation.id, message.sizes)
        if stream:
            sinks = ((group.client, done),)
            self._table.effects.append(Forward(set_state.key, stream, sum(message.sizes), sinks))
            self._coming[set_state.key, stream] = _Coming(set_state, message.group, message.index, message.rank)
            self._comes(set_state, 1)
        else:
            self._table.effects.append(Send(group.client, done, body))
            self._ended(set_state, group, message.index, incarnation)

    def _comes(self, set_state: SetState, results: int) -> None:
        set_state.coming += results
        set_state.exclusive = set_state.exclusive and set_state.in_hand > 0
        self._sets.update(set_state)

    def passed_on(self, key: int, stream: int, complete: bool) -> None:
        """A result was forwarded (or its client does not want it), or will not arrive."""
        coming = self._coming.pop((key, stream), None)
        if coming is None:
            return
        set_state, serial, index, rank = coming
        self._comes(set_state, -1)
        group = self._table.groups.get(serial)
        if group is None:
            return
        if self._sets.by_key.get(key) is not set_state or not group.is_given(key, index):
            if complete:  # its engines were lost before, so that it was to run again
                self._is_there(group, index)
        elif complete:
            group.states[index] = GIVEN if group.states[index] == INTERRUPTED else group.states[index]
            self._ended(set_state, group, index, set_state.former[rank])
        else:
            self._returned(key, m.TasksReturned(serial, packed.pack([index]), rank, "taken"))

    def _is_there(self, group: TaskGroup, index: int) -> None:
        """The client has a result, whoever has the task now."""
        for _, key in self._table.client_has(group, [index]):
            if key:
                self._taken(self._sets.by_key[key], group, index)

    def to_client(self, client: int) -> list[tuple[int, int]]:
        """Return set and stream of the results that are on their way to a client."""
        groups = self._table.groups
        return [
            name for name, coming in self._coming.items()
            if (group := groups.get(coming.group)) is not None and group.client == client
        ]  # fmt: skip

    def client_gone(self, client: int, kept: Collection[int]) -> None:
        """A client is gone whose tasks go on: run those again whose results were on their way only to it.

        ``kept``: numbers of groups whose results the controller keeps.
        """
        for key, stream in list(self._coming):
            group = self._table.groups.get(self._coming[key, stream].group)
            if group is not None and group.client == client and group.id not in kept:
                self.passed_on(key, stream, False)

    def stuck(self, key: int, message: m.AnswerStuck, others_wait: Callable[[int, int], bool]) -> int:
        """An engine waits for its result to be read; drop it if other clients wait for the engine.

        The task is run again. Arguments and return value are those of :meth:`Router.stuck`.
        """
        names, group = self._names(key, message), self._table.groups.get(message.group)
        if not names or group is None or key not in self._sets.by_key:
            return 0
        if not others_wait(self._sets.by_key[key].former[message.rank].id, group.client):
            return 0
        self._table.effects.append(GiveUp(*names[0]))
        return group.client

    def passing(self) -> dict[int, list[tuple[str, int]]]:
        """Return, by engine, the labels and clients of results that are being forwarded."""
        found: dict[int, list[tuple[str, int]]] = {}
        for set_state, serial, _, rank in self._coming.values():
            group = self._table.groups.get(serial)
            if group is not None:
                found.setdefault(set_state.former[rank].id, []).append((group.options.label, group.client))
        return found

    def _names(self, key: int, message: m.LargeTaskResult | m.AnswerStuck) -> list[tuple[int, int]]:
        """Return set and stream of the result of a task on one rank, if it is being forwarded."""
        task = message.group, message.index, message.rank
        return [name for name, coming in self._coming.items() if name[0] == key and coming[1:] == task]
