"""What may be asked for tasks, checked, and as the controller is told it (layer L4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .. import limits
from ..errors import ClientError
from ..protocol import messages as m, operations
from .desk import Terms
from .functions import Definition
from .prepared import prepared_here

Reference = tuple[int, int]
MakeTerms = Callable[[Sequence[Reference], Reference | None], Terms]
"""Makes the terms of a task, when it is known what it comes after, and whom it follows."""


class Settings(NamedTuple):
    """The options that tasks of every kind have.

    Attributes:
        retries: how often it is tried again after it raised.
        priority: larger first; any int.
        timeout: seconds that it may run.
        expected: seconds that it will take, by the user's guess.
        ranks: that run it together.
        same_node: whether these have to be on one node.
        clear_before: empty the namespace first; ``clear_after``: in the end.
    """

    retries: int = 0
    priority: int = 0
    timeout: float | None = None
    expected: float | None = None
    ranks: int = 1
    same_node: bool = False
    clear_before: bool = False
    clear_after: bool = False

    def given(self) -> list[str]:
        """The names of those that are not as usual."""
        if self == _USUAL:
            return []
        return [name for name, value, usual in zip(self._fields, self, _USUAL, strict=True) if value != usual]

    def check(self) -> None:
        """Raise TypeError or ValueError, saying what is wrong."""
        if self == _USUAL and type(self.retries) is type(self.ranks) is type(self.priority) is int:
            return  # a task is checked several times on its way
        if not _is_int(self.retries) or self.retries < 0:
            raise TypeError(f"a task's retries must be an int, 0 or more: {self.retries!r}")
        if not _is_int(self.priority):
            raise TypeError(f"a task's priority must be an int: {self.priority!r}")
        if not -(2**31) <= self.priority < 2**31:
            raise ValueError(f"a task's priority must be an int of 32 bits: {self.priority}")
        if not _is_int(self.ranks) or self.ranks < 1:
            raise TypeError(f"a task's ranks must be an int, 1 or more: {self.ranks!r}")
        for name in ("timeout", "expected"):
            seconds = getattr(self, name)
            if seconds is not None and not (_is_number(seconds) and seconds > 0):
                raise TypeError(f"a task's {name} must be a number of seconds above 0, or None: {seconds!r}")


_USUAL = Settings()


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def call_terms(
    definition: Definition,
    settings: Settings,
    spread: bool,
    depend: Definition | None = None,
    after: Sequence[Reference] = (),
    follow: Reference | None = None,
) -> Terms:
    """The terms of calls of a function; the same object for the same terms, so that calls go together.

    Args:
        definition: of the function.
        settings: see there; they are checked.
        spread: whether the payloads are positional arguments only.
        depend: of the condition.
        after: tasks that have to succeed first.
        follow: the task on whose engine it is to run.
    """
    key = (settings, spread, depend)
    alone = not after and follow is None
    if alone:
        known = definition.cache.get(key)
        if known is not None:
            found: Terms = known
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
    terms = make_terms(operation, definition.label, [definition], settings, depend, after, follow)
    if alone:
        definition.cache[key] = terms
    return terms


def make_terms(
    operation: operations.TaskOperation,
    label: str,
    definitions: Sequence[Definition],
    settings: Settings,
    depend: Definition | None = None,
    after: Sequence[Reference] = (),
    follow: Reference | None = None,
) -> Terms:
    """The terms of any task; see :func:`call_terms`.

    Raises:
        TypeError, ValueError: a setting is wrong.
        ClientError: they cannot be sent, or are too large for that.
    """
    settings.check()
    encoded = operations.encode(operation)
    room = limits.MESSAGE - limits.INLINE_BODY - 64 * limits.KIB
    if len(encoded) > room:
        raise ClientError(f"the text of this task has {len(encoded)} bytes; push() large data, and use it by name")
    if len(encoded) + 11 * len(after) > room:
        raise ClientError(
            f"this task comes after {len(after)} others, which is too much for one message: let some tasks in "
            "between each come after a part of them"
        )
    used = [*definitions, *([] if depend is None else [depend])]
    options = m.TaskOptions(
        encoded,
        label,
        [definition.key for definition in used],
        settings.retries,
        settings.priority,
        settings.ranks,
        bool(settings.same_node),
        _seconds(settings.timeout),
        _seconds(settings.expected),
        depend is not None,
        list(after),
        follow,
    )
    prepared_here(m.SubmitTasks(0, options, b"", [0]))
    return Terms(options, tuple(used))


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)
