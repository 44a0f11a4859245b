"""Which messages with results engine sets need not keep any longer (no I/O)."""

from __future__ import annotations

from ..protocol import messages as m
from .effects import Effect, Send


class Receipts:
    """The number of messages with results that each set has sent, and of those that it was told are recorded."""

    def __init__(self) -> None:
        self._heard: dict[int, int] = {}
        self._recorded: dict[int, int] = {}

    def heard(self, key: int) -> None:
        """A set has sent one."""
        self._heard[key] = self._heard.get(key, 0) + 1

    def lost(self, key: int) -> None:
        """A set is lost."""
        self._heard.pop(key, None)
        self._recorded.pop(key, None)

    def due(self) -> list[Effect]:
        """All that were sent are recorded: return what sets are told."""
        found: list[Effect] = []
        for key, heard in self._heard.items():
            if heard > self._recorded.get(key, 0):
                self._recorded[key] = heard
                found.append(Send(key, m.ResultsRecorded(heard)))
        return found
