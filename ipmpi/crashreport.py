"""What Python's faulthandler has written about a crash, or a call of MPI_Abort (no I/O)."""

from __future__ import annotations

import re
import signal
from typing import Final, NamedTuple

from .exits import ABORT
from .failuretext import is_users
from .places import file_name

_HEAD: Final = re.compile(rf"^(?:Fatal Python error: (.+)|{ABORT})$", re.MULTILINE)
_CURRENT: Final = re.compile(r"^(?:Current thread .*|Stack )\(most recent call first\):$")
_FRAME: Final = re.compile(r' {2}File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<function>.*)$')
_LOG_LINE: Final = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", re.MULTILINE)
_OWN: Final = re.compile(r"[/\\]ipmpi[/\\](?:engine|cli)[/\\]")
_SIGNALS: Final = {
    "Segmentation fault": signal.SIGSEGV,
    "Bus error": signal.SIGBUS,
    "Illegal instruction": signal.SIGILL,
    "Floating-point exception": signal.SIGFPE,
    "Floating point exception": signal.SIGFPE,
    "Aborted": signal.SIGABRT,
}


class Frame(NamedTuple):
    """A frame of Python; ``line`` is 0 if it is not known."""

    file: str
    line: int
    function: str


def frame_in(text: str) -> Frame | None:
    """Return the frame that a line of faulthandler's shows; None if it shows none."""
    found = _FRAME.match(text)
    if found is None:
        return None
    return Frame(found["file"], int(found["line"]) if found["line"].isdigit() else 0, found["function"])


class Crash(NamedTuple):
    """A crash.

    Attributes:
        signal: its signal; 0 for an error of Python itself, and for MPI_Abort.
        is_abort: whether it is MPI_Abort.
        frames: of the thread that crashed, innermost first, without those of ipmpi around user code.
        text: all that was written, without those.
        is_last: whether nothing was logged after it: a forked process may have crashed, and its parent gone on.
    """

    signal: int
    is_abort: bool
    frames: list[Frame]
    text: str
    is_last: bool

    @property
    def place(self) -> str:
        """Where it was in user code: ``step (heat.py:41)``; "" if that is not known."""
        users = [frame for frame in self.frames if is_users(frame.file)]
        frame = next(iter(users or self.frames), None)
        if frame is None:
            return ""
        line = f":{frame.line}" if frame.line else ""
        return f"{frame.function} ({file_name(frame.file)}{line})"

    def traceback(self) -> list[str]:
        """The frames as in a traceback, innermost last."""
        return [f'  File "{file}", line {line}, in {function}' for file, line, function in reversed(self.frames)]


def last_crash(text: str) -> Crash | None:
    """The last crash in a log; None if there is none."""
    heads = list(_HEAD.finditer(text))
    if not heads:
        return None
    told = text[heads[-1].start() :]
    after = _LOG_LINE.search(told)
    lines = (told[: after.start()] if after else told).splitlines()
    frames: list[Frame] = []
    kept: list[str] = []
    is_own = is_current = has_user = False
    for line in lines:
        frame = frame_in(line)
        if frame is None:
            is_current, has_user = bool(_CURRENT.match(line)), False
        else:
            # Those of ipmpi are around user code, and inside of its calls of MPI_Abort.
            is_own = bool(_OWN.search(line)) or (is_own and has_user)
            has_user = has_user or not is_own
        if not (frame and is_own) and not line.startswith("Extension modules:"):
            kept.append(line)
            if is_current and frame is not None:
                frames.append(frame)
    number = _SIGNALS.get((heads[-1][1] or "").strip(), 0)
    return Crash(int(number), heads[-1][1] is None, frames, "\n".join(kept).strip(), after is None)
