"""KeyboardInterrupt in one thing that the main thread does, and in no other (layer L3).

A real signal, sent to the main thread: it also ends a sleep or a read. Who sends it names what it is meant for.
The handler runs in the main thread, between two instructions, so it knows what runs at that very moment; one that
comes too late finds something else, or nothing, and hits nobody.
"""

from __future__ import annotations

import signal
import threading
import time

_ECHO = 1.0
"""Seconds after a signal of ours in which another SIGINT is taken for an echo of it, not for a Ctrl-C."""

_APART = 0.01
"""Seconds between two interrupts. The main thread needs some of this to get out of what the first one hit."""


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
        self._ours_until = time.monotonic() + _ECHO
        if self._thread is not None:
            signal.pthread_kill(self._thread, signal.SIGINT)

    def arrived(self) -> bool:
        """A SIGINT came (main thread): raises KeyboardInterrupt if what it is for runs. Whether it was ours."""
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
