"""The options of tasks: their checks, and the terms that are sent to the controller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ... import limits
from ...errors import ClientError
from ...protocol import messages as m, operations
from ...protocol.namedtasks import UNNAMED
from ..session import given
from ..session.functions import Definition
from ..session.prepared import prepared_here
from .taskgroup import SubmitTerms

Reference = tuple[int, int]
MakeTerms = Callable[[Sequence[Reference], Reference | None], SubmitTerms]
"""Makes the terms of a task from the tasks that it runs after, and the one that it follows."""


class TaskSettings(NamedTuple):
    """The options that all tasks have.

    Attributes:
        retries: how often it is run again after it raised.
        priority: larger first; any int.
        timeout: seconds that it may run.
        expected: the user's estimate of its run time in seconds.
        ranks: number of ranks that run it together.
        same_node: whether these must be on one node.
        clear_before: clear the namespace first; ``clear_after``: at the end.
        name: by which they can be found again; "" for none.
        detach: whether they go on without their client; None: as for the other tasks of the client.
    """

    retries: int = 0
    priority: int = 0
    timeout: float | None = None
    expected: float | None = None
    ranks: int = 1
    same_node: bool = False
    clear_before: bool = False
    clear_after: bool = False
    name: str = ""
    detach: bool | None = None

    def given(self) -> list[str]:
        """Return the names of those that differ from the default."""
        if self is USUAL:
            return []
        checked = zip(self._fields, self.checked(), USUAL, strict=True)
        return [name for name, value, usual in checked if value != usual]

    def checked(self) -> TaskSettings:
        """Return them as plain Python numbers; raises TypeError or ValueError if one is wrong."""
        if self is USUAL:
            return self  # a task is checked several times on its way
        most = limits.TASK_NUMBER
        return TaskSettings(
            given.whole_number(self.retries, "a task's retries", 0, most),
            given.whole_number(self.priority, "a task's priority", -most - 1, most),
            given.seconds(self.timeout, "a task's timeout"),
            given.seconds(self.expected, "a task's expected time"),
            given.whole_number(self.ranks, "a task's ranks", 1, limits.MAX_ENGINES),
            bool(self.same_node),
            bool(self.clear_before),
            bool(self.clear_after),
            name_of_tasks(self.name) if self.name != "" else "",
            None if self.detach is None else bool(self.detach),
        )


USUAL: Final = TaskSettings()
"""The options of a task of which none was given. Most are such tasks, and known by this object."""


def settings_for(
    retries: int = 0,
    priority: int = 0,
    timeout: float | None = None,
    expected: float | None = None,
    ranks: int = 1,
    same_node: bool = False,
    name: str = "",
    detach: bool | None = None,
) -> TaskSettings:
    """Return the options of a call, not yet checked; :data:`USUAL` if they are the usual ones."""
    if (
        timeout is expected is detach is None
        and same_node is False
        and type(name) is str
        and type(retries) is type(priority) is type(ranks) is int
        and (retries, priority, ranks, name) == (0, 0, 1, "")
    ):
        return USUAL
    return TaskSettings(retries, priority, timeout, expected, ranks, same_node, name=name, detach=detach)


def name_of_tasks(name: object) -> str:
    """Return a name that tasks may be given.

    Raises:
        TypeError: it is not a str.
        ValueError: it is too long, or has characters that cannot be printed, or is of the kind that tasks
            without a name get.
    """
    found = given.text(name, "the name of tasks", limits.LABEL)
    if not found.isprintable() or not found.strip():
        raise ValueError(f"the name of tasks must have printable characters only, and some: {given.shown(name)}")
    if found.startswith(UNNAMED):
        raise ValueError(
            f"names with {UNNAMED!r} at the beginning are of tasks without a name: {given.shown(name)}"
        )
    return found


def call_terms(
    definition: Definition,
    settings: TaskSettings,
    spread: bool,
    depend: Definition | None = None,
    after: Sequence[Reference] = (),
    follow: Reference | None = None,
    is_map: bool = False,
) -> SubmitTerms:
    """Return the terms of calls of a function; the same object for equal terms, so that calls can be grouped.

    Args:
        definition: the pickled function.
        settings: the options, not yet checked.
        spread: whether the payloads are positional arguments only.
        depend: the pickled condition.
        after: tasks that must succeed first.
        follow: the task on whose engine to run.
        is_map: whether they are items of one call of map.
    """
    settings = settings.checked()
    key = (settings, spread, depend, is_map)
    alone = not after and follow is None
    if alone:
        known = definition.cache.get(key)
        if known is not None:
            found: SubmitTerms = known
            return found
    operation = operations.CallTaskOperation(
        definition.key,
        spread,
        settings.ranks > 1,
        settings.clear_before,
        settings.clear_after,
        b"" if depend is None else depend.key,
        definition.space,
    )
    terms = make_terms(operation, definition.label, [definition], settings, depend, after, follow, is_map)
    if alone:
        definition.cache[key] = terms
    return terms


def make_terms(
    operation: operations.TaskOperation,
    label: str,
    definitions: Sequence[Definition],
    settings: TaskSettings,
    depend: Definition | None = None,
    after: Sequence[Reference] = (),
    follow: Reference | None = None,
    is_map: bool = False,
) -> SubmitTerms:
    """Return the terms of any task; see :func:`call_terms`.

    Raises:
        TypeError, ValueError: a setting is wrong.
        ClientError: the terms cannot be encoded, or are too large.
    """
    settings = settings.checked()
    encoded = operations.encode(operation)
    room = limits.MESSAGE - limits.INLINE_BODY - 64 * limits.KIB
    if len(encoded) > room:
        raise ClientError(f"the text of this task has {len(encoded)} bytes: push() large data, and use it by name")
    if len(encoded) + 11 * len(after) > room:
        raise ClientError(
            f"this task runs after {len(after)} others, too many for one message: let some tasks in between each "
            "run after a part of them"
        )
    used = [*definitions, *([] if depend is None else [depend])]
    options = m.TaskOptions(
        encoded,
        label,
        [definition.key for definition in used],
        settings.retries,
        settings.priority,
        settings.ranks,
        settings.same_node,
        settings.timeout,
        settings.expected,
        depend is not None,
        list(after),
        follow,
        settings.name,
        settings.detach,
        is_map,
    )
    prepared_here(m.SubmitTasks(0, options, b"", [0]))
    return SubmitTerms(options, tuple(used))
