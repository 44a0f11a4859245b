"""One thread's event loop: sockets, timers, calls from other threads.

Why not asyncio: an engine starts on a thousand ranks at once, and every module it imports is read a thousand
times from a shared file system; and a link needs one thing that asyncio has no word for, the *end of a turn*,
when everything that was queued during the turn goes out in one write. So: no timers to batch, no latency paid.

No call can end the loop. Whoever hands one in may say who is told if it raises (``on_error``); else the loop's own
``on_error`` is, which logs the traceback. Then the loop goes on.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import os
import select
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .. import limits
from .errorlog import ErrorLog

Call = Callable[[], object]
OnError = Callable[[BaseException], object]
"""Told, in the loop's thread, what a call has raised that should not raise."""

# The numbers of poll(2); epoll's are the same.
READ = 1
WRITE = 4
HANGUP = 16
"""The other end is gone; always told beside the others, and never asked for."""

_LONGEST_WAIT = 86_400.0
"""Seconds that one wait lasts at most; poll() takes no more than 24 days, and timers may be later."""
_FEW_TIMERS = 64
"""Timers among which cancelled ones are not looked for."""
_PAUSE = 0.2
"""Seconds for which a file is left alone whose callback has raised."""


def _teach_malloc() -> None:
    """Keep freed memory of up to 16 MiB in the process.

    Bulk data passes in pieces of some 100 KiB. By default glibc gives each back to the system and takes it again,
    with a page fault for every 4 KiB: a third of the time of a transfer. Once a mapped block of a size has been
    freed, it keeps blocks up to that size (mallopt(3), "dynamic mmap threshold").
    """
    del [bytes(16 * limits.MIB)][:]


class Timer:
    """A call that will be made at a time, unless it is cancelled."""

    __slots__ = ("call", "on_error", "when")

    def __init__(self, when: float, call: Call, on_error: OnError | None = None) -> None:
        self.when = when
        self.call: Call | None = call
        self.on_error = on_error

    def cancel(self) -> None:
        """Do not make the call, and hold on to nothing that belongs to it."""
        self.call = self.on_error = None


