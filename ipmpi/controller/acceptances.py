"""Groups of tasks that are in the journal, until their clients are told (no I/O)."""

from __future__ import annotations

from collections.abc import Iterable

from ..protocol import messages as m
from .effects import Effect, Send


class Acceptances:
    """Their numbers, by client.

    A client that is told needs less memory, and nobody waits for it. So it is told with something else, mostly the
    result, or a little later: a message of its own would wake up both ends once more for each group.
    """

    def __init__(self) -> None:
        self._by_client: dict[int, list[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_client)

    def add(self, client: int, number: int) -> None:
        """A group is on the disk."""
        self._by_client.setdefault(client, []).append(number)

    def before(self, told: Iterable[Effect]) -> list[Effect]:
        """Return what clients are told before this, if they are told something."""
        return self._of({effect.to for effect in told if isinstance(effect, Send)}.intersection(self._by_client))

    def all(self) -> list[Effect]:
        """Return what all clients are told."""
        return self._of(list(self._by_client))

    def _of(self, clients: Iterable[int]) -> list[Effect]:
        return [Send(client, m.TasksAccepted(self._by_client.pop(client))) for client in clients]
