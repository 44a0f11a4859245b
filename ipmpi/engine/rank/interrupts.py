"""KeyboardInterrupt in one thing that a rank does, and in no other.

The node agent writes into the control block what it means to interrupt, and sends a real signal, which also ends a
sleep or a read. The handler runs in the main thread, between two instructions, so it knows what runs at that very
moment; a signal that comes too late finds something else, or nothing, and hits nobody.

The signal is SIGURG: nothing else uses it here, a process without a handler ignores it, and user code may do with
SIGINT what it likes. User code may also set a handler for SIGURG and forget to take it back. So ours are set anew
before each command and task.

An import that is under way comes to its end first, within :data:`IMPORT`: one that was broken off leaves modules
that cannot be imported again in this process, and modules in C often lose the exception on their way.
"""

from __future__ import annotations

import importlib
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from .controlblock import CURRENT, HEARD, INTERRUPTS, TARGET, ControlBlock

# The wrappers in the module signal make enums of all they return: 20 microseconds a call.
_signals: Final[Any] = importlib.import_module("_signal")

SIGNAL: Final = int(signal.SIGURG)
"""By which an agent interrupts its ranks."""

_APART: Final = 0.01
"""Seconds between two interrupts. The main thread needs some of this to get out of what the first one hit."""

IMPORT: Final = 1.5
"""Seconds that an import has for its end: less than a task has, or an engine that is to end."""

_IMPORTS: Final = "<frozen importlib._bootstrap>"

_TOLD: Final = (int(signal.SIGINT), int(signal.SIGTERM), int(signal.SIGUSR1))


class Interrupts:
    """The signals of a rank, in its main thread.

    Attributes:
        hit: what was interrupted last, as in :data:`~ipmpi.engine.rank.controlblock.CURRENT`.
        shielded: set while nothing may be raised; what comes meanwhile is sent again.
    """

    def __init__(self, block: ControlBlock) -> None:
        self._words = block.words
        self.hit = 0
        self.shielded = False
        self._hit_at = 0.0
        self._held = 0, 0.0
        """What runs an import that an interrupt waits for, and since when it does."""
        self._handlers: dict[int, Any] = {}
        self._masks: dict[int, set[int]] = {}

    def install(self, on_signal: Callable[[str], None]) -> None:
        """Take the signals.

        Args:
            on_signal: called with the name of a SIGINT, a SIGTERM, or a SIGUSR1, which job scripts have sent when
                the end of the job is near.
        """

        def interrupted(_number: int, frame: FrameType | None) -> None:
            self.arrived(frame)

        def told(number: int, _frame: FrameType | None) -> None:
            on_signal(signal.Signals(number).name)

        self._handlers = {SIGNAL: interrupted} | dict.fromkeys(_TOLD, told)
        self.install_again()

    def install_again(self) -> None:
        """Set all handlers anew, and let the signals through, whatever user code has done."""
        for number, handler in self._handlers.items():
            _signals.signal(number, handler)
        if self._handlers:
            _signals.pthread_sigmask(signal.SIG_UNBLOCK, self._handlers)

    def install_if_replaced(self) -> None:
        """The same if Python shows that it is needed: this is asked before each of many short tasks."""
        handlers = self._handlers
        if handlers and _signals.getsignal(SIGNAL) is not handlers[SIGNAL]:
            self.install_again()

    # --- forks, in the thread that forks ---------------------------------------------------------------------

    def hold_back(self) -> None:
        """A fork comes. A signal that reached the child before :meth:`uninstall` would be lost on it."""
        if self._handlers:
            self._masks[threading.get_ident()] = _signals.pthread_sigmask(signal.SIG_BLOCK, self._handlers)

    def let_through(self) -> None:
        """The fork is over."""
        mask = self._masks.pop(threading.get_ident(), None)
        if mask is not None:
            _signals.pthread_sigmask(signal.SIG_SETMASK, mask)

    def uninstall(self) -> None:
        """In a child, have the signals do what they do in a program that has just started."""
        handlers, self._handlers = self._handlers, {}
        for number in handlers:
            is_interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)
        self.let_through()

    def arrived(self, frame: FrameType | None = None) -> None:
        """A signal of the agent came, in this frame: raises KeyboardInterrupt if what it is meant for runs."""
        words = self._words
        meant = words[INTERRUPTS]
        if meant == words[HEARD] or self.shielded:
            return
        target, now = words[TARGET], time.monotonic()
        if not target or target != words[CURRENT]:
            words[HEARD] = meant
        elif now - self._hit_at >= _APART and not self._waits_for_import(target, now, frame):
            # Else it comes too early, and will be sent again.
            words[HEARD] = meant
            self._hit_at = now
            self.hit = target
            raise KeyboardInterrupt

    def _waits_for_import(self, target: int, now: float, frame: FrameType | None) -> bool:
        if not _is_importing(frame):
            return False
        if self._held[0] != target:
            self._held = target, now
        return now - self._held[1] < IMPORT


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTS:
            return True
        frame = frame.f_back
    return False