class Loop:
    """Runs callbacks of sockets and timers in the thread that calls :meth:`run`.

    Attributes:
        on_error: told of what a call has raised that was handed in without an ``on_error`` of its own.
    """

    now = staticmethod(time.monotonic)
    """Seconds on the monotonic clock. Asked for several times for every message: not a function of ours."""

    def __init__(self) -> None:
        _teach_malloc()
        self._errors = ErrorLog(self.now)
        self.on_error: OnError = self.report
        # Not the module selectors: its look-ups cost more than all else that is done for a small message.
        self._callbacks: dict[int, tuple[Callable[[int], object], int, OnError | None]] = {}
        self._paused: set[int] = set()
        """Files that are left alone for a moment, since their callback has raised."""
        self._has_epoll = hasattr(select, "epoll")
        self._poller: Any = select.epoll() if self._has_epoll else select.poll()
        self._timers: list[tuple[float, int, Timer]] = []
        self._many_timers = _FEW_TIMERS
        """With so many, those that were cancelled are taken out: they may be for tomorrow."""
        self._order = itertools.count()
        self._soon: deque[tuple[Call, OnError | None]] = deque()
        self._turn_end: dict[Call, OnError | None] = {}
        self._foreign: deque[tuple[Call, OnError | None]] = deque()
        self._asleep = False
        self._stopped = False
        self._ended = False
        self._turn_lock = threading.Lock()
        """Held by whoever makes callbacks: the loop's thread, or after its end one that comes too late."""
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self.register(self._wake_read, READ, self._drain_wakeups)
        self.thread: int | None = None
        self._hears_signals = False

    def report(self, error: BaseException) -> None:
        """Log an exception that nobody foresaw, with its traceback."""
        self._errors.report(error)

    def call_soon(self, call: Call, on_error: OnError | None = None) -> None:
        """Make a call later in this turn or at the beginning of the next one."""
        self._soon.append((call, on_error))

    def call_at_turn_end(self, call: Call, on_error: OnError | None = None) -> None:
        """Make a call when all events of this turn have been handled; the same call is made once a turn."""
        self._turn_end[call] = on_error

    def call_later(self, delay: float, call: Call, on_error: OnError | None = None) -> Timer:
        """Make a call after ``delay`` seconds."""
        return self.call_at(self.now() + delay, call, on_error)

    def call_at(self, when: float, call: Call, on_error: OnError | None = None) -> Timer:
        """Make a call at a time of :meth:`now`; if that is over, in this turn or in the next one."""
        timer = Timer(when, call, on_error)
        if len(self._timers) >= self._many_timers:
            self._timers = [entry for entry in self._timers if entry[2].call is not None]
            heapq.heapify(self._timers)
            self._many_timers = 2 * len(self._timers) + _FEW_TIMERS
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def call_threadsafe(self, call: Call, on_error: OnError | None = None) -> None:
        """Make a call in the loop's thread; may be used from any thread and from signal handlers.

        After the end of :meth:`run` the call is made at once, in this thread: the callee finds out that all is
        over, and can say so.
        """
        self._foreign.append((call, on_error))
        if self._asleep:
            self._ring()
        if self._ended:
            self._make_last_calls()

    def call_later_threadsafe(self, delay: float, call: Call) -> None:
        """Make a call in the loop's thread after ``delay`` seconds; may be used from any thread."""
        self.call_threadsafe(lambda: self.call_later(delay, call))

    def _make_last_calls(self) -> None:
        # Who does not get the lock leaves its call to whoever has it, and who looks again after giving it back.
        while self._foreign and self._ended and self._turn_lock.acquire(blocking=False):
            try:
                self._make_calls()
            finally:
                self._turn_lock.release()

    def _ring(self) -> None:
        # Any number of callers may come here before the loop wakes; a full socket means it will.
        try:
            self._wake_write.send(b"!")
        except OSError:
            return

    def _drain_wakeups(self, _events: int) -> None:
        self._wake_read.recv(4096)

    def register(
        self, file: Any, events: int, callback: Callable[[int], object], on_error: OnError | None = None
    ) -> None:
        """Call ``callback(events)`` whenever ``file`` is ready; registering again changes the events."""
        descriptor = file if isinstance(file, int) else file.fileno()
        is_known = descriptor in self._callbacks and descriptor not in self._paused
        self._paused.discard(descriptor)
        self._callbacks[descriptor] = callback, events, on_error
        if is_known:
            try:
                self._poller.modify(descriptor, events)
            except FileNotFoundError:
                pass  # another file had this number, and was closed without a word
            else:
                return
        self._poller.register(descriptor, events)

    def unregister(self, file: Any) -> None:
        """Forget a file; to be called before it is closed."""
        descriptor = file if isinstance(file, int) else file.fileno()
        if self._callbacks.pop(descriptor, None) is None:
            return
        if descriptor in self._paused:
            self._paused.remove(descriptor)
        else:
            with contextlib.suppress(OSError, KeyError):  # it may have been closed before
                self._poller.unregister(descriptor)

    def wake_on_signals(self) -> None:
        """Have signals wake :meth:`run`, for a loop of the main thread; until :meth:`close`.

        Python calls a signal's handler between two of its own steps. One that comes just before the system is
        asked to wait would be handled when the next event comes, and that may be never.
        """
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        self._hears_signals = True

    def run(self) -> None:
        """Handle events until :meth:`stop` is called."""
        self.thread = threading.get_ident()
        with self._turn_lock:
            self._ended = False
            try:
                while not self._stopped:
                    self._turn()
            finally:
                # Also if the loop itself fails: nobody may wait for calls that are not made any more.
                self._ended = True
                self._asleep = False
                while self._foreign or self._soon or self._turn_end:
                    self._make_calls()
        self._make_last_calls()

    def stop(self) -> None:
        """End :meth:`run` after this turn; may be called from any thread."""
        self._stopped = True
        self.call_threadsafe(lambda: None)

    def close(self) -> None:
        """Free what the loop holds; it cannot be used any more."""
        if self._hears_signals:
            signal.set_wakeup_fd(-1)
        if self._has_epoll:
            self._poller.close()
        self._wake_read.close()
        self._wake_write.close()

    def abandon(self) -> None:
        """Let go of all files without touching the connections, in a forked child: they are the parent's.

        While a child has a copy of a socket, nobody sees that its parent has ended.
        """
        files = [*self._callbacks, self._wake_read.fileno(), self._wake_write.fileno()]
        if self._has_epoll:
            files.append(self._poller.fileno())
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        # The numbers stay taken: whoever closes these objects later must not close a file of the child's own.
        for descriptor in files:
            with contextlib.suppress(OSError):
                os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)

    def _turn(self) -> None:
        # From here until poll returns, other threads ring; what they left before is seen by this look.
        self._asleep = True
        events = self._wait(self._timeout())
        self._asleep = False
        for descriptor, mask in events:
            # A callback may have unregistered a later one of this turn.
            entry = self._callbacks.get(descriptor)
            if entry is not None:
                try:
                    # Errors and hang-ups show themselves to whoever reads.
                    entry[0]((mask & (READ | WRITE) or READ) | (mask & HANGUP))
                except BaseException as error:
                    self._failed(error, entry[2])
                    self._pause(descriptor, entry)
        now = self.now()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.call is not None:
                self._make(timer.call, timer.on_error)
        self._make_calls()

    def _make(self, call: Call, on_error: OnError | None) -> None:
        try:
            call()
        except BaseException as error:
            self._failed(error, on_error)

    def _failed(self, error: BaseException, on_error: OnError | None) -> None:
        """A call has raised ``error``: tell who is to be told, and go on."""
        if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
            raise error  # Ctrl-C; in other threads a SystemExit, say, is a callback's own trouble
        try:
            (on_error or self.on_error)(error)
        except Exception as another:
            self.report(error)
            self.report(another)

    def _pause(self, descriptor: int, entry: tuple[Callable[[int], object], int, OnError | None]) -> None:
        """Leave a file alone for a moment, since its callback raised: it is still ready, and would raise again."""
        if self._callbacks.get(descriptor) is entry and descriptor not in self._paused:
            self._poller.unregister(descriptor)
            self._paused.add(descriptor)
            self.call_later(_PAUSE, lambda: self._look_again(descriptor, entry))

    def _look_again(self, descriptor: int, entry: tuple[Callable[[int], object], int, OnError | None]) -> None:
        if descriptor in self._paused and self._callbacks.get(descriptor) is entry:
            self._paused.remove(descriptor)
            self._poller.register(descriptor, entry[1])

    def _wait(self, timeout: float | None) -> list[tuple[int, int]]:
        if self._has_epoll:
            found: list[tuple[int, int]] = self._poller.poll(timeout)
            return found
        # Rounded up: a timer that is not due yet would only turn the loop.
        return list(self._poller.poll(None if timeout is None else math.ceil(timeout * 1000)))

    def _make_calls(self) -> None:
        for queue in (self._foreign, self._soon):
            for _ in range(len(queue)):
                self._make(*queue.popleft())
        while self._turn_end:
            calls, self._turn_end = self._turn_end, {}
            for call, on_error in calls.items():
                self._make(call, on_error)

    def _timeout(self) -> float | None:
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        if self._soon or self._foreign or self._turn_end or self._stopped:
            return 0
        return None if not self._timers else min(max(0.0, self._timers[0][0] - self.now()), _LONGEST_WAIT)
