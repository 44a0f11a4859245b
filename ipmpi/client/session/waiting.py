"""Futures of clients, and where waiting for them is refused: in a client's own thread and in forked processes.

A client's own thread receives the replies and runs done-callbacks: a callback that waited for a reply would wait
for ever, and so would all other threads. A forked process has copies of its parent's clients, but not their
threads.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import TYPE_CHECKING, Any, Final

from ...errors import ClientError
from .given import waiting_time

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
    """The type of a result. Without a parameter, a future or iterator is one of Any."""
else:
    from typing import TypeVar

    T = TypeVar("T")


class _Here(threading.local):
    is_clients = False
    """Whether this thread is a client's own."""


_here = _Here()
_forks = 0


def forks() -> int:
    """Return the number of forks that led to this process; it differs from that of its parent."""
    return _forks


def _forked() -> None:
    global _forks
    _forks += 1
    _here.is_clients = False  # if a callback forks, its thread becomes the child's main thread
    SessionFuture.brief = threading.RLock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def in_clients_thread() -> None:
    """Mark the current thread as a client's own."""
    _here.is_clients = True


def check_process(born: int) -> None:
    """Raise ClientError if :func:`forks` is no longer ``born``: the object belongs to a parent of this process."""
    if born != _forks:
        raise ClientError(
            f"this client was made by a parent of this process (pid {os.getpid()}), which is a fork: they cannot "
            "share one connection. Make a new client here, with MultiEngineClient() or TaskClient(). Results of "
            "calls of the parent are available only there"
        )


def check_waiting() -> None:
    """Raise ClientError in a done-callback of a future, which must not wait for the controller."""
    if _here.is_clients:
        raise ClientError(
            "a callback of a future cannot wait for results or ask the controller: it runs in the client's own "
            "thread, in which the answer would arrive. Submit, and pass the next step to the new future's "
            "add_done_callback(); or use another thread: "
            "future.add_done_callback(lambda f: threading.Thread(target=step, args=(f,)).start())"
        )


class _Waiters(list[Any]):
    """The list to which ``concurrent.futures.wait`` and ``as_completed`` add themselves.

    Args:
        born: see :func:`check_process`.
    """

    def __init__(self, born: int) -> None:
        super().__init__()
        self.born = born

    def append(self, waiter: Any) -> None:
        check_process(self.born)
        check_waiting()
        super().append(waiter)


_CANCELLED: Final = (CANCELLED, CANCELLED_AND_NOTIFIED)
_DONE: Final = (FINISHED, CANCELLED, CANCELLED_AND_NOTIFIED)


class SessionFuture(concurrent.futures.Future[Any]):
    """A future that is completed by a client's own thread.

    Of many thousands, nearly all are done before somebody waits for them. So what it takes to wait, a condition
    and a list of who does, is made for the first who does, and a list of callbacks for the first of these. The
    attributes of this class are those of a future that was just made.

    Args:
        sent: the message that asked for the result, if it may have to be sent again.

    Raises:
        ClientError: from methods that wait, in a done-callback and in a forked process: the wait would never end.

    Attributes:
        brief: held, never for longer than a few instructions, where the state of a future and whether somebody
            waits are looked at together. Signal handlers and finalizers may use futures, so it can be taken again.
    """

    brief = threading.RLock()
    _waited: threading.Condition | None = None
    _state = PENDING
    _result = None
    _exception = None
    _done_callbacks: Sequence[Callable[[concurrent.futures.Future[Any]], object]] = ()

    def __init__(self, sent: object = None) -> None:
        # Not that of the base class, which makes all that is not needed yet.
        self.sent = sent
        self._born = _forks

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        """What the base class holds while it looks at all other attributes."""
        if self._waited is None:
            made, waiters = threading.Condition(), _Waiters(self._born)
            with self.brief:
                if self._waited is None:
                    self._callbacks()
                    self._waiters = waiters
                    self._waited = made
        assert self._waited is not None
        return self._waited

    def _callbacks(self) -> list[Callable[[concurrent.futures.Future[Any]], object]]:
        """Return the list of its own."""
        found: list[Any] = self.__dict__.setdefault("_done_callbacks", [])
        return found

    def check(self) -> None:
        """Raise ClientError if it is not done and this thread must not wait for it."""
        if self._state not in _DONE:
            check_process(self._born)
            check_waiting()

    def done(self) -> bool:
        """See :class:`concurrent.futures.Future`."""
        return self._state in _DONE

    def cancelled(self) -> bool:
        """See :class:`concurrent.futures.Future`."""
        return self._state in _CANCELLED

    def set_result(self, result: Any) -> None:
        """See :class:`concurrent.futures.Future`."""
        with self.brief:
            nobody_waits = self._waited is None and self._state == PENDING
            if nobody_waits:
                self._result = result
                self._state = FINISHED
        if not nobody_waits:
            super().set_result(result)
        elif self._done_callbacks:
            self._invoke_callbacks()

    def set_exception(self, exception: BaseException | None) -> None:
        """See :class:`concurrent.futures.Future`."""
        with self.brief:
            nobody_waits = self._waited is None and self._state == PENDING
            if nobody_waits:
                self._exception = exception
                self._state = FINISHED
        if not nobody_waits:
            super().set_exception(exception)
        elif self._done_callbacks:
            self._invoke_callbacks()

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[Any]], object]) -> None:
        """See :class:`concurrent.futures.Future`. Any exception of ``fn`` is logged."""
        call = functools.partial(_call_back, fn)
        with self.brief:
            if self._waited is None and self._state == PENDING:
                self._callbacks().append(call)
                return
        super().add_done_callback(call)

    def _invoke_callbacks(self) -> None:
        super()._invoke_callbacks()  # type: ignore[misc]
        # They refer to this future, whose result would live on until the garbage collector comes by.
        self._callbacks().clear()

    def result(self, timeout: float | None = None) -> Any:
        """See :class:`concurrent.futures.Future`."""
        timeout = waiting_time(timeout)
        if self._state == FINISHED and self._exception is None:
            return self._result
        self.check()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See :class:`concurrent.futures.Future`."""
        timeout = waiting_time(timeout)
        if self._state == FINISHED:
            return self._exception
        self.check()
        return super().exception(timeout)


def _call_back(fn: Callable[[Any], object], future: concurrent.futures.Future[Any]) -> None:
    try:
        fn(future)
    except Exception:
        raise  # concurrent.futures logs it
    except BaseException as error:
        if not _here.is_clients:
            raise
        # sys.exit() in a callback must not end the thread that receives all replies.
        raise RuntimeError(f"a callback raised {error!r}, which does not end the process") from error


def settle(future: concurrent.futures.Future[Any], error: BaseException) -> None:
    """Set the exception of a future, unless it is done."""
    with contextlib.suppress(concurrent.futures.InvalidStateError):
        future.set_exception(error)


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Let exceptions of callbacks not be logged: at exit they are told that their calls have failed."""
    library = logging.getLogger("concurrent.futures")
    library.addFilter(_nothing)
    try:
        yield
    finally:
        library.removeFilter(_nothing)


def _nothing(_record: logging.LogRecord) -> bool:
    return False
