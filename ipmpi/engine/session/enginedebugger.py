"""pdb for user code of an engine, IPython's where that is installed. Importing this loads pdb."""

from __future__ import annotations

import bdb
import importlib.util
import pdb
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from ipmpi.engine.session.debuggerterminal import DebuggerTerminal, place_of
from ipmpi.engine.session.failures import is_ours, user_frames

_TAKES_EXCEPTIONS: Final = sys.version_info >= (3, 13)


class EngineDebugger(pdb.Pdb):
    """A debugger for user code of an engine. A class may be derived from it and another one that is based on pdb.

    It sees the frames of user code, and none of ipmpi's. An interrupt that comes while it waits for a line ends
    it, and user code gets a KeyboardInterrupt.

    Args:
        terminal: its standard input and output.
    """

    def __init__(self, terminal: DebuggerTerminal) -> None:
        streams: Any = terminal  # which has all that pdb uses
        super().__init__(stdin=streams, stdout=streams, nosigint=True)
        self.use_rawinput = False
        self.terminal = terminal

    def stop_in(self, frame: FrameType) -> None:
        """Stop in a frame of user code: at its next line, from Python 3.13 on at the one that it is in."""
        bottom, outside = frame, frame.f_back
        while outside is not None and not is_ours(outside):
            bottom, outside = outside, outside.f_back
        self.set_trace(frame)
        # From here on no function may be called: it would be traced.
        while outside is not None:
            del outside.f_trace
            outside = outside.f_back
        self.botframe = bottom

    def look_at(self, error: BaseException) -> None:
        """Show the frames of an exception until the user leaves."""
        self.reset()
        traceback = user_frames(error.__traceback__)
        self.interaction(None, error if _TAKES_EXCEPTIONS else traceback)
        if self.terminal.was_interrupted:
            raise KeyboardInterrupt

    def finish(self) -> None:
        """The command has ended."""
        if getattr(sys.gettrace(), "__self__", None) is self:
            sys.settrace(None)
        self.clear_all_breaks()
        self.forget()

    def get_stack(self, frame: FrameType | None, traceback: Any) -> Any:
        """As of bdb, without the frames of ipmpi below and above user code."""
        stack, current = super().get_stack(frame, traceback)
        first, last = 0, len(stack)
        if frame is None:
            while first < last - 1 and is_ours(stack[first][0]):
                first += 1
            while last > first + 1 and is_ours(stack[last - 1][0]):
                last -= 1
        return stack[first:last], min(max(current - first, 0), last - first - 1)

    def stop_here(self, frame: FrameType) -> bool:
        """As of bdb, but never in ipmpi."""
        return not is_ours(frame) and bool(super().stop_here(frame))

    def preloop(self) -> None:
        """As of cmd: lines will be read."""
        frame, line = self.stack[self.curindex]
        self.terminal.prompt, self.terminal.place = self.prompt, place_of(frame, line)
        super().preloop()

    def interaction(self, *arguments: Any) -> None:
        """As of pdb: read lines until user code runs on; where nobody is there it does at once."""
        if self.terminal.is_alone:
            self.clear_all_breaks()
            self.set_continue()
            return
        with self.terminal.in_place():
            super().interaction(*arguments)
        self.terminal.left(self.quitting or (self.stopframe is self.botframe and self.stoplineno == -1))

    def trace_dispatch(self, *arguments: Any) -> Any:
        """As of bdb: an event of user code."""
        try:
            return super().trace_dispatch(*arguments)
        except bdb.BdbQuit:
            if self.terminal.was_interrupted:
                self.terminal.was_interrupted = False
                raise KeyboardInterrupt from None
            raise

    def dispatch_return(self, frame: FrameType, value: Any) -> Any:
        """As of bdb; with its outermost frame, user code is at its end."""
        result = super().dispatch_return(frame, value)
        if frame is self.botframe:
            self.set_continue()  # what comes now is ipmpi
        return result


def new_debugger(terminal: DebuggerTerminal, load_shell: Callable[[], object]) -> EngineDebugger:
    """A debugger that reads from and writes to a terminal: IPython's, or else pdb."""
    if importlib.util.find_spec("IPython") is not None:
        try:
            load_shell()
            from IPython.core import debugger

            ipythons: Any = debugger.Pdb
            kind: Any = type("IPythonEngineDebugger", (EngineDebugger, ipythons), {})
            made: EngineDebugger = kind(terminal)
            return made
        except Exception as error:  # it is about more than this, and of any release
            terminal.write(
                f"*** IPython's debugger cannot be used ({type(error).__name__}: {error}); this is pdb\n"
            )
    return EngineDebugger(terminal)
