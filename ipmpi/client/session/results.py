"""What calls return: the ResultList of executed commands, and the PendingResult of a call that did not wait.

Layer L4. Nothing here knows how answers travel: a PendingResult waits on a future.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Final

from ...errors import AbortedPendingDeferredError, InvalidDeferredID, NotAPendingResult, ResultNotCompleted
from ...serialize import stays_here
from .failures import rebuild_exception as rebuild_exception
from .given import shown, waiting_time
from .notices import say
from .partial import Partial
from .waiting import SessionFuture, check_waiting

_GREEN, _BLUE, _RED, _NORMAL = "\033[0;32m", "\033[0;34m", "\033[0;31m", "\033[0m"
_PLAIN = ("", "", "", "")

UNOPENED: Final = Exception("a failure that nobody has looked at yet")
"""Stands for an exception that is still pickled, where the library has to know that there is one."""


class ResultList(list[Any]):
    """What one command printed, one dict per engine; shown as ``<Results List>``.

    Each dict has ``'input': {'translated', 'raw'}``, ``'number'``, ``'id'`` (of the engine) and ``'stdout'``, and
    where there is any ``'stderr'`` and ``'display': {'pprint', 'repr'}`` (the last value that was displayed).
    The text is coloured only where it goes to a terminal.
    """

    def __repr__(self) -> str:
        return self.render(colours=terminal_has_colours())

    def render(self, colours: bool = False) -> str:
        """The text of all commands, with or without ANSI colours."""
        palette = (_GREEN, _BLUE, _RED, _NORMAL) if colours else _PLAIN
        return "<Results List>\n" + "".join(_render_command(command, palette) for command in self)


class RunResults(ResultList):
    """What a file printed, one dict per engine; shown with the file's name instead of its text."""

    def __init__(self, filename: str, commands: Iterable[Any] = ()) -> None:
        super().__init__(commands)
        self._filename = filename

    def render(self, colours: bool = False) -> str:
        """The text of all engines, with or without ANSI colours."""
        run = f"run({self._filename!r})"
        short = [{**each, "input": {"translated": run}} if isinstance(each, dict) else each for each in self]
        return ResultList(short).render(colours)


def terminal_has_colours() -> bool:
    """Whether what is printed goes to a terminal whose user wants colours (``NO_COLOR`` says no)."""
    if sys.platform == "win32" or os.environ.get("NO_COLOR"):
        return False
    isatty = getattr(sys.stdout, "isatty", None)
    return bool(isatty is not None and isatty())


def _render_command(command: Any, palette: tuple[str, str, str, str]) -> str:
    green, blue, red, normal = palette
    if not isinstance(command, dict):
        return str(command)
    engine, number = command["id"], command["number"]
    source = command["input"]["translated"] if "input" in command else "No Input"
    text = f"{green}[{engine}]{blue} In [{number}]:{normal} {source}\n"
    if command.get("stdout"):
        text += f"{green}[{engine}]{red} Out[{number}]:{normal} {command['stdout']}\n"
    if command.get("stderr"):
        text += f"{green}[{engine}]{red} Err[{number}]:\n{normal} {command['stderr']}"
    return text


def wait_until_done(future: concurrent.futures.Future[Any], timeout: float | None = None) -> bool:
    """Wait for a future without taking its result; False if ``timeout`` seconds were not enough.

    Ctrl-C ends the wait at once, and nothing but the wait.

    Raises:
        ClientError: in a callback of a future, and in a forked process, where it would never be done.
        TypeError, ValueError: ``timeout`` is no number.
    """
    timeout = waiting_time(timeout)
    if isinstance(future, SessionFuture):
        future.check()
    elif not future.done():
        check_waiting()
    return bool(concurrent.futures.wait([future], timeout).done) if timeout is not None else _wait(future)


def wait_and_tell(future: concurrent.futures.Future[Any], partial: Partial) -> bool:
    """As :func:`wait_until_done`; if some engines have failed, and others do not answer, say so once."""
    if not partial.is_watched:
        return wait_until_done(future)
    if isinstance(future, SessionFuture):
        future.check()
    news = threading.Event()
    future.add_done_callback(lambda _: news.set())
    partial.announce(news)
    news.wait()
    if not wait_until_done(future, partial.after):
        say(partial.line())
    return wait_until_done(future)


def _wait(future: concurrent.futures.Future[Any]) -> bool:
    with contextlib.suppress(concurrent.futures.CancelledError):
        # That of the base: ours open the result, which is for whoever asks for it.
        concurrent.futures.Future.exception(future)
    return True


def runs_event_loop() -> bool:
    """Whether this is a thread in which asyncio runs: what waits here stops all coroutines."""
    asyncio = sys.modules.get("asyncio")  # without it none can run
    return asyncio is not None and asyncio._get_running_loop() is not None


