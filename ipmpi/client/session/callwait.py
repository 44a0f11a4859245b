"""Waiting for the engines of a call: what is shown meanwhile, and what Ctrl-C does."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from ... import limits
from ...errors import KernelError, WaitInterrupted
from ...ranges import engines_named, ranges
from .debuggerconsole import DebuggerConsole
from .notices import HeldNotices
from .partial import OnInterrupt, Partial
from .progress import StatusLine
from .standstill import RESTART, UNKNOWN
from .waiting import SessionFuture

_STATUS_EVERY: Final = 1.0
"""Seconds between two changes of the status line, which shows whole seconds."""

_LONGEST_WAIT: Final = 3600.0
_SHOWN_IDS: Final = 60


class Screen(Protocol):
    """Where a waiting user is told something, and how time passes there."""

    def status(self, text: str | None) -> None:
        """Show a line that replaces the one before; None removes it."""

    def tell(self, text: str) -> None:
        """Show a line that stays."""

    def settle(self) -> None:
        """Show all that has come, and leave nothing that could be replaced: the user is asked for something."""

    def wait(self, seconds: float) -> None:
        """Let so much time pass, or less if something may have happened."""

    def wake(self) -> None:
        """End a :meth:`wait`; called in any thread."""


class StderrScreen:
    """The screen of plain calls: lines on standard error, the status only if somebody looks."""

    def __init__(self) -> None:
        # Free once something has happened; an Event does the same with ten calls of Python for each wait.
        self._news = threading.Lock()
        self._news.acquire()
        self._line = StatusLine()

    def status(self, text: str | None) -> None:
        """See :class:`Screen`."""
        self._line.show(text)

    def tell(self, text: str) -> None:
        """See :class:`Screen`."""
        self._line.tell(f"ipmpi: {text}")

    def settle(self) -> None:
        """See :class:`Screen`."""
        self._line.show(None)

    def wait(self, seconds: float) -> None:
        """See :class:`Screen`."""
        self._news.acquire(timeout=seconds)

    def wake(self) -> None:
        """See :class:`Screen`."""
        try:
            self._news.release()
        except RuntimeError:  # it was free, so the next wait ends at once
            return


class Ways(NamedTuple):
    """What differs from the client's settings in one wait; None for the same.

    Attributes:
        progress_after: seconds until the status line is shown; negative for never.
        on_interrupt: what the first Ctrl-C does.
        interrupt: stops what runs on engines of these ids.
    """

    progress_after: float | None = None
    on_interrupt: OnInterrupt | None = None
    interrupt: Callable[[list[int]], object] | None = None


class CallWait:
    """Waits until a call is done.

    From :attr:`Partial.progress_after` on it shows who is waited for. It tells once if some engines have failed
    while others run. If debuggers on engines wait for lines, and this is the main thread, it asks for them.
    The first Ctrl-C interrupts the engines that run the call, and the wait goes on; the second one ends the wait.
    With ``on_interrupt='detach'``, the first one does.

    Args:
        future: is done when the call is.
        partial: its part that is here.
        screen: where to show what.
        again: how to ask for the result of a call whose wait has ended, in words.
        ways: what differs from the client's settings.
    """

    def __init__(
        self,
        future: concurrent.futures.Future[Any],
        partial: Partial,
        screen: Screen,
        again: str,
        ways: Ways = Ways(),  # noqa: B008 - it is never changed
    ) -> None:
        self._future = future
        self._partial = partial
        self._screen = screen
        self._again = again
        self._ways = ways
        self._first_failure: float | None = None
        self._is_told = partial.after is None
        self._console: DebuggerConsole | None = None
        self._notices = HeldNotices(screen.wake)

    def run(self) -> None:
        """Wait.

        Raises:
            WaitInterrupted: after Ctrl-C.
        """
        with self._notices:
            self._run()

    def _run(self) -> None:
        self._future.add_done_callback(lambda _: self._screen.wake())
        if not self._is_told:
            self._partial.on_failure(self._screen.wake)
        if threading.current_thread() is threading.main_thread():
            # Else the terminal belongs to another thread.
            partial, screen = self._partial, self._screen
            self._console = DebuggerConsole(partial.talks, screen, partial.interrupt, self._future.done)
            for talk in partial.talks:
                talk.listen(screen.wake)
        try:
            self._until()
        except KeyboardInterrupt:
            self._screen.status(None)
            mode = self._ways.on_interrupt or self._partial.on_interrupt
            if not self._partial.can_be_interrupted or mode == "detach":
                raise self._detached() from None
            self._stop()
        finally:
            self._screen.status(None)

    def _until(self, end: float | None = None) -> bool:
        """Wait until it is done, at most until ``end``; return whether it is."""
        while not self._future.done():
            if self._console is not None and self._console.is_wanted:
                self._notices.takes = False  # nothing stands below, and the prompt may stand for long
                self._console.attend()
                self._notices.takes = True
                continue
            while self._notices.texts:
                self._screen.tell(self._notices.texts.popleft())
            now = time.monotonic()
            if end is not None and now >= end:
                return False
            times = [now + _LONGEST_WAIT, *self._look(now)]
            self._screen.wait(max(min([*times, *([] if end is None else [end])]) - now, 0.0))
        return True

    def _look(self, now: float) -> list[float]:
        """Show what is due; return when to look again."""
        later = []
        if not self._is_told:
            later += self._look_for_failures(now)
        after = self._ways.progress_after
        if after is None:
            after = self._partial.progress_after
        if after is not None and after >= 0 and self._partial.has_commands:
            start = self._partial.begun + after
            if now >= start:
                self._screen.status(status(self._partial, now))
                start = now + _STATUS_EVERY
            later.append(start)
        return later

    def _look_for_failures(self, now: float) -> list[float]:
        if self._first_failure is None:
            if not self._partial.has_failed:
                return []
            self._first_failure = now
        due = self._first_failure + (self._partial.after or 0.0)
        if now < due:
            return [due]
        self._is_told = True
        self._screen.tell(self._partial.line())
        return []

    def _stop(self) -> None:
        """The first Ctrl-C: interrupt the engines, and wait for them to react."""
        self._is_told = True
        running = self._partial.running
        for talk in self._partial.talks:
            talk.interrupted()
        self._screen.tell(f"interrupting [{ranges(running)}]. Ctrl-C again leaves the command running")
        try:
            if self._ways.interrupt is None:
                self._partial.interrupt()
            else:
                self._ways.interrupt(running)
            if not self._until(time.monotonic() + limits.INTERRUPT_REACTS):
                self._screen.status(None)
                running = self._partial.running
                self._screen.tell(not_reacting(running, self._partial.label, self._partial.why(running)))
                self._until()
        except KeyboardInterrupt:
            raise self._detached() from None
        except KernelError as error:  # the session is over
            raise WaitInterrupted(f"the engines could not be interrupted: {error}") from error
        failure = self._partial.failure()
        raise WaitInterrupted(self._partial.outcome(), error=failure) from failure

    def _detached(self) -> KeyboardInterrupt:
        if not self._partial.has_commands:
            return KeyboardInterrupt()
        where = f" on [{ranges(self._partial.running)}]" if self._partial.running else ""
        text = f"the wait has ended; {self._partial.label} goes on{where}. {self._again}"
        return WaitInterrupted(text, detached=True)


def status(partial: Partial, now: float) -> str:
    """``61/64 done · [3, 17, 40] running 12 s``."""
    running = partial.running
    names = ranges(running)
    if len(names) > _SHOWN_IDS:
        names = names[:_SHOWN_IDS].rpartition(",")[0] + ", ..."
    done = len(partial.done_ids)
    return f"{done}/{done + len(running)} done · [{names}] running {now - partial.begun:.0f} s"


def not_reacting(ids: Sequence[int], label: str, why: str = "") -> str:
    """Which engines were interrupted and still run, why, and what would help."""
    return f"{engines_named(ids)} did not react: {label} still runs. {why or UNKNOWN}. {RESTART}"


def wait_and_tell(
    future: concurrent.futures.Future[Any], partial: Partial, again: str = "Its r waits for it again"
) -> bool:
    """Wait for a call, without retrieving its result; see :class:`CallWait`.

    Raises:
        ClientError: in a done-callback of a future, and in a forked process: the wait would never end.
        WaitInterrupted: after Ctrl-C.
    """
    if isinstance(future, SessionFuture):
        future.check()
    CallWait(future, partial, StderrScreen(), again).run()
    return True
