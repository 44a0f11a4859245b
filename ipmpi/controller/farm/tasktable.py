"""The groups of tasks, their states, and messages to clients (no I/O).

Every task has exactly one end, which is reported to its client once: :meth:`TaskTable.succeeded` and
:meth:`TaskTable.failed` change the state, :meth:`TaskTable.undone` also sends the message. A group that depends on
others is passed to the farm when they have succeeded; if one of them does not succeed, the group ends as well.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ... import errors, limits
from ...protocol import messages as m, packed
from ...protocol.frames import Buffer, size_of
from ..effects import Decline, Effect, Send
from ..headers import LARGEST_HEADER, header_size
from .groups import (
    DROPPED,
    FAILED,
    GIVEN,
    INTERRUPTED,
    SUCCEEDED,
    UNDONE,
    WAITING,
    EndedGroup,
    TaskGroup,
    for_engines,
)
from .sets import Condition, Need

_LARGEST_NUMBER: Final = (1 << 63) - 1
"""Of a group of a client: a journal takes no more. (Negative ones are groups of others that a client follows.)"""

RECORDS: Final = 4096
"""Ended groups per client that are kept, so that others can refer to their tasks."""

_OTHER_FIELDS: Final = 48 * limits.KIB
"""Bytes for indices, lengths, label and numbers in the message that gives tasks to a set."""


class _Undone(NamedTuple):
    group: TaskGroup
    indices: Sequence[int] | None
    """None: all that still wait."""
    error: str
    text: str
    state: int


@dataclass
class _Client:
    groups: dict[int, TaskGroup] = field(default_factory=dict)
    records: dict[int, EndedGroup] = field(default_factory=dict)
    conditions: dict[bytes, Condition] = field(default_factory=dict)
    only: frozenset[int] | None = None
    held: int = 0


class TaskTable:
    """All groups, counts over all clients, and messages to clients.

    Args:
        first_serial: the number of the first group.
        on_ready: called with each group whose tasks may be run now.
        on_closed: called with each group that has ended everywhere.
    """

    def __init__(
        self, first_serial: int, on_ready: Callable[[TaskGroup], None], on_closed: Callable[[TaskGroup], None]
    ) -> None:
        self._serials = itertools.count(first_serial)
        self._on_ready = on_ready
        self._on_closed = on_closed
        self._clients: dict[int, _Client] = {}
        # Consecutive groups with equal options share them.
        self._last_options = (m.TaskOptions(b"", ""), m.TaskOptions(b"", ""))
        self.is_journalled = False
        self.groups: dict[int, TaskGroup] = {}
        self.effects: list[Effect] = []
        self.scheduled = 0
        self.pending = 0
        self.n_succeeded = 0
        self.n_failed = 0

    # --- clients -------------------------------------------------------------------------------------------

    def open(
        self, client: int, message: m.SubmitTasks, body: Sequence[Buffer], stream: int, engines: int
    ) -> TaskGroup:
        """Add a group; call :meth:`start` next. Raises an error to refuse it."""
        state = self._clients.setdefault(client, _Client())
        _check(message, engines)
        if message.id in state.groups or message.id in state.records:
            raise errors.ClientError(f"the number {message.id} was used for another group of tasks")
        size = size_of(body)
        if state.held + size > (limits.TASK_BYTES_WRITTEN if self.is_journalled else limits.TASK_BYTES):
            raise errors.Backpressure(
                f"tasks of this client hold {state.held >> 20} MiB of arguments at the controller: wait for some "
                "before sending more"
            )
        for parent in _parents(message.options):
            self._check_parent(state, message, parent)
        group = self.insert(next(self._serials), client, message, body)
        group.stream = stream
        return group

    def insert(self, serial: int, client: int, message: m.SubmitTasks, body: Sequence[Buffer] | None) -> TaskGroup:
        """Add a group that is acceptable, or was accepted before (``body``: None if it is in the journal only)."""
        state = self._clients.setdefault(client, _Client())
        if message.options != self._last_options[0]:
            self._last_options = (message.options, for_engines(message.options))
        group = TaskGroup(serial, client, message, body, self._last_options[1])
        if message.options.conditional:
            group.condition = state.conditions.setdefault(message.options.operation, Condition())
            group.condition.groups += 1
        state.held += group.size
        group.only = state.only
        state.groups[group.id] = self.groups[group.serial] = group
        self.scheduled += group.count
        return group

    def limit_to(self, client: int, only: frozenset[int] | None) -> None:
        """A client's tasks run on these engines only; None for all. It has no tasks yet, or they are withheld."""
        if only is not None:
            state = self._clients.setdefault(client, _Client())
            state.only = only
            for group in state.groups.values():
                group.only = only

    # --- what comes back from a journal ----------------------------------------------------------------------

    def continue_after(self, serial: int) -> None:
        """Give new groups larger serials than this one."""
        self._serials = itertools.count(serial + 1)

    def has_ended(self, group: TaskGroup, index: int, state: int) -> None:
        """A task of a group that was inserted has ended before, and its client has been or will be told."""
        if 0 <= index < group.count and group.states[index] == WAITING:
            group.states[index] = state
            self.scheduled -= 1
            group.unfinished -= 1

    def restored(self, group: TaskGroup, options: m.TaskOptions) -> None:
        """All known ends of a group that was inserted have been told: run the rest."""
        if group.unfinished:
            self.start(group, options)
        else:
            self._fewer(group, 0)

    def add_record(self, client: int, number: int, label: str, states: bytearray) -> None:
        """Add the record of a group that has ended."""
        where = array("I", bytes(4 * len(states)))
        self._clients.setdefault(client, _Client()).records[number] = EndedGroup(label, states, where)

    def record(self, client: int, number: int) -> EndedGroup | None:
        """Return label and states of a group that is known; what has not ended counts as ended without outcome."""
        state = self._clients.get(client)
        if state is None:
            return None
        group = state.groups.get(number)
        if group is None:
            return state.records.get(number)
        states = bytearray(known if known > DROPPED else UNDONE for known in group.states)
        return EndedGroup(group.options.label, states, group.where)

    def client_has(self, group: TaskGroup, indices: Iterable[int]) -> list[tuple[int, int]]:
        """The client has the results of these tasks already, whatever becomes of them at sets that have them.

        Returns:
            Those that had not ended: their indices, and the key of the set that had each, or 0.
        """
        found: list[tuple[int, int]] = []
        fewer = 0
        for index in indices:
            state = group.states[index]
            if state == WAITING:
                found.append((index, 0))
                group.end(index, index + 1, SUCCEEDED, 0)
                self.scheduled -= 1
                fewer += 1
            elif GIVEN <= state <= INTERRUPTED:
                found.append((index, group.where[index]))
                group.end(index, index + 1, SUCCEEDED, 0)
                self.pending -= 1
                fewer += 1
            else:
                continue
            self.n_succeeded += 1
            if group.children and index in group.children:
                self._parent_succeeded(group.children.pop(index), (group.id, index), 0)
        if fewer:
            self._fewer(group, fewer)
        return found

    def withdraw(self, client: int, number: int) -> None:
        """Take out a group of which no set has a task, as if it had been refused."""
        state = self._clients.get(client)
        group = state.groups.get(number) if state is not None else None
        if group is not None:
            waiting = group.states.count(WAITING)
            self.scheduled -= waiting
            group.states[:] = bytes((UNDONE,)) * group.count
            self._fewer(group, group.unfinished)
        if state is not None:
            state.records.pop(number, None)

    # --- clients, continued ----------------------------------------------------------------------------------

    def clients(self) -> list[int]:
        """Return the clients with groups that have not ended."""
        return [client for client, state in self._clients.items() if state.groups]

    def start(self, group: TaskGroup, options: m.TaskOptions) -> None:
        """Let a new group wait for its parents, or run it."""
        state = self._clients[group.client]
        for name in _parents(options):
            parent = state.groups.get(name[0])
            known: TaskGroup | EndedGroup = state.records[name[0]] if parent is None else parent
            parent_state = known.states[name[1]]
            if parent_state == SUCCEEDED:
                if name == group.follows:
                    group.follow = known.where[name[1]]
            elif parent is None or parent_state > INTERRUPTED:
                self._undone_now([_orphan(group, _label(known), name)])
                return
            else:
                parent.children = parent.children or {}
                parent.children.setdefault(name[1], []).append(group)
                group.missing += 1
        if not group.missing:
            self._on_ready(group)

    def _check_parent(self, state: _Client, message: m.SubmitTasks, parent: tuple[int, int]) -> None:
        number, index = parent
        known = state.groups.get(number) or state.records.get(number)
        if known is None or not 0 <= index < len(known.states):
            raise errors.DependencyError(
                f"{message.options.label} is to run after task {index} of group {number}, which is not known (any "
                f"more): a task can depend on tasks that were submitted before it, among the last {RECORDS} groups"
            )

    def of_client(self, client: int, number: int) -> TaskGroup | None:
        """Return a group that has not ended, or None."""
        state = self._clients.get(client)
        return None if state is None else state.groups.get(number)

    def of(self, client: int) -> list[TaskGroup]:
        """Return the groups of a client that have not ended."""
        return list(self._clients[client].groups.values()) if client in self._clients else []

    def conditions(self, client: int) -> Iterable[Condition]:
        """Return the conditions of a client's groups."""
        return self._clients[client].conditions.values() if client in self._clients else ()

    def properties_changed(self, incarnations: set[int]) -> list[Need]:
        """Forget these engines' answers to conditions; return the needs that may be met now."""
        needs: list[Need] = []
        for state in self._clients.values():
            for condition in state.conditions.values():
                if not condition.refused.isdisjoint(incarnations):
                    condition.refused -= incarnations
                    needs += condition.needs
        return needs

    def running(self, client: int, most: int) -> list[list[object]]:
        """Return ``[group, packed indices]`` of a client's given tasks, up to about ``most`` tasks."""
        state = self._clients.get(client)
        found: list[list[object]] = []
        for group in state.groups.values() if state is not None else ():
            indices = group.given()
            most -= len(indices)
            if most < 0:
                break
            if indices:
                found.append([group.id, packed.pack(indices)])
        return found

    def client_lost(self, client: int) -> list[TaskGroup]:
        """A client's session has ended; return its groups, whose tasks the farm must drop."""
        state = self._clients.pop(client, None)
        if state is None:
            return []
        groups = list(state.groups.values())
        for group in groups:
            group.children = None
            group.payload = b""
        return groups

    # --- states of tasks -----------------------------------------------------------------------------------

    def given(self, count: int) -> None:
        """``count`` tasks were given to sets."""
        self.scheduled -= count
        self.pending += count

    def requeued(self, group: TaskGroup, indices: Iterable[int]) -> None:
        """These tasks wait again."""
        for index in indices:
            group.states[index] = WAITING
            group.where[index] = 0  # it was given, so there is room
            self.scheduled += 1
            self.pending -= 1

    def succeeded(self, group: TaskGroup, start: int, stop: int, incarnation: int) -> None:
        """These tasks have succeeded on one engine; the caller tells the client."""
        count = stop - start
        group.end(start, stop, SUCCEEDED, incarnation)
        self.pending -= count
        self.n_succeeded += count
        if group.children:
            for index in sorted(group.children):
                if start <= index < stop:
                    self._parent_succeeded(group.children.pop(index), (group.id, index), incarnation)
        self._fewer(group, count)

    def failed(self, group: TaskGroup, indices: Sequence[int], incarnation: int) -> None:
        """Tasks have failed finally on one engine; the caller tells the client."""
        for index in indices:
            group.end(index, index + 1, FAILED, incarnation)
        self.pending -= len(indices)
        self.n_failed += len(indices)
        self._undone_now(self._orphans(group, indices))
        self._fewer(group, len(indices))

    def undone(
        self, group: TaskGroup, indices: Sequence[int], error: str, text: str, *, still_there: bool = False
    ) -> None:
        """These tasks will not be completed; tell the client.

        ``still_there``: an engine set has them; call :meth:`gone` when it has returned them.
        """
        self._undone_now([_Undone(group, indices, error, text, DROPPED if still_there else UNDONE)])

    def _undone_now(self, todo: list[_Undone]) -> None:
        # A list instead of recursion: chains of dependent tasks may be ten thousand long.
        while todo:
            group, indices, error, text, state = todo.pop()
            if indices is None:
                indices = [index for index, known in enumerate(group.states) if known == WAITING]
            if not indices:
                continue
            given = sum(GIVEN <= group.states[index] <= INTERRUPTED for index in indices)
            self.pending -= given
            self.scheduled -= len(indices) - given
            self.n_failed += len(indices)
            for index in indices:
                group.states[index] = state
            if group.client in self._clients:
                short = text[: 64 * limits.LABEL]
                message = m.TasksUndone(group.id, packed.pack(indices), error, short)
                self.effects.append(Send(group.client, message))
            todo += self._orphans(group, indices)
            if state == UNDONE:
                self._fewer(group, len(indices))

    def gone(self, group: TaskGroup, index: int) -> None:
        """A set has returned a task that was already reported."""
        group.states[index] = UNDONE
        self._fewer(group, 1)

    # --- groups that wait for others ---------------------------------------------------------------------------

    def _parent_succeeded(self, children: list[TaskGroup], name: tuple[int, int], incarnation: int) -> None:
        for child in children:
            child.missing -= 1
            if child.follows == name:
                child.follow = incarnation
            if child.missing == 0 and child.unfinished:
                self._on_ready(child)

    def _orphans(self, group: TaskGroup, indices: Iterable[int]) -> list[_Undone]:
        """Return the ends of groups that depend on these tasks."""
        if not group.children:
            return []
        return [
            _orphan(child, group.options.label, (group.id, index))
            for index in indices
            for child in group.children.pop(index, ())
        ]

    # --- the end -------------------------------------------------------------------------------------------

    def _fewer(self, group: TaskGroup, count: int) -> None:
        group.unfinished -= count
        if group.unfinished:
            return
        del self.groups[group.serial]
        if group.stream:
            self.effects.append(Decline(group.client, group.stream))
            group.stream = 0
        state = self._clients.get(group.client)
        if state is not None:
            del state.groups[group.id]
            state.held -= group.size
            state.records[group.id] = EndedGroup(group.options.label, group.states, group.where)
            if len(state.records) > RECORDS:
                del state.records[next(iter(state.records))]
            if group.condition is not None:
                group.condition.groups -= 1
                if not group.condition.groups:
                    state.conditions.pop(group.options.operation, None)
        group.payload = b""
        group.lengths = b""
        self._on_closed(group)


