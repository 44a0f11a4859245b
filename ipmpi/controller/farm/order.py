"""The order in which tasks are given to engines (no I/O).

An *order* ranks tasks when they join the queue. ``fifo``, ``lifo`` and ``priority`` (the default) are built in; a
site's own class is named to ``ipcontroller --scheduler package.module:Class``, is created without arguments and
implements :class:`Order`. It decides neither where a task runs nor how many tasks an engine set gets at a time.

    >>> class ShortestFirst:
    ...     newest_first = False
    ...     def rank(self, queued):
    ...         return (queued.expected or 0.0, queued.arrival)
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

Rank = tuple[float, ...]
"""A sort key: smaller ones go first. All ranks of one order have the same length."""


class Queued(NamedTuple):
    """Tasks that join the queue: all have the same options, and were submitted at the same time.

    ``arrival`` counts up: a later arrival has a larger number. A task that is retried after a failure gets a new
    one; a task that is queued again for another reason (such as a lost engine) keeps its rank. ``expected`` is the
    run time in seconds, None if the client has not given it.
    """

    arrival: int
    client: int
    tasks: int
    priority: int
    expected: float | None


class Order(Protocol):
    """Ranks tasks.

    Attributes:
        newest_first: whether, among tasks of equal rank, the last submitted go first.
    """

    newest_first: bool

    def rank(self, queued: Queued) -> Rank:
        """Return the rank of these tasks."""


class Fifo:
    """First in, first out; priorities do not count."""

    newest_first = False

    def rank(self, queued: Queued) -> Rank:
        """Earlier arrivals first."""
        return (queued.arrival,)


class Lifo:
    """Last in, first out; priorities do not count."""

    newest_first = True

    def rank(self, queued: Queued) -> Rank:
        """Later arrivals first."""
        return (-queued.arrival,)


class Priority:
    """Larger priorities first, and first in, first out among equal ones."""

    newest_first = False

    def rank(self, queued: Queued) -> Rank:
        """Larger priorities first, then earlier arrivals."""
        return (-queued.priority, queued.arrival)


ORDERS: Final[dict[str, type[Order]]] = {"fifo": Fifo, "lifo": Lifo, "priority": Priority}
