"""Results of tasks that the controller has not recorded, kept by the root agent of a set (no I/O).

A controller with a journal says which messages of results it has recorded. If it is killed, a new one is told
which tasks ranks have, and gets the other results again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ...protocol import messages as m, packed
from ...protocol.frames import Buffer
from ..farm.effects import Up

_GROUPS = 64
"""Groups in one TasksHeld; a group has up to TASKS_PER_MESSAGE tasks, of 4 bytes each."""


class UnrecordedResults:
    """The results that a controller may not have.

    ``is_on``: whether the controller has a journal, and says what is recorded.
    """

    def __init__(self) -> None:
        self.is_on = False
        self._results: deque[tuple[m.TaskResults, Sequence[Buffer]]] = deque()
        self._recorded = 0
        self._held: Mapping[int, set[int]] | None = None

    def note(self, effects: Iterable[Up]) -> None:
        """These are sent to the controller."""
        if self.is_on:
            for effect in effects:
                if isinstance(effect.message, m.TaskResults):
                    self._results.append((effect.message, effect.body))

    def recorded(self, results: int) -> None:
        """The controller has recorded so many messages, counted from the first on this link."""
        while self._recorded < results and self._results:
            self._results.popleft()
            self._recorded += 1

    def hold(self, held: Mapping[int, set[int]]) -> None:
        """The controller was restarted, and ranks have these tasks, by group."""
        self._held = held

    def after_registration(self, ranks: Collection[int]) -> list[tuple[m.AnyMessage, Sequence[Buffer]]]:
        """Return what a new controller is told after it was told of these ranks: tasks, and results."""
        if self._held is None:
            return []
        runs, self._held = self._held, None
        # The new one cannot tell whose the result of a rank is that it has never heard of: that task runs again.
        # A task that ranks have again had failed, and was given again when the controller had recorded that.
        results = [
            (message, body)
            for message, body in self._results
            if message.rank in ranks
            and not runs.get(message.group, set()).issuperset(packed.unpack(message.indices))
        ]
        held = {serial: set(indices) for serial, indices in runs.items()}
        again: dict[int, set[int]] = {}
        for message, _ in results:
            ended = packed.unpack(message.indices)
            held.setdefault(message.group, set()).update(ended)
            if running := runs.get(message.group, set()).intersection(ended):
                again.setdefault(message.group, set()).update(running)
        self._results = deque(results if self.is_on else ())
        self._recorded = 0
        # Only after the last may others be given what has failed: it may have run again here, or it runs now.
        return [*_told(held), *results, *_told(again), (m.TasksHeld([], True), ())]


def _told(held: Mapping[int, set[int]]) -> Iterator[tuple[m.AnyMessage, Sequence[Buffer]]]:
    """Return messages that say which tasks ranks have."""
    groups = [(serial, packed.pack(sorted(indices))) for serial, indices in held.items()]
    for start in range(0, len(groups), _GROUPS):
        yield m.TasksHeld(groups[start : start + _GROUPS], False), ()
