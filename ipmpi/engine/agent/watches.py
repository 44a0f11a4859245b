"""Values of a program that clients watch, on their way up: a few at a time, and none that would wait."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

from ... import limits
from ...protocol import messages as m, operations, rankmessages as rm
from ...protocol.frames import Buffer
from ...transport.loop import Loop
from ...transport.transfers import Endpoint

_FIRST: int = -(1 << 30)
"""Numbers of our own commands, from here down: no controller has them."""


class WatchTree(Protocol):
    """The part of :class:`ipmpi.engine.agent.programagent.ProgramAgent` that this module uses."""

    loop: Loop
    above: Endpoint | None

    @property
    def engines(self) -> list[m.EngineInfo]:
        """The ranks of the set."""

    def send_up(self, message: m.AnyMessage, body: Sequence[Buffer] = ()) -> None:
        """Send to the agent or controller above."""

    def dispatch(self, message: m.Dispatch, body: Sequence[Buffer] = (), stream: int = 0) -> None:
        """Give a command to ranks."""


class Watches:
    """What rank 0 tells is collected for a moment, and sent."""

    def __init__(self, tree: WatchTree) -> None:
        self._tree = tree
        self._waiting: dict[int, tuple[list[int], list[float]]] = {}
        self._numbers = itertools.count(_FIRST, -1)

    def sampled(self, message: rm.Sampled) -> None:
        """A value has come."""
        if not self._waiting:
            self._tree.loop.call_later(limits.WATCH_WINDOW, self._send)
        steps, values = self._waiting.setdefault(message.watch, ([], []))
        steps.append(message.step)
        values.append(message.value)
        if len(steps) > limits.WATCH_SAMPLES:  # the newest one stays
            del steps[-2::-2], values[-2::-2]

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, {}
        above = self._tree.above
        if above is None or above.connection.control_backlog > limits.WATCH_BACKLOG:
            return
        for watch, (steps, values) in waiting.items():
            self._tree.send_up(m.Watched(watch, steps, values))

    def unwatch(self, message: m.Unwatch) -> None:
        """Nobody wants it: have all ranks end it at one step, as they may add up their values by MPI."""
        ranks = [engine.rank for engine in self._tree.engines]
        ended = operations.encode(operations.Steer("unwatch", message.watch))
        self._tree.dispatch(m.Dispatch(next(self._numbers), ranks, "unwatch", ended))
