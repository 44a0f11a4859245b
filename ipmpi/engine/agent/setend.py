"""The end of the job in the agents: messages about it up and down their tree."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from ...protocol import messages as m, operations
from ...protocol.frames import Buffer
from ...transport.link import Link
from ...transport.loop import Loop, Timer
from ...transport.transfers import Endpoint
from .ending import METHOD, Call, JobDeadline

_DEAF = 5.0
"""Seconds in which further warnings are ignored: a launcher forwards a warning to every rank."""


class JobEndTree(Protocol):
    """The part of :class:`ipmpi.engine.agent.agent.Agent` that this module uses."""

    loop: Loop
    above: Endpoint | None

    @property
    def is_root(self) -> bool:
        """Whether this agent has the link to the controller."""

    def send_up(self, message: m.AnyMessage, body: Sequence[Buffer] = ()) -> None:
        """Send to the agent or controller above."""

    def dispatch(self, message: m.Dispatch, body: Sequence[Buffer] = (), stream: int = 0) -> None:
        """Give a command to ranks."""


class SetEnd:
    """Tracks the end of the set's job, at its root; other agents forward warnings.

    Args:
        tree: the agent.
        on_known: called with the time of the end, once known.
        log: called with lines for the log.
    """

    def __init__(self, tree: JobEndTree, on_known: Callable[[float], None], log: Callable[[str], None]) -> None:
        self._tree = tree
        self._loop = tree.loop
        self._on_known = on_known
        self._log = log
        self._ending = JobDeadline()
        self._job = ""
        self._timer: Timer | None = None
        self._deaf_until = -math.inf
        self._numbers = itertools.count(-1, -1)

    def know(self, ends_at: float | None, job: str) -> None:
        """Set the end of the job, in the loop's time; call it before the set registers."""
        self._job = job
        if ends_at is not None:
            self._ending.ends_at = ends_at
            self._on_known(ends_at)

    def registered(self) -> None:
        """The set has registered with a controller."""
        if self._job or self._left is not None:
            self._tree.send_up(m.JobEnds(self._left, self._job))
        self._ending.ask_again()
        self._look()

    @property
    def _left(self) -> float | None:
        ends_at = self._ending.ends_at
        return None if ends_at == math.inf else max(0.0, ends_at - self._loop.now())

    def warned(self) -> None:
        """A rank here or below has got the batch system's warning."""
        now = self._loop.now()
        if now < self._deaf_until:
            return
        self._deaf_until = now + _DEAF
        if not self._tree.is_root:
            self._tree.send_up(m.EndIsNear())
            return
        self._log("got SIGUSR1, the batch system's warning that the job ends soon")
        self._tree.send_up(m.JobEnds(self._left, self._job, True))
        self._ask(self._ending.due(now, warned=True))

    def dispatched(self, message: m.Dispatch) -> None:
        """Ranks are given a command."""
        if message.method != METHOD or not self._tree.is_root:
            return
        try:
            operation = operations.decode_operation(message.operation)
        except msgspec.DecodeError:
            return  # the ranks will report it
        if isinstance(operation, operations.BeforeWalltime):
            self._ending.add(operation.key, operation.name, operation.seconds, message.ranks)
        elif isinstance(operation, operations.EndComes):
            self._ending.told(operation.key, message.ranks)
        self._loop.call_at_turn_end(self._look)

    def _look(self) -> None:
        """Request the calls that are due, and set the timer for the next."""
        now = self._loop.now()
        self._ask(self._ending.due(now))
        link: Link | None = getattr(self._tree.above, "link", None)
        if link is None or not link.is_open:
            for call in self._ending.overdue(now):
                self._log(f"the controller is unreachable: {METHOD}({call.name}) is run without it")
                self._tree.dispatch(m.Dispatch(next(self._numbers), call.ranks, METHOD, _operation(call)))
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._ending.next_deadline(now)
        self._timer = None if deadline is None else self._loop.call_later(deadline - now, self._look)

    def _ask(self, calls: list[Call]) -> None:
        for call in calls:
            label = f"{METHOD}({call.name})"
            self._tree.send_up(m.RunBeforeEnd(call.ranks, label, _operation(call)))


def _operation(call: Call) -> bytes:
    return operations.encode(operations.EndComes(call.key))
