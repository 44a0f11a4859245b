"""Debuggers in user code: ``breakpoint()`` in commands, and a look at the frames of the last exception.

The debugger itself, pdb, is in :mod:`ipmpi.engine.session.enginedebugger`, which is loaded when it is needed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from ipmpi.engine.session.debuggerterminal import Ask, DebuggerTerminal, Tell, place_of
from ipmpi.engine.session.failures import user_frames

_NOWHERE: Final = (
    "a debugger opens in commands of a client only (mec.execute, mec.apply, %px), not in tasks, threads and child "
    "processes"
)


class Debugging:
    """The debuggers of one engine. There is one at a time, in the thread that runs commands.

    Args:
        load_shell: loads IPython's shell, if IPython is installed; its debugger needs one.

    Attributes:
        last_error: what the last failing command has raised, if user code was under way; kept with all its frames.
    """

    def __init__(self, load_shell: Callable[[], object]) -> None:
        self.last_error: BaseException | None = None
        self._load_shell = load_shell
        self._tell: Tell | None = None
        self._ask: Ask | None = None
        self._debugger: Any = None
        self._is_post_mortem = False

    def connect(self, tell: Tell, ask: Ask) -> None:
        """Talk to the client of the command that runs through these."""
        self._tell, self._ask = tell, ask

    def begin(self) -> None:
        """A command begins, in this thread."""
        _here.debugging = self

    def end(self) -> None:
        """It has ended: nothing is traced any more, and its breakpoints are gone."""
        _here.debugging = None
        self._is_post_mortem = False
        debugger, self._debugger = self._debugger, None
        if debugger is not None:
            debugger.finish()

    def forked(self) -> None:
        """This is a forked child: nobody would answer it."""
        _here.debugging = None
        self._tell = self._ask = self._debugger = None

    def keep(self, error: BaseException) -> None:
        """A command has raised; its frames stay until another one does, or :meth:`forget`."""
        with contextlib.suppress(BaseException):  # it is an object of user code
            if not self._is_post_mortem and user_frames(error.__traceback__) is not None:
                self.last_error = error

    def forget(self) -> None:
        """Let go of the last exception and its frames."""
        self.last_error = None

    def stop_in(self, frame: FrameType, header: str | None = None) -> bool:
        """Open the debugger in ``frame``, where it is; return whether anybody can be asked."""
        if self._ask is None:
            return False
        debugger = self._opened()
        if not debugger.terminal.is_alone:
            if header is not None:
                debugger.message(header)
            debugger.stop_in(frame)
        return True

    def post_mortem(self) -> None:
        """Open the debugger in the frames of the last exception; returns when its user leaves it.

        Raises:
            LookupError: there is none.
            RuntimeError: nobody can be asked.
            KeyboardInterrupt: the command was interrupted.
        """
        self._is_post_mortem = True
        if self.last_error is None:
            raise LookupError(
                "there is no exception to look at: no command has raised in user code on this engine since it "
                "started, or since reset()"
            )
        if self._ask is None:
            raise RuntimeError("this engine cannot ask anybody")
        self._opened().look_at(self.last_error)

    def _opened(self) -> Any:
        if self._debugger is None:
            assert self._tell is not None
            assert self._ask is not None
            from ipmpi.engine.session.enginedebugger import new_debugger

            self._debugger = new_debugger(DebuggerTerminal(self._tell, self._ask), self._load_shell)
        return self._debugger


class _Here(threading.local):
    debugging: Debugging | None = None
    """That of the engine whose command this thread runs."""


_here = _Here()


def breakpoint_hook(*arguments: Any, **options: Any) -> Any:
    """Stands for ``sys.breakpointhook``: opens the debugger at the client of the command that runs."""
    other = os.environ.get("PYTHONBREAKPOINT", "")
    if other and other != "pdb.set_trace":
        return sys.__breakpointhook__(*arguments, **options)
    stop_in(sys._getframe(1), "breakpoint()", options.get("header"))
    return None


def stop_in(frame: FrameType, what: str, header: str | None = None) -> None:
    """Open the debugger in a frame of user code; where there can be none, say so and go on."""
    debugging = _here.debugging
    if debugging is None or not debugging.stop_in(frame, header):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(f"ipmpi: {what} in {place_of(frame)} is passed over: {_NOWHERE}", file=sys.stderr)


def adapt_set_trace(module: Any) -> None:
    """Let ``set_trace`` of a debugger's module (pdb, ipdb) do the same as ``breakpoint()``."""
    original = module.set_trace

    @functools.wraps(original)
    def set_trace(*arguments: Any, header: str | None = None, **_options: Any) -> None:
        frame = arguments[0] if arguments and isinstance(arguments[0], FrameType) else sys._getframe(1)
        stop_in(frame, f"{module.__name__}.set_trace()", header)

    module.set_trace = set_trace