def _parents(options: m.TaskOptions) -> dict[tuple[int, int], None]:
    """Return the tasks that must succeed first."""
    return dict.fromkeys(options.after if options.follow is None else [*options.after, options.follow])


def _orphan(group: TaskGroup, parent: str, name: tuple[int, int]) -> _Undone:
    text = (
        f"{group.options.label} was not run: it waited for {parent} (task {name[1]} of group {name[0]}), which "
        "did not succeed"
    )
    return _Undone(group, None, "DependencyError", text, UNDONE)


def _label(known: TaskGroup | EndedGroup) -> str:
    return known.label if isinstance(known, EndedGroup) else known.options.label


def _check(message: m.SubmitTasks, engines: int) -> None:
    """Refuse invalid tasks, and those that would not fit into the message to a set."""
    options = message.options
    if not 0 <= message.id <= _LARGEST_NUMBER:
        raise errors.ClientError(f"a group of tasks has a number from 0 to {_LARGEST_NUMBER}, not {message.id}")
    if len(message.lengths) % 4 or len(message.lengths) > 4 * limits.TASKS_PER_MESSAGE:
        raise errors.ClientError(f"a group has at most {limits.TASKS_PER_MESSAGE} tasks")
    if not (1 <= options.width <= limits.MAX_ENGINES and 0 <= options.retries <= limits.TASK_NUMBER):
        raise errors.ClientError(
            f"a task runs on 1 to {limits.MAX_ENGINES} ranks, and is retried 0 to {limits.TASK_NUMBER} times; "
            f"not on {options.width}, and {options.retries} times"
        )
    if not -limits.TASK_NUMBER <= options.priority + 1 <= limits.TASK_NUMBER + 1:
        raise errors.ClientError(f"the priority of a task has 32 bits: {options.priority}")
    if not all(
        0 <= seconds <= limits.LONGEST
        for seconds in (options.timeout or 0, options.expected or 0)  # nor nan
    ):
        raise errors.ClientError(
            f"timeout and expected are numbers of seconds from 0 to {limits.LONGEST:.0f} (a century); leave them "
            "out for none"
        )
    size = header_size(options.operation, message.sizes, engines) + 18 * len(options.functions)
    if size > LARGEST_HEADER - _OTHER_FIELDS:
        raise errors.MessageSizeError(
            f"{options.label[: limits.LABEL]}: {size} bytes beside its arguments do not fit into one message. "
            "Push large data first, and use it by name"
        )
