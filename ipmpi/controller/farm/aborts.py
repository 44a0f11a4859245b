"""Requests to abort tasks, and what is known of their results (no I/O)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...errors import ClientError
from ...protocol import messages as m, packed
from ..effects import Send
from .groups import CANCELLING, GIVEN, INTERRUPTED, WAITING, TaskGroup
from .tasktable import TaskTable


@dataclass(eq=False)
class _Request:
    """An AbortTasks that is answered when all engine sets have replied."""

    client: int
    id: int
    cancelled: list[int]
    left: int


class Aborts:
    """Requests to abort tasks; see :class:`ipmpi.protocol.tasks.AbortTasks`."""

    def __init__(self, table: TaskTable) -> None:
        self._table = table
        self._requests: dict[tuple[int, int], list[_Request]] = {}

    def abort(self, client: int, message: m.AbortTasks, asker: int | None = None) -> None:
        """Abort tasks of a client, and reply now or later, to ``asker`` if another one has asked (0: to nobody).

        Raises an error to refuse the request.
        """
        asker = client if asker is None else asker
        if message.how not in ("cancel", "drop", "interrupt"):
            raise ClientError(f"tasks are aborted by 'cancel', 'drop' or 'interrupt', not {message.how!r}")
        try:
            chosen: Iterable[int] = sorted(set(packed.unpack(message.indices)))
        except ValueError:
            raise ClientError("packed indices of an impossible length") from None
        group = self._table.of_client(client, message.group)
        if group is None:
            self._reply(asker, message.id, [])
            return
        chosen = [index for index in chosen if index < group.count] if message.indices else range(group.count)
        waiting = [index for index in chosen if group.states[index] == WAITING]
        given = [index for index in chosen if GIVEN <= group.states[index] <= INTERRUPTED]
        text = f"{group.options.label} was cancelled before it started"
        self._table.undone(group, waiting, "TaskAborted", text)
        if message.how == "cancel":
            self._cancel(group, given, _Request(asker, message.id, waiting, 0))
        elif message.how == "drop":
            self.tell_sets(group, given, interrupt=False)
            dropped = f"{group.options.label} was aborted while it ran; its result is dropped"
            self._table.undone(group, given, "TaskAborted", dropped, still_there=True)
        else:
            self.tell_sets(group, given, interrupt=True)
            for index in given:
                group.states[index] = INTERRUPTED
        if message.how != "cancel":
            self._reply(asker, message.id, sorted(waiting + given))

    def _cancel(self, group: TaskGroup, given: list[int], request: _Request) -> None:
        self.tell_sets(group, [index for index in given if group.states[index] == GIVEN], interrupt=False)
        for index in given:
            if group.states[index] != INTERRUPTED:
                group.states[index] = CANCELLING
                request.left += 1
                self._requests.setdefault((group.serial, index), []).append(request)
        if not request.left:
            self._reply(request.client, request.id, request.cancelled)

    def tell_sets(self, group: TaskGroup, indices: Iterable[int], interrupt: bool) -> None:
        """Ask the sets that have these tasks to cancel or interrupt them."""
        by_set: dict[int, list[int]] = {}
        for index in indices:
            by_set.setdefault(group.where[index], []).append(index)
        for key, theirs in by_set.items():
            message = m.CancelTasks(group.serial, packed.pack(theirs), interrupt)
            self._table.effects.append(Send(key, message))

    def settle(self, group: TaskGroup, index: int, cancelled: bool) -> None:
        """A set has reported whether a task was cancelled."""
        for request in self._requests.pop((group.serial, index), ()) if self._requests else ():
            request.left -= 1
            if cancelled:
                request.cancelled.append(index)
            if not request.left:
                self._reply(request.client, request.id, sorted(request.cancelled))

    def _reply(self, client: int, number: int, indices: list[int]) -> None:
        self._table.effects.append(Send(client, m.Reply(number, packed.pack(indices))))
