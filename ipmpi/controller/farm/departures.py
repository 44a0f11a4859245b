"""What becomes of the tasks of clients whose sessions have ended (no I/O)."""

from __future__ import annotations

from collections.abc import Callable, Collection

from .aborts import Aborts
from .functions import Functions
from .groups import GIVEN, INTERRUPTED
from .large import LargeResults
from .largearguments import LargeArguments
from .sets import SetStates
from .taskqueue import TaskQueue
from .tasktable import TaskTable


class Departures:
    """Ends or frees what clients had.

    Args:
        large: large results and arguments.
        forget: called with keys of functions that nobody uses any more.
    """

    def __init__(
        self,
        table: TaskTable,
        places: SetStates,
        waiting: TaskQueue,
        functions: Functions,
        aborts: Aborts,
        large: tuple[LargeResults, LargeArguments],
        forget: Callable[[list[bytes]], None],
    ) -> None:
        self._table = table
        self._sets = places
        self._waiting = waiting
        self._functions = functions
        self._aborts = aborts
        self._large, self._bodies = large
        self._forget = forget

    def lost(self, client: int) -> None:
        """Drop a client's waiting tasks, and cancel given ones that have not started."""
        self._bodies.client_lost(client)
        for group in self._table.client_lost(client):
            held = [index for index, state in enumerate(group.states) if GIVEN <= state <= INTERRUPTED]
            self._aborts.tell_sets(group, held, interrupt=False)
            self._table.undone(group, held, "TaskAborted", "", still_there=True)
            self._table.undone(group, group.waiting(), "TaskAborted", "")
        self._free(client)

    def gone(self, client: int, kept: Collection[int]) -> None:
        """Let a client's tasks go on without it; ``kept``: groups whose results the controller keeps already."""
        self._large.client_gone(client, kept)
        self._bodies.client_gone(client)
        self._free(client)

    def _free(self, client: int) -> None:
        """End a client's reservations, and what else it held."""
        self._waiting.resume(client)
        self._forget(self._functions.client_lost(client))
        self._table.effects += self._sets.client_lost(client)
