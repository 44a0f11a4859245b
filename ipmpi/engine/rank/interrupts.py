"""KeyboardInterrupt in one command or task of a rank, and in no other.

The node agent writes the target of the interrupt into the control block, and sends a real signal, which also ends
a sleep or a read. The handler runs in the main thread, between two instructions, so it knows exactly what runs; a
late signal finds another target, or none, and is ignored. By the same signal debugpy is attached and detached.

The signal is SIGURG: nothing else uses it here, a process without a handler ignores it, and user code is free to
use SIGINT. User code may also replace our handler for SIGURG, so handlers are set again before each command and
task.

A running import is completed first, within :data:`IMPORT` seconds: an interrupted one leaves modules that cannot
be imported again in this process, and C modules often lose the exception.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from .controlblock import CURRENT, DEBUGGER, DEBUGGER_HEARD, HEARD, INTERRUPTS, TARGET, ControlBlock

# The functions of the module signal convert to enums, which takes 20 microseconds a call.
_signals: Final[Any] = importlib.import_module("_signal")

SIGNAL: Final = int(signal.SIGURG)
"""The signal by which an agent interrupts its ranks."""

_APART: Final = 0.01
"""Seconds between two interrupts, so that the main thread can leave what the first one hit."""

IMPORT: Final = 1.5
"""Seconds to complete an import: less than the grace of tasks and of engines that end."""

_IMPORTS: Final = "<frozen importlib._bootstrap>"

_DEBUGGER: Final = ("pydevd", "_pydevd", "debugpy")
"""How the names of its modules begin."""

_TOLD: Final = (int(signal.SIGINT), int(signal.SIGTERM), int(signal.SIGUSR1))


def record_signals() -> int:
    """Have the numbers of the signals that this process gets written into a file in memory; return its descriptor.

    Python's handler in C writes them, so also while other C code has the GIL. The agent keeps the file, and looks
    into it when this process was killed before it could say that it was told to end. For the main thread.
    """
    recorded = os.memfd_create("ipmpi-signals", os.MFD_CLOEXEC)
    os.set_blocking(recorded, False)
    signal.set_wakeup_fd(recorded, warn_on_full_buffer=False)
    return recorded


class Interrupts:
    """The signals of a rank, in its main thread.

    Attributes:
        hit: what was interrupted last, as in :data:`~ipmpi.engine.rank.controlblock.CURRENT`.
        shielded: set while nothing may be raised; the agent repeats interrupts.
        on_debugger: called in the main thread when the agent wants debugpy to be attached or detached.
    """

    def __init__(self, block: ControlBlock) -> None:
        self._words = block.words
        self.hit = 0
        self.shielded = False
        self.on_debugger: Callable[[int], object] = lambda number: None
        self._hit_at = 0.0
        self._held = 0, 0.0
        """What runs the import that an interrupt waits for, and since when."""
        self._handlers: dict[int, Any] = {}
        self._masks: dict[int, set[int]] = {}

    def install(self, on_signal: Callable[[str], None] | None) -> None:
        """Install the signal handlers.

        Args:
            on_signal: called with the name of a SIGINT, a SIGTERM, or a SIGUSR1, which batch systems send before
                the end of the job; None leaves these three alone.
        """

        def interrupted(_number: int, frame: FrameType | None) -> None:
            self.arrived(frame)

        def told(number: int, _frame: FrameType | None) -> None:
            if on_signal is not None:
                on_signal(signal.Signals(number).name)

        told_of = _TOLD if on_signal is not None else ()
        self._handlers = {SIGNAL: interrupted} | dict.fromkeys(told_of, told)
        self.install_again()

    def install_again(self) -> None:
        """Set all handlers again, and unblock the signals."""
        for number, handler in self._handlers.items():
            _signals.signal(number, handler)
        if self._handlers:
            _signals.pthread_sigmask(signal.SIG_UNBLOCK, self._handlers)

    def install_if_replaced(self) -> None:
        """As :meth:`install_again`, if a handler was replaced; fast, as it runs before each short task."""
        handlers = self._handlers
        if handlers and _signals.getsignal(SIGNAL) is not handlers[SIGNAL]:
            self.install_again()

    # --- forks, in the thread that forks ---------------------------------------------------------------------

    def hold_back(self) -> None:
        """Block the signals before a fork, until the child has called :meth:`uninstall`."""
        if self._handlers:
            self._masks[threading.get_ident()] = _signals.pthread_sigmask(signal.SIG_BLOCK, self._handlers)

    def let_through(self) -> None:
        """Unblock the signals after a fork."""
        mask = self._masks.pop(threading.get_ident(), None)
        if mask is not None:
            _signals.pthread_sigmask(signal.SIG_SETMASK, mask)

    def uninstall(self) -> None:
        """In a child, restore the default handlers."""
        handlers, self._handlers = self._handlers, {}
        with contextlib.suppress(ValueError):  # in a thread: Python takes it for the main one only later
            signal.set_wakeup_fd(-1)
        for number in handlers:
            is_interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)
        self.let_through()

    def arrived(self, frame: FrameType | None = None) -> None:
        """Handle a signal of the agent, in this frame: raises KeyboardInterrupt if its target runs."""
        words = self._words
        if words[DEBUGGER] != words[DEBUGGER_HEARD] and self._may_attach(frame):
            self._hear_of_debugger()
        meant = words[INTERRUPTS]
        if meant == words[HEARD] or self.shielded:
            return
        target, now = words[TARGET], time.monotonic()
        if not target or target != words[CURRENT]:
            words[HEARD] = meant
        elif now - self._hit_at >= _APART and not self._waits_for_import(target, now, frame):
            # Else it is too early, and will be repeated.
            words[HEARD] = meant
            self._hit_at = now
            self.hit = target
            raise KeyboardInterrupt

    def _may_attach(self, frame: FrameType | None) -> bool:
        """Whether debugpy can be attached or detached in this frame; else the agent repeats its signal."""
        return not self.shielded and not _is_importing(frame) and not _is_in_debugger(frame)

    def _hear_of_debugger(self) -> None:
        """Attach or detach debugpy. An interrupt waits meanwhile, as it would leave half of that done."""
        # First: if the agent wants something else meanwhile, it sees that, and repeats the signal.
        wanted = self._words[DEBUGGER_HEARD] = self._words[DEBUGGER]
        self.shielded = True
        try:
            self.on_debugger(wanted)
        finally:
            self.shielded = False

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


def _is_in_debugger(frame: FrameType | None) -> bool:
    """Whether pydevd runs: it may have taken a lock, for which to attach or detach it would wait for ever."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(_DEBUGGER):
            return True
        frame = frame.f_back
    return False
