"""Large arguments of tasks, and the engines that wait for them (no I/O).

They stay with the client until an engine waits for them. A stream can be used once; when a task has to be run
again, the client is asked for its body again.
"""

from __future__ import annotations

from collections.abc import Callable

from ... import limits
from ...errors import JournalDamaged
from ...protocol import messages as m, packed
from ...protocol.frames import split
from ..effects import Decline, Forward, Send
from .arguments import ArgumentMemory
from .groups import DROPPED, WAITING, TaskGroup
from .tasktable import TaskTable


class LargeArguments:
    """The bodies of all large tasks.

    Args:
        may_be_held: returns whether a set that has not come back after a restart may have tasks of a group, by its
            serial.
    """

    def __init__(self, table: TaskTable, arguments: ArgumentMemory, may_be_held: Callable[[int], bool]) -> None:
        self._table = table
        self._arguments = arguments
        self._may_be_held = may_be_held
        self._gone: set[int] = set()

    def client_gone(self, client: int) -> None:
        """A client is gone whose tasks go on: end those whose bodies cannot come any more."""
        self._gone.add(client)
        for group in self._of(client):
            group.stream = 0
            waits = group.states[0] == WAITING and not self._may_be_held(group.serial)
            if waits or group.asked or group.wanted is not None:
                self._give_up(group)

    def released(self, client: int) -> None:
        """After a restart, all sets have said what they have of a client's tasks: if it is gone, the rest ends."""
        for group in self._of(client) if client in self._gone else ():
            if group.states[0] == WAITING:
                self._give_up(group)

    def _of(self, client: int) -> list[TaskGroup]:
        """Return the groups whose body is with the client, or at engines."""
        return [
            group for group in self._table.of(client)
            if group.is_large and not (group.payload or group.is_spilled) and any(group.sizes)
        ]  # fmt: skip

    def client_lost(self, client: int) -> None:
        """A client has no tasks any more."""
        self._gone.discard(client)

    def _give_up(self, group: TaskGroup) -> None:
        text = (
            f"{group.options.label} was not run: its arguments, of {sum(group.sizes)} bytes, were still with the "
            f"client, which is gone. Push arguments of more than {limits.TASK_PAYLOAD >> 10} KiB to engines first"
        )
        is_given = group.states[0] != WAITING
        if is_given:
            self._cancel(group)
        self._table.undone(group, [0], "ConnectionError", text, still_there=is_given)

    def _cancel(self, group: TaskGroup) -> None:
        self._table.effects.append(Send(group.where[0], m.CancelTasks(group.serial, packed.pack([0]), False)))

    def want(self, key: int, message: m.WantTaskBody) -> None:
        """Ranks of a set wait for the body of a task."""
        group = self._table.groups.get(message.group)
        if group is None or not group.is_large or not group.is_given(key, message.index):
            return
        if group.states[message.index] == DROPPED:
            return  # its set has been or will be told
        try:
            self._arguments.fetch(group)
        except JournalDamaged as error:
            self._cancel(group)
            self._table.undone(group, [0], "JournalDamaged", str(error), still_there=True)
            return
        if group.payload or not sum(group.sizes):
            body = m.TaskBody(group.serial, message.index, message.ranks, group.sizes)
            self._table.effects.append(Send(key, body, split(memoryview(group.payload), group.sizes)))
            return
        group.wanted = (key, message.ranks)
        if group.stream:
            self._pass_on(group)
        elif not group.asked:
            group.asked = True
            self._table.effects.append(Send(group.client, m.SendBodyAgain(group.id)))
        if group.client in self._gone:
            self._give_up(group)

    def again(self, client: int, message: m.BodyAgain, stream: int) -> bool:
        """The client sends a body again; return False if it is not a task's."""
        group = self._table.of_client(client, message.id)
        if group is None or not group.asked or not stream:
            return False
        if sum(message.sizes) != sum(group.sizes):
            self._table.effects.append(Decline(client, stream))
            return True
        group.asked = False
        group.stream = stream
        if group.wanted is not None:
            self._pass_on(group)
        return True

    def _pass_on(self, group: TaskGroup) -> None:
        assert group.wanted is not None
        key, ranks = group.wanted
        group.wanted = None
        if group.is_given(key, 0):
            sinks = ((key, m.TaskBody(group.serial, 0, ranks, group.sizes)),)
            self._table.effects.append(Forward(group.client, group.stream, sum(group.sizes), sinks))
            group.stream = 0
