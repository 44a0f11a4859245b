"""Replies to commands on their way up, merged while they wait for others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...protocol import messages as m
from ...protocol.frames import Buffer
from ...transport.loop import Loop, Timer
from .fold import Fold, Folded


class Upward:
    """Merges replies, and has the timer for it.

    Args:
        send_up: called with each reply and its body.
    """

    def __init__(self, loop: Loop, send_up: Callable[[m.Result, Sequence[Buffer]], None]) -> None:
        self._loop = loop
        self._send_up = send_up
        self._fold = Fold()
        self._timer: Timer | None = None

    def begin(self, number: int, ranks: Sequence[int]) -> None:
        """Expect replies of these ranks to a command."""
        if len(ranks) > 1:
            self._fold.begin(number, ranks)

    def add(self, message: m.Result, body: Sequence[Buffer]) -> None:
        """Add a reply."""
        self._report(self._fold.add(message, body, self._loop.now()))
        if self._timer is None:
            self._set_timer()

    def leave_out(self, number: int | None, ranks: Sequence[int]) -> None:
        """Expect no reply of these ranks to a command; None for all commands."""
        self._report(self._fold.leave_out(number, ranks))

    def _set_timer(self) -> None:
        deadline = self._fold.next_deadline
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self._due)

    def _due(self) -> None:
        self._timer = None
        self._report(self._fold.due(self._loop.now()))
        self._set_timer()

    def _report(self, answers: list[Folded]) -> None:
        for message, body in answers:
            self._send_up(message, body)
