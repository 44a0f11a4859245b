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
from typing import Any

from ..errors import InvalidDeferredID, NotAPendingResult, ResultNotCompleted
from .failures import rebuild_exception as rebuild_exception

_GREEN, _BLUE, _RED, _NORMAL = "\033[0;32m", "\033[0;34m", "\033[0;31m", "\033[0m"
_PLAIN = ("", "", "", "")

WINDOWS_WAIT = 0.1
"""Windows does not interrupt a wait on a lock: there Ctrl-C is looked for this often, in seconds."""


class ResultList(list[Any]):
    """What one command printed, one dict per engine; shown as ``<Results List>``.

    Each dict has ``'input': {'translated', 'raw'}``, ``'number'``, ``'id'`` (of the engine) and ``'stdout'``, and
    where there is any ``'stderr'`` and ``'display': {'pprint', 'repr'}`` (the last value that was displayed).
    The text is coloured only where it goes to a terminal.
    """

    def __repr__(self) -> str:
        return self.render(colours=_terminal_has_colours())

    def render(self, colours: bool = False) -> str:
        """The text of all commands, with or without ANSI colours."""
        palette = (_GREEN, _BLUE, _RED, _NORMAL) if colours else _PLAIN
        return "<Results List>\n" + "".join(_render_command(command, palette) for command in self)


def _terminal_has_colours() -> bool:
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
    """
    if sys.platform == "win32" and timeout is None:
        while not concurrent.futures.wait([future], WINDOWS_WAIT).done:
            pass
        return True
    return bool(concurrent.futures.wait([future], timeout).done) if timeout is not None else _wait(future)


def _wait(future: concurrent.futures.Future[Any]) -> bool:
    with contextlib.suppress(concurrent.futures.CancelledError):
        future.exception()
    return True


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


class PendingResult:
    """The result of a call with ``block=False``, made by the methods of a client; wait for it by :attr:`r`.

    In a coroutine, ``await`` it. Two of them compare by the order in which they were made.

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
    ) -> None:
        self.client = client
        self.result_id = f"{next(self._numbers):040d}"
        self.called = False
        self.raised = False
        self.callbacks: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
        self._future: concurrent.futures.Future[Any] | None = future
        self._finish: Callable[[Any], Any] | None = finish
        self._name = name
        self._result: Any = None
        self._traceback: TracebackType | None = None
        # Two threads may ask for one result: callbacks are applied once all the same. A callback may ask as well.
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        state = "retrieved" if self.called else "done" if self.done() else "running"
        return f"<PendingResult of {self._name or 'a call'}: {state}>"

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, PendingResult):
            return NotImplemented
        return self.result_id < other.result_id

    def done(self) -> bool:
        """Whether the result is here, so that :attr:`r` will not wait."""
        future = self._future
        return future is None or future.done()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the result is here, at most ``timeout`` seconds; say whether it is. Raises nothing."""
        future = self._future
        return future is None or wait_until_done(future, timeout)

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
        if not block:
            if not self.done():
                return default
        elif not self.wait(timeout):
            raise ResultNotCompleted(
                f"{self!r} has no result after {timeout:g} s. It goes on: ask again, or see queue_status()"
            )
        with self._lock:
            if not self.called:
                self._retrieve()
            if self.raised:
                # The traceback as it was: every retrieval would add its own lines to it.
                raise self._result.with_traceback(self._traceback)
            return self._result

    @property
    def r(self) -> Any:
        """The result, waited for: :meth:`get_result` with ``block=True``."""
        return self.get_result(block=True)

    def add_callback(self, f: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Have ``result = f(result, *args, **kwargs)`` applied when the result is retrieved, once.

        Several are applied one after the other. One added after the retrieval is applied now. Results that are
        exceptions have none applied.

        Raises:
            TypeError: ``f`` cannot be called.
        """
        if not callable(f):
            raise TypeError(f"a callback must be callable, which {f!r} is not")
        with self._lock:
            if not self.called:
                self.callbacks.append((f, args, kwargs))
            elif not self.raised:
                self._apply(lambda: f(self._result, *args, **kwargs))

    def _retrieve(self) -> None:
        future, finish = self._future, self._finish
        if future is None or finish is None:
            return

        def chain() -> Any:
            result = finish(future.result())
            for f, args, kwargs in self.callbacks:
                result = f(result, *args, **kwargs)
            return result

        self._apply(chain)
        # The replies are in memory once more, pickled: let them go.
        self._future = self._finish = None

    def _apply(self, compute: Callable[[], Any]) -> None:
        try:
            self._result = compute()
        except Exception as error:
            self._result, self._traceback, self.raised = error, error.__traceback__, True
        self.called = True

    def _forget(self) -> None:
        with self._lock:
            if not self.called:
                self._result = InvalidDeferredID(f"the pending result {self.result_id} ({self._name}) was flushed")
                self.called = self.raised = True
                self._future = self._finish = None

    async def _arrival(self) -> Any:
        future = self._future
        if future is not None:
            await arrival(future)
        return self.get_result()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._arrival().__await__()


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
        pending = self._pending.get(result_id)
        if pending is None or pending.called:
            raise InvalidDeferredID(f"no result is pending under the id {result_id!r}")
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
