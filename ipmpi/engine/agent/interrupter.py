"""Interrupts what a rank runs, again and again until it has heard of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ...transport.loop import Loop
from ..rank.controlblock import CURRENT, HEARD, INTERRUPTS, TARGET, ControlBlock

_AGAIN: Final = 0.05
"""Seconds after which an interrupt that was not raised is repeated; then doubled, up to a second."""


class Interrupter:
    """The interrupts of one rank.

    Args:
        block: the memory shared with it.
        send_signal: sends it the signal of interrupts.
        is_there: whether its socket is open.
    """

    def __init__(
        self, loop: Loop, block: ControlBlock, send_signal: Callable[[], None], is_there: Callable[[], bool]
    ) -> None:
        self._loop = loop
        self._block = block
        self._send_signal = send_signal
        self._is_there = is_there
        self._is_under_way = False

    def interrupt(self, target: int) -> None:
        """Raise KeyboardInterrupt if ``target`` runs, as in CURRENT."""
        words = self._block.words
        words[TARGET] = target
        self._block.fence()
        words[INTERRUPTS] += 1
        self._send_signal()
        if not self._is_under_way:
            self._is_under_way = True
            self._loop.call_later(_AGAIN, lambda: self._again(_AGAIN))

    def _again(self, delay: float) -> None:
        """Repeat an interrupt until it was raised.

        Python checks for signals between instructions. A signal between that check and the begin of a sleep or
        read is noticed at its end only; another signal ends the sleep.
        """
        words = self._block.words
        if not self._is_there() or words[HEARD] == words[INTERRUPTS] or words[CURRENT] != words[TARGET]:
            self._is_under_way = False
            return
        self._send_signal()
        delay = min(2 * delay, 1.0)
        self._loop.call_later(delay, lambda: self._again(delay))
