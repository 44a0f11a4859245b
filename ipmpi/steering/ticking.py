"""The ticks of one rank: where it hears its agent, and where it holds.

A tick at which nothing is to be done writes one word and reads three, in memory that is shared with the agent.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

from ..engine.rank.controlblock import DUE, LABEL, PAUSED, RECEIVED, SENT, STEP
from ..protocol import rankmessages as rm

NEVER: Final = 1 << 62
"""A tick that does not come."""

Duty = Callable[[int], int]
"""Something to do at a tick; it returns the next tick at which it is due, :data:`NEVER` if it is done."""


class Agent(Protocol):
    """The connection to the agent: see :class:`ipmpi.engine.rank.rank.Rank`."""

    @property
    def stopped(self) -> rm.Stop | None:
        """Why there is none any more."""

    def hear(self) -> bool:
        """Wait for the next packet, and handle it; False if the agent has ended."""

    def say(self, message: rm.ToAgent) -> bool:
        """Tell the agent something."""

    def perform(self) -> bool:
        """Run the next command that has come; False if there is none."""


class Ticker:
    """Counts ticks, and holds at some of them.

    Args:
        words: of the control block.
        lock: taken and released, it is the memory barrier between our write and our read.
        wait: returns when there is a packet, or the agent has ended.
        on_end: called once when the agent has ended, or says that steering is over.

    Attributes:
        agent: the connection; None if there is none.
        count: the number of the last tick; -1 before the first one.
        is_paused: whether it holds until somebody lets it go on.
        hold_at: the tick at which it will pause; -1: none.
    """

    def __init__(
        self, words: memoryview, lock: Any, wait: Callable[[], None], on_end: Callable[[rm.Stop], None]
    ) -> None:
        self.agent: Agent | None = None
        self.words = words
        self._lock = lock
        self._wait = wait
        self._on_end = on_end
        self.count = -1
        self._label = 0
        self.is_paused = False
        self.hold_at = -1
        self._round = 0
        self._stop_at: int | None = None
        self._told = 0
        """The last round in which the agent was told that this rank holds."""
        self._duties: dict[object, tuple[int, Duty]] = {}
        words[STEP] = -2
        words[DUE] = NEVER
        self.handlers: dict[type, Callable[[Any], None]] = {
            rm.HoldHere: self._hold,
            rm.StopAtStep: self._stop,
            rm.LetGo: self._let_go,
        }

    def tick(self, step: int | None = None) -> None:
        """Be at the next tick; the program calls its step ``step``."""
        words = self.words
        count = self.count = self.count + 1
        if step is not None and step - count != self._label:
            self._label = words[LABEL] = step - count
        if count < words[DUE]:
            words[STEP] = 2 * count
            with self._lock:
                pass
            if words[SENT] <= words[RECEIVED]:
                return
        else:
            words[STEP] = 2 * count + 1  # it will look at SENT once more before it goes on
        self._look()

    def last_tick(self) -> None:
        """Be at the tick after the last step: what was agreed for it is done, and a later one does not come."""
        self.count += 1
        self.words[STEP] = 2 * self.count + 1
        self._look()

    def addresses(self) -> tuple[int, int, int, int, int]:
        """Return the addresses of STEP, SENT, RECEIVED, DUE and LABEL."""
        import ctypes

        first = ctypes.addressof(ctypes.c_int64.from_buffer(self.words))
        step, sent, received, due, label = (first + 8 * word for word in (STEP, SENT, RECEIVED, DUE, LABEL))
        return step, sent, received, due, label

    @property
    def step(self) -> int:
        """What the program calls the step that comes next."""
        return self.count + self._label

    def add_duty(self, key: object, first: int, duty: Duty) -> None:
        """Have something done at this tick, and when it is due again; replaces another one with this key."""
        self._duties[key] = first, duty
        self._set_due()

    def keep_paused(self, is_paused: bool, hold_at: int = -1) -> None:
        """Hold until somebody lets it go on, or go on, to this tick if it is not negative.

        The agent sees it before the answer to who has asked for it: a client that then asks where the program is
        must not be told how it was before.
        """
        self.is_paused, self.hold_at = is_paused, hold_at
        self.words[PAUSED] = int(is_paused)

    # --- holding -----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        words = self.words
        self._do_duties()
        while self._holds():
            # From here on it does not hold: what is sent before the agent sees that is heard first.
            words[PAUSED] = 0
            self._set_due()
            words[STEP] = 2 * self.count
            with self._lock:
                pass
            if self.agent is None or words[SENT] <= words[RECEIVED]:
                return
            words[STEP] = 2 * self.count + 1

    def _holds(self) -> bool:
        """Hear the agent, and hold for as long as it says; False if there is none any more."""
        agent, words = self.agent, self.words
        while agent is not None:
            while words[SENT] > words[RECEIVED]:
                if not self._hear(agent):
                    return False
            while agent.perform():
                pass
            if words[SENT] > words[RECEIVED]:
                continue
            if agent.stopped is not None:
                self._end(agent.stopped)
                return False
            if not self._stays():
                return True
            self._say_where(agent)
            self._wait()
            if not self._hear(agent):
                return False
        self._set_due()
        words[STEP] = 2 * self.count
        return False

    def _hear(self, agent: Agent) -> bool:
        if agent.hear():
            return True
        if agent.stopped is not None:
            self._end(agent.stopped)
        return False

    def _say_where(self, agent: Agent) -> None:
        self.words[STEP] = 2 * self.count + 1
        self.words[PAUSED] = int(self.is_paused)
        if self._round and self._stop_at == self.count and self._told != self._round:
            self._told = self._round
            agent.say(rm.Holds(self._round))

    def _stays(self) -> bool:
        if self._round:
            if self._stop_at is None:
                return True
            return self._stop_at <= self.count
        if self.count == self.hold_at:
            self.is_paused, self.hold_at = True, -1
        return self.is_paused

    def _do_duties(self) -> None:
        for key, (at, duty) in list(self._duties.items()):
            if at > self.count:
                continue
            again = duty(self.count)
            if again >= NEVER:
                self._duties.pop(key, None)
            else:
                self._duties[key] = again, duty

    def _set_due(self) -> None:
        due = min((at for at, _ in self._duties.values()), default=NEVER)
        if self.hold_at >= 0:
            due = min(due, self.hold_at)
        if self._round and self._stop_at is not None:
            due = min(due, self._stop_at)
        self.words[DUE] = due

    def _end(self, stop: rm.Stop) -> None:
        self.agent = None
        self._round, self._stop_at = 0, None
        self.is_paused, self.hold_at = False, -1
        self.words[PAUSED] = 0
        self.words[RECEIVED] = NEVER  # so that nothing is heard any more
        self._set_due()
        self.words[STEP] = 2 * self.count
        self._on_end(stop)

    # --- messages ----------------------------------------------------------------------------------------------

    def _hold(self, message: rm.HoldHere) -> None:
        self._round, self._stop_at = message.round, None

    def _stop(self, message: rm.StopAtStep) -> None:
        if message.round == self._round:
            self._stop_at = message.step

    def _let_go(self, message: rm.LetGo) -> None:
        self._round, self._stop_at = 0, None
        if message.words and self.is_paused:
            print(f"ipmpi: {message.words}", file=sys.stderr, flush=True)
        if message.resume:
            self.is_paused, self.hold_at = False, -1
