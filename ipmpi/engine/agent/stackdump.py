"""What py-spy and faulthandler write about a stack, as frames; and which of them are the user's."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ...crashreport import frame_in
from ...protocol.inquiries import StackFrame

INNER, OUTER = 16, 8
"""Frames of a deep stack that are told, of its two ends."""
_NAME: Final = 200
"""Characters of a name; longer ones are cut."""

_PACKAGE: Final = os.path.join(Path(os.path.abspath(__file__)).parents[2], "")
_MPI: Final = re.compile(r"P?MPI_[A-Z]")


class NotAStackError(ValueError):
    """It is none; the text says what it is instead."""


def of_py_spy(data: bytes, thread: int) -> list[StackFrame]:
    """Return the frames of a thread, innermost first, from the output of ``py-spy dump --json``.

    Args:
        data: what it has written.
        thread: the system's number of the thread; without such a one, the first is taken.

    Raises:
        NotAStackError: with what py-spy says instead.
    """
    start = 0 if data.startswith(b"[\n") else data.find(b"\n[\n") + 1
    try:
        threads: list[dict[str, Any]] = json.loads(data[start:])
        wanted = [each for each in threads if each["os_thread_id"] == thread] or threads
        return [
            frame_of(frame["name"], frame["filename"], frame["line"], frame["module"])
            for frame in wanted[0]["frames"]
        ]
    except (ValueError, KeyError, TypeError, IndexError):
        raise NotAStackError(_why(data)) from None


def frame_of(name: str, file: str, line: int, module: str | None = None) -> StackFrame:
    """Return a frame; those of C have a module, their library, and maybe a line, which is left out."""
    return StackFrame(_short(name), (module or file)[-_NAME:], 0 if module else int(line))


def _short(name: str) -> str:
    """The name of a function, without that of the function in which it was defined."""
    return name.rpartition("<locals>.")[2][:_NAME]


def _why(data: bytes) -> str:
    """The causes in an error of py-spy, without its own stack."""
    text = data.decode(errors="replace").partition("Stack backtrace")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip() and line.strip() != "Caused by:"]
    return " · ".join(lines)[:_NAME] or "py-spy has said nothing"


def of_faulthandler(data: bytes) -> list[StackFrame]:
    """Return the frames of a stack that :mod:`faulthandler` has written, innermost first."""
    frames = filter(None, map(frame_in, data.decode(errors="replace").splitlines()))
    return [frame_of(frame.function, frame.file, frame.line) for frame in frames]


def users(frames: Sequence[StackFrame]) -> list[StackFrame]:
    """Return those that the user's code has begun, innermost first.

    Left out are ipmpi's around and within them, those of the interpreter, and what MPI's functions call. If none
    is left, the innermost frame of all is returned: it says what ipmpi does.
    """
    outer = [frame for frame in reversed(frames) if not _is_interpreters(frame)]
    begin = next((index for index, frame in enumerate(outer) if _is_own(frame)), -1) + 1
    while begin and begin < len(outer) and (_is_own(outer[begin]) or not outer[begin].line):
        begin += 1
    theirs = [frame for frame in outer[begin:] if not _is_own(frame)]
    mpi = next((index for index, frame in enumerate(theirs) if is_mpi(frame)), len(theirs))
    theirs = theirs[: mpi + 1]
    theirs = theirs[:OUTER] + theirs[OUTER:][-INNER:]
    return list(reversed(theirs)) or list(frames[:1])


def is_mpi(frame: StackFrame) -> bool:
    """Whether it is a function of MPI, called by C code."""
    return not frame.line and _MPI.match(frame.function) is not None


def _is_own(frame: StackFrame) -> bool:
    return frame.file.startswith(_PACKAGE)


def _is_interpreters(frame: StackFrame) -> bool:
    """Whether it is a function in C of Python itself, of which there are several for each call."""
    return not frame.line and os.path.basename(frame.file).startswith(("libpython", "python"))