def snapshot(future: concurrent.futures.Future[Any]) -> tuple[bool, bool, Any, BaseException | None]:
    """Whether it is done, and cancelled; its result and exception: what ``asyncio`` of Python 3.14 asks for."""
    if not future.done():
        return False, False, None, None
    if future.cancelled():
        return True, True, None, None
    error = future.exception()
    return True, False, None if error is not None else future.result(), error


async def arrival(future: concurrent.futures.Future[Any]) -> None:
    """Wait in a coroutine until a future is done. What it stands for goes on if the coroutine is cancelled."""
    # Only somebody who runs asyncio comes here; nobody else pays for its import.
    import asyncio

    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()

    def announce(_: object) -> None:
        # The coroutine may have been cancelled and its loop closed long before.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(arrived.set)

    future.add_done_callback(announce)
    await arrived.wait()


class PendingResult(SessionFuture):
    """The result of a call with ``block=False``, made by the methods of a client; wait for it by :attr:`r`.

    It is a :class:`concurrent.futures.Future`: :func:`concurrent.futures.wait`, ``as_completed`` and
    ``asyncio.wrap_future`` take it, and a coroutine may ``await`` it. Two of them compare by the order in which
    they were made. May be used from any thread.

    Attributes:
        client: whose method was called.
        result_id: 40 characters that no other result has.
        called: whether the result was retrieved.
        raised: whether it was an exception.
        callbacks: ``(function, args, kwargs)`` that will be applied when the result is retrieved.
    """

    _numbers = itertools.count(1)

    def __init__(
        self,
        client: Any,
        future: concurrent.futures.Future[Any],
        finish: Callable[[Any], Any],
        name: str = "",
        has_failed: Callable[[Any], bool] | None = None,
        partial: Partial | None = None,
    ) -> None:
        """Stand for ``finish(future.result())``, computed by whoever asks first.

        Args:
            client: whose method was called.
            future: of the answers.
            finish: makes the result of the answers, or raises.
            name: of the method.
            has_failed: whether ``finish`` will raise for these answers; for who waits for the first exception.
            partial: the part of the answers that is here.
        """
        super().__init__()
        # Not to be cancelled, as a call that an executor runs: others may be queued behind it.
        self.set_running_or_notify_cancel()
        self.client = client
        self.result_id = f"{next(self._numbers):040d}"
        self.called = False
        self.raised = False
        self.callbacks: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
        self._finish: Callable[[Any], Any] | None = finish
        self._name = name
        self._has_failed = has_failed
        self._partial = Partial(future, name, None) if partial is None else partial
        self._has_come = False
        self._answers: Any = None
        self._refusal: BaseException | None = None
        self._value: Any = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        # Two threads may ask for one result: callbacks are applied once all the same. A callback may ask as well.
        self._lock = threading.RLock()
        future.add_done_callback(self._arrived)

    __reduce_ex__ = stays_here("its result comes to this process. Send what its r gives")

    def __repr__(self) -> str:
        state = "retrieved" if self.called else "done" if self.done() else "not done yet"
        return f"<PendingResult of {self._name or 'a call'}: {state}>"

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, PendingResult):
            return NotImplemented
        return self.result_id < other.result_id

    def done(self) -> bool:
        """Whether the result is here, so that :attr:`r` will not wait."""
        # Without the base's lock: callbacks of a retrieval may ask, while somebody with that lock waits for them.
        return self._has_come

    def cancel(self) -> bool:
        """Always False: a command cannot be taken back by itself.

        ``clear_queue()`` drops what waits on engines, and ``interrupt()`` stops what runs.
        """
        return super().cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the result is here, at most ``timeout`` seconds; say whether it is. Raises nothing."""
        timeout = waiting_time(timeout)
        if self.done():
            return True
        return wait_and_tell(self, self._partial) if timeout is None else wait_until_done(self, timeout)

    @property
    def done_ids(self) -> list[int]:
        """Engines that have answered by now, ascending; empty for what the controller itself answers."""
        return self._partial.done_ids

    @property
    def failures(self) -> dict[int, BaseException]:
        """What was raised on those engines that have failed by now, by engine id. It is not raised here."""
        return self._partial.failures

    def get_result(self, default: Any = None, block: bool = True, *, timeout: float | None = None) -> Any:
        """The result; every later call returns (or raises) the same again.

        Args:
            default: what to return with ``block=False`` while there is no result.
            block: whether to wait. Ctrl-C ends the wait and leaves the work running.
            timeout: seconds to wait at most.

        Raises:
            CompositeError: engines failed.
            ResultNotCompleted: ``timeout`` seconds were not enough; ask again later.
            InvalidDeferredID: the result was flushed.
        """
        if not block and not self.done():
            return default
        error = self.exception(timeout)
        if error is None:
            return self._value
        try:
            # The traceback as it was: every retrieval would add its own lines to it.
            raise error.with_traceback(self._traceback)
        finally:
            del error, self  # the traceback holds this frame, and this would hold the traceback

    def result(self, timeout: float | None = None) -> Any:
        """The result, as :meth:`get_result`."""
        return self.get_result(timeout=timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What :meth:`get_result` would raise, waited for; None if that is nothing.

        Raises:
            ResultNotCompleted: ``timeout`` seconds were not enough.
        """
        if not self.wait(timeout):
            raise ResultNotCompleted(
                f"{self!r} has no result after {timeout:g} s{self._partial.still_running}. It goes on: ask again, "
                "or see queue_status()"
            )
        with self._lock:
            if not self.called:
                self._retrieve()
            return self._error

    @property
    def r(self) -> Any:
        """The result, waited for: :meth:`get_result` with ``block=True``."""
        return self.get_result(block=True)

    def add_callback(self, f: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Have ``result = f(result, *args, **kwargs)`` applied when the result is retrieved, once.

        Several are applied one after the other. One added after the retrieval is applied now. Results that are
        exceptions have none applied. (To be told when the result is there: ``add_done_callback(f)``.)

        Raises:
            TypeError: ``f`` cannot be called.
        """
        if not callable(f):
            raise TypeError(f"a callback must be callable, which {f!r} is not")
        with self._lock:
            if not self.called:
                self.callbacks.append((f, args, kwargs))
            elif not self.raised:
                self._apply(lambda: f(self._value, *args, **kwargs))

    def _arrived(self, future: concurrent.futures.Future[Any]) -> None:
        """The answers are here; called in the session's thread."""
        refusal: BaseException | None = None
        answers: Any = None
        try:
            answers = future.result()
        except Exception as error:  # also CancelledError
            refusal = error
        with self._lock:
            if self._has_come:
                return  # it was flushed
            # The future itself is not kept: it holds this, and so the answers would outlive both.
            self._answers, self._refusal, self._has_come = answers, refusal, True
            failed = refusal is not None or (self._has_failed is not None and self._has_failed(answers))
        self._announce(failed)

    def _announce(self, failed: bool) -> None:
        """Tell those who wait, and done-callbacks."""
        if failed:
            self.set_exception(UNOPENED)
        else:
            self.set_result(None)

    def _retrieve(self) -> None:
        finish, answers, refusal = self._finish, self._answers, self._refusal
        if finish is None:
            return

        def chain() -> Any:
            if refusal is not None:
                raise refusal
            result = finish(answers)
            for f, args, kwargs in self.callbacks:
                result = f(result, *args, **kwargs)
            return result

        self._apply(chain)
        # The replies are in memory once more, pickled: let them go.
        self._finish = self._answers = self._refusal = None

    def _apply(self, compute: Callable[[], Any]) -> None:
        try:
            self._value = compute()
        except Exception as error:
            self._value, self._error, self._traceback, self.raised = None, error, error.__traceback__, True
        self.called = True

    def _forget(self) -> None:
        with self._lock:
            if self.called:
                return
            waits, self._has_come = not self._has_come, True
            text = f"the pending result {self.result_id} ({self._name}) was flushed"
            error = AbortedPendingDeferredError(f"{text} before it came") if waits else InvalidDeferredID(text)
            self._error = error
            self._finish = self._answers = self._refusal = None
            self.called = self.raised = True
        if waits:
            self._announce(failed=True)

    async def _arrival(self) -> Any:
        if not self.done():
            await arrival(self)
        return self.get_result()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._arrival().__await__()

    def _get_snapshot(self) -> tuple[bool, bool, Any, BaseException | None]:
        return snapshot(self)


class PendingResults:
    """The results of one client that nobody has retrieved, found by their ids while the user keeps them."""

    def __init__(self) -> None:
        self._pending: weakref.WeakValueDictionary[str, PendingResult] = weakref.WeakValueDictionary()

    def add(self, pending: PendingResult) -> PendingResult:
        """Remember one, and return it."""
        self._pending[pending.result_id] = pending
        return pending

    def get(self, result_id: str) -> PendingResult:
        """The one with this id; InvalidDeferredID if it was retrieved, flushed, dropped or never there."""
        pending = self._pending.get(result_id) if isinstance(result_id, str) else None
        if pending is None or pending.called:
            raise InvalidDeferredID(f"no result is pending under the id {shown(result_id)}")
        return pending

    def flush(self) -> None:
        """Forget all of them: asking for one raises InvalidDeferredID from now on."""
        for pending in list(self._pending.values()):
            pending._forget()
        self._pending.clear()


def barrier(pending_results: PendingResult | Iterable[PendingResult]) -> None:
    """Wait for all of them, in the order they were made. Failures are not raised: they wait in the results.

    Raises:
        NotAPendingResult: something else is among them.
        InvalidDeferredID: one was flushed, so nothing says when it is over.
    """
    given = [pending_results] if isinstance(pending_results, PendingResult) else list(pending_results)
    for item in given:
        if not isinstance(item, PendingResult):
            raise NotAPendingResult(
                f"barrier waits for PendingResult objects (of calls with block=False), not {item!r}"
            )
    for pending in sorted(given):
        try:
            pending.get_result(block=True)
        except InvalidDeferredID:
            raise
        except Exception:
            continue
