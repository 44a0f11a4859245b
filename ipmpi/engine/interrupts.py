"""KeyboardInterrupt in one thing that the main thread does, and in no other (layer L3).

A real signal, sent to the main thread: it also ends a sleep or a read. Who sends it names what it is meant for.
The handler runs in the main thread, between two instructions, so it knows what runs at that very moment; one that
comes too late finds something else, or nothing, and hits nobody.

User code may set signal handlers of its own, and forget to take them back. So ours are set anew before each
command and task; and while something runs that has replaced the handler of SIGINT, or blocks it, another signal is
sent in its place. That is SIGURG, which nothing else uses here, and which a process without a handler ignores.
"""

from __future__ import annotations

import importlib
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

# The wrappers in the module signal make enums of all they return: 20 microseconds a call.
_signals: Final[Any] = importlib.import_module("_signal")

_ECHO = 1.0
"""Seconds after a signal of ours in which another SIGINT is taken for an echo of it, not for a Ctrl-C."""

_APART = 0.01
"""Seconds between two interrupts. The main thread needs some of this to get out of what the first one hit."""

_SIGINT: Final = int(signal.SIGINT)
_SUBSTITUTE: Final = int(signal.SIGURG)
_TOLD: Final = (int(signal.SIGTERM), int(signal.SIGUSR1))


class Interrupts:
    """What the main thread does, and how to end it.

    Attributes:
        current: what runs and may be interrupted: set, and set to None, by the main thread alone.
        hit: what was interrupted last.
    """

    def __init__(self) -> None:
        self.current: object | None = None
        self.hit: object | None = None
        self._target: object | None = None
        self._hit_at = 0.0
        self._ours_until = 0.0
        self._thread = threading.main_thread().ident
        self._handlers: dict[int, Any] = {}
        self._masks: dict[int, set[int]] = {}

    # --- the agent thread ----------------------------------------------------------------------------------

    def send(self, target: object) -> bool:
        """Interrupt ``target`` if it is what runs (agent thread); whether it was."""
        if self.current is not target:
            return False
        self._target = target
        self._send_signal()
        return True

    def send_again(self) -> bool:
        """Send the signal once more if the interrupt has not been raised; False when it has, or is pointless.

        Python looks for signals between instructions. One that comes between that look and the beginning of a
        sleep, or of a read, would be noticed at its end only; one more cuts it short.
        """
        target = self._target
        if target is None:
            return False
        if self.current is not target:
            self._target = None
            return False
        self._send_signal()
        return True

    def _send_signal(self) -> None:
        if self._thread is None:
            return
        if self._is_ours():
            self._ours_until = time.monotonic() + _ECHO
            signal.pthread_kill(self._thread, _SIGINT)
        else:
            signal.pthread_kill(self._thread, _SUBSTITUTE)

    def _is_ours(self) -> bool:
        """Whether a SIGINT would reach our handler; one that does not might end the process."""
        return _signals.getsignal(_SIGINT) is self._handlers.get(_SIGINT) and _reaches_main_thread(_SIGINT)

    # --- the main thread -----------------------------------------------------------------------------------

    def install(self, on_signal: Callable[[str], None]) -> None:
        """Take the signals.

        Args:
            on_signal: called with the name of a SIGINT that is not ours, of SIGTERM, or of SIGUSR1, which job
                scripts have sent when the end of the job is near.
        """

        def interrupted(_number: int, _frame: FrameType | None) -> None:
            if not self._arrived():
                on_signal("SIGINT")

        def substituted(_number: int, _frame: FrameType | None) -> None:
            self._arrived()

        def told(number: int, _frame: FrameType | None) -> None:
            on_signal(signal.Signals(number).name)

        self._handlers = {_SIGINT: interrupted, _SUBSTITUTE: substituted} | dict.fromkeys(_TOLD, told)
        self.install_again()

    def install_again(self) -> None:
        """Set all handlers anew, and let the signals through, whatever user code has done."""
        for number, handler in self._handlers.items():
            _signals.signal(number, handler)
        if self._handlers:
            _signals.pthread_sigmask(signal.SIG_UNBLOCK, self._handlers)

    def install_if_replaced(self) -> None:
        """The same if Python shows that it is needed: this is asked before each of many short tasks."""
        if self._handlers and _signals.getsignal(_SIGINT) is not self._handlers[_SIGINT]:
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
        handlers, self._handlers, self._target = self._handlers, {}, None
        for number in handlers:
            signal.signal(number, signal.default_int_handler if number == _SIGINT else signal.SIG_DFL)
        self.let_through()

    def _arrived(self) -> bool:
        """A signal came: raises KeyboardInterrupt if what it is for runs. Whether it was ours."""
        target = self._target
        now = time.monotonic()
        if target is not None:
            # One that comes too early is not lost: it will be sent again.
            if target is self.current and now - self._hit_at >= _APART:
                self._target = None
                self._hit_at = now
                self.hit = target
                raise KeyboardInterrupt
            return True
        return now < self._ours_until


def _reaches_main_thread(number: int) -> bool:
    """Whether the system would call a handler for this signal: C code can change that without Python's knowing."""
    masks = {}
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                name, _, value = line.partition(":")
                if name in ("SigBlk", "SigCgt"):
                    masks[name] = int(value, 16)
    except (OSError, ValueError):
        return True
    bit = 1 << (number - 1)
    return bool(masks.get("SigCgt", bit) & bit) and not masks.get("SigBlk", 0) & bit
