"""What a debugger reads from and writes to: text for a client, lines from it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

from ipmpi.engine.capturedtext import CapturedText
from ipmpi.limits import DEBUGGER_TEXT
from ipmpi.places import place_in
from ipmpi.protocol.debugging import LEFT, STEPS, TEXT

Tell = Callable[[int, str], None]
"""Called with a state of :mod:`ipmpi.protocol.debugging`, and text."""

Ask = Callable[[str, str, str], "str | None"]
"""Called with text, a prompt, and where user code has stopped; returns a line with its end, "" at the end of
input, None where nobody is there."""

_AT_ONCE: Final = 0.05
"""Seconds for which what a line of the debugger writes may wait for its next prompt, to come with that."""
_GO_ON: Final = "continue\n"


class DebuggerTerminal(CapturedText):
    """Standard input and output of a debugger, and of what is evaluated in it.

    Between two prompts the first and last characters of what is written are passed on, ``limits.DEBUGGER_TEXT`` of
    them. It is not thread-safe.

    Attributes:
        prompt: the debugger's; what is read without it in front is asked for by user code.
        place: where user code has stopped.
        is_alone: whether nobody is there any more: the debugger shall let user code go on, always.
        was_interrupted: whether an interrupt has come while a line was waited for.
    """

    def __init__(self, tell: Tell, ask: Ask) -> None:
        self._tell = tell
        self._ask = ask
        self.prompt = ""
        self.place = ""
        self.is_alone = False
        self.was_interrupted = False
        self._begin(time.monotonic())

    def _begin(self, now: float) -> None:
        """Nothing was written since the last prompt."""
        self._told_at = now
        self._text = ""
        self._room = DEBUGGER_TEXT // 2
        self._tail: deque[str] = deque()
        self._tail_size = 0
        self._left_out = 0

    def write(self, text: str, /) -> int:
        """Write text, which comes at once or with the next prompt."""
        if self._room:
            kept = text[: self._room]
            self._room -= len(kept)
            self._text += kept
            self._to_tail(text[len(kept) :])
        else:
            self._to_tail(text)
        now = time.monotonic()
        if self._text.endswith("\n") and now - self._told_at >= _AT_ONCE:
            self._tell(TEXT, self._text)
            self._text, self._told_at = "", now
        return len(text)

    def _to_tail(self, text: str) -> None:
        text, over = text[-(DEBUGGER_TEXT // 2) :], max(0, len(text) - DEBUGGER_TEXT // 2)
        self._left_out += over
        if not text:
            return
        self._tail.append(text)
        self._tail_size += len(text)
        while self._tail_size - len(self._tail[0]) >= DEBUGGER_TEXT // 2:
            dropped = len(self._tail.popleft())
            self._tail_size -= dropped
            self._left_out += dropped

    def _taken(self) -> str:
        """All that was written and not told yet; nothing is left."""
        note = f"\n... [ipmpi: {self._left_out:,} characters left out here] ...\n" if self._left_out else ""
        text = self._text + note + "".join(self._tail)
        self._begin(time.monotonic())
        return text

    def readline(self, _size: int | None = -1, /) -> str:  # type: ignore[override]
        """The next line, with its end; "" at the end of input, and after an interrupt."""
        text = self._taken()
        is_command = bool(self.prompt) and text.endswith(self.prompt)
        if is_command:
            text, prompt = text[: -len(self.prompt)], self.prompt
        else:
            above, end, prompt = text.rpartition("\n")
            text = above + end
        if not self.is_alone:
            try:
                line = self._ask(text, prompt, self.place)
            except KeyboardInterrupt:
                self.was_interrupted = True
                return ""
            self._told_at = time.monotonic()
            if line is not None:
                return line
            self.is_alone = True
        return _GO_ON if is_command else ""

    def left(self, is_over: bool) -> None:
        """The debugger lets user code run; ``is_over``: up to a breakpoint or its end."""
        if not self.is_alone:
            self._tell(LEFT if is_over else STEPS, self._taken())

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Stand for Python's standard streams, so that the output of what is evaluated keeps its place."""
        before = sys.stdin, sys.stdout, sys.stderr
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stdout.flush()
            sys.stderr.flush()
        sys.stdin = sys.stdout = sys.stderr = self
        try:
            yield
        finally:
            sys.stdin, sys.stdout, sys.stderr = before

    def readable(self) -> bool:
        """Always."""
        return True


def place_of(frame: FrameType, line: int | None = None) -> str:
    """``heat.py:41 in step``."""
    return place_in(frame.f_code.co_filename, line or frame.f_lineno, frame.f_code.co_name)
