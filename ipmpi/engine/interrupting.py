"""Interrupts are sent again until they are heard (layer L4)."""

from __future__ import annotations

from ..transport.loop import Loop
from .rank import Rank

_AGAIN = 0.05
"""Seconds after which an interrupt that was not raised is sent again; then twice that, up to a second."""


class Interrupting:
    """Interrupts the main thread of a rank (agent thread)."""

    def __init__(self, loop: Loop, rank: Rank) -> None:
        self._loop = loop
        self._rank = rank

    def interrupt(self) -> None:
        """KeyboardInterrupt in the command that runs now, if one does."""
        self._rank.interrupt()
        self.keep()

    def keep(self) -> None:
        """An interrupt was sent: see to it that it is heard."""
        self._loop.call_later(_AGAIN, lambda: self._again(_AGAIN))

    def _again(self, delay: float) -> None:
        if self._rank.interrupts.send_again():
            delay = min(2 * delay, 1.0)
            self._loop.call_later(delay, lambda: self._again(delay))
