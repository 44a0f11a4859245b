"""Tasks that come back: from a journal, and from engine sets that had them (no I/O).

A task whose end is not known may be with an engine set that has not come back yet. So restored groups are withheld
from the queue until the caller says that nobody can have their tasks any more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from ...protocol import messages as m, packed
from ...protocol.frames import Buffer, split
from .answers import numbers
from .arguments import ArgumentMemory, Arguments
from .functions import Functions
from .groups import DROPPED, FAILED, SUCCEEDED, UNDONE, WAITING, EndedGroup, TaskGroup, Tries
from .sets import SetState, SetStates
from .tasktable import TaskTable

Ends = m.TasksDone | m.TaskDone | m.TasksUndone
"""Messages that tell a client of ends of tasks."""


def ends_in(message: Ends) -> Sequence[int]:
    """Return the tasks whose ends a message tells."""
    return [message.index] if isinstance(message, m.TaskDone) else packed.unpack(message.indices)


def is_failure(message: Ends) -> bool:
    """Return whether a message tells of tasks that have not succeeded, on which others may depend."""
    return isinstance(message, m.TasksUndone) or (isinstance(message, m.TasksDone) and bool(message.failed))


class FarmRecovery:
    """Restores groups, and gives tasks back to the sets that have them.

    Args:
        queue: called with each group that is to be run, when it is not withheld any longer.
        taken: called with each task that has ended although a set has not said so yet.
        released: called with each client whose tasks no set can have any more that has not said so.
    """

    def __init__(
        self,
        table: TaskTable,
        places: SetStates,
        functions: Functions,
        arguments: ArgumentMemory,
        queue: Callable[[TaskGroup], None],
        taken: Callable[[SetState, TaskGroup, int], None],
        released: Callable[[int], None],
    ) -> None:
        self._table = table
        self._sets = places
        self._functions = functions
        self._arguments = arguments
        self._queue = queue
        self._taken = taken
        self._released = released
        self.on_used: Callable[[TaskGroup], object] = lambda group: None
        """Called with groups of which tasks have used retries, or were rejected by an engine."""
        self._restored: set[int] = set()
        self._withheld: dict[int, list[TaskGroup]] = {}

    # --- to the journal, and from it ---------------------------------------------------------------------------

    def spill(self, read: Callable[[int], Arguments]) -> None:
        """Let arguments of groups that are written leave the memory; ``read`` gives them back, by serial."""
        self._arguments.read = read
        self._table.is_journalled = True

    def is_written(self, serial: int) -> None:
        """A group is in the journal."""
        group = self._table.groups.get(serial)
        if group is not None:
            self._arguments.written(group)

    def restore(
        self,
        serial: int,
        client: int,
        message: m.SubmitTasks,
        body: Sequence[Buffer] | None,
        ends: Iterable[Ends],
        functions: dict[bytes, bytes],
    ) -> None:
        """Add a group that was accepted before, with the ends of its tasks that are known.

        ``body``: None if it is in the journal only.

        Raises:
            KeyError: a function that it needs is not in ``functions``.
        """
        for key in message.options.functions:
            self._functions.restore(client, key, functions[key])
        self._functions.use(client, message.options.functions)
        group = self._table.insert(serial, client, message, body)
        self._restored.add(serial)
        self._sets.group_opened(group.options.expected)
        for end in ends:
            failed: Collection[int] = ()
            if isinstance(end, m.TasksDone):
                failed = set(packed.unpack(end.failed))
            for position, index in enumerate(ends_in(end)):
                undone = isinstance(end, m.TasksUndone)
                state = UNDONE if undone else FAILED if position in failed else SUCCEEDED
                self._table.has_ended(group, index, state)
        self._table.restored(group, message.options)

    def restore_record(self, client: int, number: int, label: str, states: bytes) -> None:
        """Add the record of a group that has ended, to which others can refer."""
        self._table.add_record(client, number, label, bytearray(states))

    def continue_after(self, serial: int) -> None:
        """Give new groups larger serials than this one."""
        self._table.continue_after(serial)

    # --- what tasks have used --------------------------------------------------------------------------------

    @property
    def on_reserved(self) -> Callable[[int], object]:
        """Called with clients whose reservations have changed."""
        return self._sets.on_reserved

    @on_reserved.setter
    def on_reserved(self, call: Callable[[int], object]) -> None:
        self._sets.on_reserved = call

    def open_group(self, serial: int) -> TaskGroup | None:
        """Return a group that has not ended."""
        return self._table.groups.get(serial)

    def has_used(self, serial: int, tries: dict[int, Tries], refusal: str) -> bool:
        """Tasks of a group that was restored have used retries; return False if it has ended.

        ``refusal``: what the last engine has said that rejected one.
        """
        group = self._table.groups.get(serial)
        if group is not None:
            group.tries = tries or None
            group.repeats = {index: each.marks for index, each in tries.items()}
            group.last_refusal = refusal
        return group is not None

    def has_rejected(self, serial: int, index: int, key: int, rank: int) -> None:
        """An engine has rejected a task that was restored."""
        group = self._table.groups.get(serial)
        engine = self._sets.by_key[key].incarnations.get(rank)
        if group is not None and engine is not None:
            group.rejected = group.rejected or {}
            group.rejected.setdefault(index, set()).add(engine.number)

    def places(self, numbers: Iterable[int]) -> list[tuple[int, int]]:
        """Return set and rank of engines, by incarnation; not of those that are lost."""
        engines = [self._sets.incarnations[number] for number in numbers if number in self._sets.incarnations]
        return [(engine.key, engine.rank) for engine in engines]

    def engine_id(self, key: int, rank: int) -> int:
        """Return the id of an engine, which may be lost; -1 if it is not known."""
        set_state = self._sets.by_key.get(key)
        engine = set_state.former.get(rank) if set_state is not None else None
        return -1 if engine is None else engine.id

    # --- withholding -----------------------------------------------------------------------------------------

    def ready(self, group: TaskGroup) -> None:
        """Queue a group, unless a set may have its tasks."""
        if group.serial in self._restored:
            self._withheld.setdefault(group.client, []).append(group)
        else:
            self._queue(group)

    def may_be_held(self, serial: int) -> bool:
        """Return whether a set that has not come back may have tasks of a group."""
        return serial in self._restored

    def is_withheld(self, group: TaskGroup) -> bool:
        """Return whether a group will be queued later, with all of its tasks that wait then."""
        return group in self._withheld.get(group.client, ())

    def release(self, client: int) -> None:
        """Run what is left of a client's restored groups: no set can have it any more."""
        self._restored = {serial for serial in self._restored if self._is_of_other(serial, client)}
        self._released(client)
        for group in self._withheld.pop(client, ()):
            if group.unfinished:
                self._queue(group)

    def _is_of_other(self, serial: int, client: int) -> bool:
        group = self._table.groups.get(serial)
        return group is not None and group.client != client

    # --- from engine sets ------------------------------------------------------------------------------------

    def adopt(self, key: int, serial: int, indices: Iterable[int]) -> list[int]:
        """A set has these tasks: count them as given to it; return those that it should not have."""
        group, state = self._table.groups.get(serial), self._sets.by_key.get(key)
        refused: list[int] = []
        taken = 0
        for index in dict.fromkeys(indices):
            if group is not None and group.is_given(key, index):
                continue
            if group is None or state is None or index >= group.count or group.states[index] != WAITING:
                refused.append(index)
                continue
            group.give(key, index, index + 1)
            group.started[index] = 1
            taken += 1
        if group is not None and state is not None and taken:
            self._table.given(taken)
            state.unanswered += taken
            state.movable += taken if group.is_movable else 0
            state.given[serial] = state.given.get(serial, 0) + taken
            self._sets.update(state)
        return refused

    def told_again(self, key: int, serial: int, indices: bytes) -> None:
        """A set tells how tasks have ended there: one that had failed before was with it again since.

        Once nothing is withheld, others may have that task.
        """
        if serial in self._restored:
            self.adopt(key, serial, numbers(indices))

    # --- from clients ----------------------------------------------------------------------------------------

    def has_result(self, client: int, number: int, left_out: Collection[int]) -> list[tuple[int, int]]:
        """A client has the results of all tasks of a group except these.

        Returns:
            Those that had not ended here: their indices, and the key of the set that has each, or 0.
        """
        group = self._table.of_client(client, number)
        if group is None:
            return []
        found = self._table.client_has(group, [i for i in range(group.count) if i not in left_out])
        for index, key in found:
            if key:
                self._taken(self._sets.by_key[key], group, index)
        return found

    def ended_of(self, client: int, number: int, wanted: Collection[int] | None) -> list[int]:
        """Return which of these tasks of a restored group (None: of all) do not wait."""
        group, record = self._table.of_client(client, number), self.record(client, number)
        found = range(len(record.states)) if record is not None and wanted is None else sorted(wanted or ())
        return [i for i in found if group is None or not i < group.count or group.states[i] > WAITING]

    def ended(self, client: int, number: int, tasks: int) -> set[int]:
        """Return which of the ``tasks`` tasks of a group have ended for their client."""
        group = self._table.of_client(client, number)
        if group is None:
            return set(range(tasks))
        return {index for index, state in enumerate(group.states) if state >= DROPPED}

    def is_over(self, client: int, number: int) -> bool:
        """Return whether a group has ended everywhere."""
        return self._table.of_client(client, number) is None

    def states(self, client: int, number: int) -> tuple[int, int, int]:
        """Return how many tasks of an open group run, have succeeded, and have not."""
        group = self._table.of_client(client, number)
        if group is None:
            return 0, 0, 0
        count = group.states.count
        failed = count(FAILED) + count(UNDONE) + count(DROPPED)
        return len(group.given()), count(SUCCEEDED), failed

    def record(self, client: int, number: int) -> EndedGroup | None:
        """Return label and states of a group, if it is known."""
        return self._table.record(client, number)

    def withdraw(self, client: int, number: int) -> None:
        """Take out a group that was submitted just now, of which no set has got a task."""
        self._table.withdraw(client, number)


def only(message: Ends, body: bytes, wanted: set[int] | None) -> list[tuple[Ends, list[Buffer]]]:
    """Return the message, with body, for those of its tasks that are wanted (None: all); [] if there are none."""
    indices = ends_in(message)
    if wanted is None or wanted.issuperset(indices):
        sizes = [] if isinstance(message, m.TasksUndone) else message.sizes
        return [(message, split(memoryview(body), sizes))]
    positions = [position for position, index in enumerate(indices) if index in wanted]
    if not positions:
        return []
    chosen = packed.pack(indices[position] for position in positions)
    if isinstance(message, m.TasksUndone):
        return [(m.TasksUndone(message.group, chosen, message.error, message.text), [])]
    assert isinstance(message, m.TasksDone)
    lengths, failed = packed.unpack(message.lengths), set(packed.unpack(message.failed))
    pieces = list(packed.slices(body, lengths))
    part = b"".join([pieces[position] for position in positions])
    done = m.TasksDone(
        message.group, message.engine, chosen,
        packed.pack(new for new, position in enumerate(positions) if position in failed),
        packed.pack(lengths[position] for position in positions), [len(part)],
    )  # fmt: skip
    return [(done, [part])]
