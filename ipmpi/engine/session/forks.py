"""Children that user code forks: programs of their own, which must never act as the engine.

A forked child has a copy of all that the engine has: its stack, its sockets, its signal handlers. Most children
end inside the code that forked them (multiprocessing, subprocess). One that comes back from user code instead,
because the code is at its end, raised or called ``sys.exit``, would go on as a second engine on the first one's
sockets.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import weakref
from collections.abc import Callable
from typing import NoReturn

_INTERRUPTED = 130
"""Exit code of a program that was ended by Ctrl-C, as in a shell."""


class HomeProcess:
    """The process in which an engine started.

    Attributes:
        is_child: whether this is a forked child of it.
    """

    def __init__(self) -> None:
        self.is_child = False
        self._calls: list[Callable[[], object]] = []
        self._before: list[Callable[[], object]] = []
        self._after: list[Callable[[], object]] = []
        _known.add(self)

    def in_child(self, call: Callable[[], object]) -> None:
        """Call this in each forked child, in the thread that forked; exceptions are ignored."""
        self._calls.append(call)

    def around_forks(self, before: Callable[[], object], after: Callable[[], object]) -> None:
        """Call these in the forking thread before each fork, and after it in this process."""
        self._before.append(before)
        self._after.append(after)

    def leave_if_child(self, error: BaseException | None = None) -> None:
        """End a forked child whose user code has ended, as Python ends a program; else return.

        Args:
            error: what the user code raised, which decides the exit code.
        """
        if self.is_child:
            _end(error)

    def before_fork(self) -> None:
        """Run the calls before a fork."""
        _call(self._before)

    def after_fork(self) -> None:
        """Run the calls after a fork, in the parent."""
        _call(self._after)

    def forked(self) -> None:
        """Run the calls in a new child."""
        self.is_child = True
        _call(self._calls)


def _call(calls: list[Callable[[], object]]) -> None:
    for call in calls:
        with contextlib.suppress(Exception):
            call()


def _end(error: BaseException | None) -> NoReturn:
    code = 0
    # Whatever goes wrong here, the process has to end.
    with contextlib.suppress(BaseException):
        code = _exit_code(error)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
    os._exit(code)


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return 0
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    traceback.print_exception(type(error), error, error.__traceback__)
    return _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


_known: weakref.WeakSet[HomeProcess] = weakref.WeakSet()


def _tell(what: Callable[[HomeProcess], None]) -> None:
    for process in list(_known):
        what(process)


os.register_at_fork(
    before=lambda: _tell(HomeProcess.before_fork),
    after_in_parent=lambda: _tell(HomeProcess.after_fork),
    after_in_child=lambda: _tell(HomeProcess.forked),
)
