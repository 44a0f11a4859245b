"""Where nothing can be waited for: in a client's own thread, and in a forked process.

A client's own thread calls what was given to ``add_done_callback``. Answers arrive in this thread, so one that is
waited for there never comes, and everybody else's answers neither. A forked process has a copy of its parent's
clients, and not their threads. Both are refused at once.
"""

from __future__ import annotations

import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable
from typing import Any

from ...errors import ClientError
from .given import waiting_time


class _Here(threading.local):
    is_clients = False
    """Whether this is the own thread of a client."""


_here = _Here()
_forks = 0


def forks() -> int:
    """How often the process was forked on the way from the first one: another number means another process."""
    return _forks


def _forked() -> None:
    global _forks
    _forks += 1
    _here.is_clients = False  # a callback may fork; what is left of its thread is the child's main thread


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def in_clients_thread() -> None:
    """This is the own thread of a client from now on."""
    _here.is_clients = True


def check_process(born: int) -> None:
    """Raise ClientError, if what was made when :func:`forks` was ``born`` belongs to a parent of this process."""
    if born != _forks:
        raise ClientError(
            f"this client was made by a parent of this process (pid {os.getpid()}), which is a fork: they cannot "
            "share one connection. Make a new client here, with MultiEngineClient() or TaskClient(). Results of "
            "calls that the parent has made are to be had there only"
        )


def check_waiting() -> None:
    """Raise ClientError where nothing may wait for a controller: in a callback of a future."""
    if _here.is_clients:
        raise ClientError(
            "a callback of a future cannot wait for results or ask the controller: it runs in the client's own "
            "thread, in which the answer would arrive. Submit, and give the next step to the new future's "
            "add_done_callback(); or let another thread do it: "
            "future.add_done_callback(lambda f: threading.Thread(target=step, args=(f,)).start())"
        )


class _Waiters(list[Any]):
    """Where ``concurrent.futures.wait`` and ``as_completed`` enter themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.born = _forks

    def append(self, waiter: Any) -> None:
        check_process(self.born)
        check_waiting()
        super().append(waiter)


class SessionFuture(concurrent.futures.Future[Any]):
    """A future that a client's own thread completes: waiting for it is refused where that cannot end well.

    Raises:
        ClientError: from whatever waits, in a callback and in a forked process.
    """

    def __init__(self) -> None:
        super().__init__()
        self._born = _forks
        self._waiters = _Waiters()

    def check(self) -> None:
        """Raise ClientError, if it is not done and may not be waited for here."""
        if not self.done():
            check_process(self._born)
            check_waiting()

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[Any]], object]) -> None:
        """See :class:`concurrent.futures.Future`. What ``fn`` raises is logged, whatever it is."""
        super().add_done_callback(functools.partial(_call_back, fn))

    def result(self, timeout: float | None = None) -> Any:
        """See :class:`concurrent.futures.Future`."""
        timeout = waiting_time(timeout)
        self.check()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See :class:`concurrent.futures.Future`."""
        timeout = waiting_time(timeout)
        self.check()
        return super().exception(timeout)


def _call_back(fn: Callable[[Any], object], future: concurrent.futures.Future[Any]) -> None:
    try:
        fn(future)
    except Exception:
        raise  # the library logs it
    except BaseException as error:
        if not _here.is_clients:
            raise
        # sys.exit() in a callback shall not end the thread that everybody's answers come by.
        raise RuntimeError(f"a callback has raised {error!r}, which ends nothing") from error
