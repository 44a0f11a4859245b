"""Values of a program that clients watch, on their way up: a few at a time, and none that would wait."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final, Protocol

from ... import limits
from ...protocol import messages as m, operations, rankmessages as rm
from ...protocol.frames import Buffer
from ...transport.loop import Loop
from ...transport.transfers import Endpoint

_FIRST: Final = -(1 << 30)
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
        self._begun: dict[int, int] = {}
        """The watches of monitors whose command is not answered yet, by its number."""

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
        """Nobody wants it: have all ranks end it."""
        self._give("unwatch", operations.Steer("unwatch", message.watch))

    def begin(self, message: m.BeginWatch) -> None:
        """A monitor wants to watch a published value."""
        asked = operations.Watch(message.name, message.every, message.reduce, published=True)
        number = next(self._numbers)
        self._begun[number] = message.watch
        self._give("watch", operations.Steer("watch", message.watch, asked), number)

    def _give(self, method: str, operation: operations.Steer, number: int | None = None) -> None:
        ranks = [engine.rank for engine in self._tree.engines]
        number = next(self._numbers) if number is None else number
        self._tree.dispatch(m.Dispatch(number, ranks, method, operations.encode(operation)))

    def is_own(self, number: int) -> bool:
        """Return whether a command is one of ours, whose answer the controller does not expect."""
        return number <= _FIRST

    def answered(self, number: int, ok: bool, outcome: bytes) -> None:
        """Ranks have answered a command of ours; they all answer alike."""
        watch = self._begun.pop(number, None)
        if watch is None:
            return
        problem = "" if ok else "the program cannot begin it"
        if not ok and isinstance(failed := operations.decode_outcome(outcome), operations.Failed):
            problem = failed.text
        self._tree.send_up(m.Watched(watch, [], [], problem))
