"""Failures of many engines in a few lines: equal ones once, with ranks and the frames of user code (no I/O)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final, NamedTuple

from .colours import GREEN, NORMAL, RED
from .numerals import masked, with_ranges
from .ranges import label

_HEADER: Final = "Traceback (most recent call last):"
_FRAME: Final = re.compile(r'  File "(?P<file>.*)", line \d+, in ')
# Python's own library, installed packages, and the parts of ipmpi between user code and its error.
_NOT_THE_USERS: Final = re.compile(
    r"[/\\](?:site|dist)-packages[/\\]|[/\\]lib[/\\]python3|^<frozen "
    r"|[/\\]ipmpi[/\\](?:engine|client|protocol|serialize)"
)
_OWN: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
_CELL: Final = re.compile(r"^<ipython-input|[/\\]ipykernel_\d+[/\\]|^<stdin>|^<string>")
_CALLERS: Final = 2

_CONSEQUENCES: Final = ("PeerError", "QueueCleared", "KeyboardInterrupt")
"""What happens to engines because others have failed, or the user has interrupted them."""

_FRAMES: Final = {1: 3, 2: 2}
"""Frames that are shown, by the number of groups; otherwise 1."""

_GROUPS: Final = 5
_MOST_GROUPS: Final = 12
_MESSAGE_LINES: Final = 4
_WITHOUT_FRAMES: Final = 6


class Failure(NamedTuple):
    """What was raised on one engine.

    Attributes:
        engine: its id; None where that is not known.
        method: what was called.
        kind: the name of the exception's class.
        text: its text.
        traceback: as the engine has formatted it; may be empty.
    """

    engine: int | None
    method: str
    kind: str
    text: str
    traceback: str

    @property
    def message(self) -> str:
        """The last line of a traceback."""
        return f"{self.kind}: {self.text}" if self.text else self.kind


class Group:
    """Failures that are alike: of one class, in one place, with texts that differ by numbers only.

    Attributes:
        failures: all of them, in the order of the engines.
        first: the one whose place is shown.
    """

    def __init__(self) -> None:
        self.failures: list[Failure] = []

    @property
    def first(self) -> Failure:
        """The one that stands for all."""
        return self.failures[0]

    @property
    def ids(self) -> list[int]:
        """The engines, as far as known."""
        return [failure.engine for failure in self.failures if failure.engine is not None]

    @property
    def label(self) -> str:
        """The ranks, as in ``[0-63]``."""
        return label(self.ids) if self.ids else "[Engine Exception]"

    @property
    def message(self) -> str:
        """Class and text; numbers that differ as ranges."""
        if len({failure.text for failure in self.failures}) == 1:
            return self.first.message
        return with_ranges([(-1 if each.engine is None else each.engine, each.message) for each in self.failures])

    def in_short(self) -> str:
        """One line, or more if the text has more: ``[0-63:execute]: ZeroDivisionError: division by zero``."""
        name = f"{self.label[:-1]}:{self.first.method}]: " if self.ids else self.label
        return name + self.message


def key_of(failure: Failure) -> tuple[str, ...]:
    """What is equal for failures that are alike."""
    place = masked("\n".join(line for line in failure.traceback.split("\n") if line.startswith("  File ")))
    return failure.kind, failure.method, masked(failure.text), place


def grouped(failures: Iterable[Failure]) -> list[Group]:
    """Groups of failures that are alike; first those that have no other for their cause."""
    found: dict[tuple[str, ...], Group] = {}
    for each in failures:
        found.setdefault(key_of(each), Group()).failures.append(each)
    return sorted(found.values(), key=lambda group: group.first.kind in _CONSEQUENCES)


def in_short(groups: Sequence[Group], finished: Sequence[int]) -> list[str]:
    """A line for each group, and one for the engines that have not failed."""
    lines = [group.in_short() for group in groups[:_MOST_GROUPS]]
    if len(groups) > _MOST_GROUPS:
        lines.append(_others(groups[_MOST_GROUPS:]))
    return [*lines, f"{label(finished)} finished"] if finished else lines


def _others(groups: Sequence[Group]) -> str:
    kinds = ", ".join(dict.fromkeys(group.first.kind for group in groups))
    ids = [engine for group in groups for engine in group.ids]
    return f"{label(ids)} {len(groups)} other failures: {kinds}"


def story(groups: Sequence[Group], message: str, finished: Sequence[int], hint: str, colours: bool) -> list[str]:
    """What has happened, in about 15 lines.

    Args:
        groups: of the failures.
        message: the first line.
        finished: engines that have not failed.
        hint: the last line if something was left out; ``{rank}`` in it is that of a failure.
        colours: whether to use ANSI colours.
    """
    paint = _Paint(colours)
    lines = [message]
    is_whole = len(groups) <= _GROUPS
    for group in groups[:_GROUPS]:
        frames, has_all = _frames(group.first.traceback, _FRAMES.get(len(groups), 1))
        said = _said(group.message)
        lines += paint.block(group.label, [*frames, *said])
        is_whole = is_whole and has_all and "\n".join(said) == group.first.message
    if not is_whole and len(groups) > _GROUPS:
        lines.append(_others(groups[_GROUPS:]))
    if finished:
        lines.append(f"{paint(label(finished), GREEN)} finished")
    return lines if is_whole else [*lines, hint.format(rank=groups[0].first.engine)]


def everything(groups: Sequence[Group], colours: bool) -> list[str]:
    """The whole traceback of each group."""
    paint = _Paint(colours)
    return [
        line
        for group in groups
        for line in paint.block(group.label, (group.first.traceback or group.message).rstrip("\n").split("\n"))
    ]


class _Paint:
    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def __call__(self, text: str, colour: str) -> str:
        return f"{colour}{text}{NORMAL}" if self._colours else text

    def block(self, name: str, body: Sequence[str]) -> list[str]:
        indent = " " * (len(name) + 1)
        first = f"{self(name, GREEN)} {body[0]}"
        last = self(body[-1], RED)
        if len(body) == 1:
            return [f"{self(name, GREEN)} {last}"]
        return [first, *(indent + line for line in body[1:-1]), indent + last]


def _said(message: str) -> list[str]:
    lines = message.split("\n")
    if len(lines) > _MESSAGE_LINES:
        lines = [*lines[: _MESSAGE_LINES - 1], f"... {len(lines) - _MESSAGE_LINES + 1} more lines"]
    return lines


def _frames(traceback: str, most: int) -> tuple[list[str], bool]:
    """The frames of user code, each with its source line; and whether that is the whole traceback."""
    before, header, last = traceback.rpartition(_HEADER)
    lines = last.strip("\n").split("\n")
    frames: list[list[str]] = []
    for line in lines:
        if _FRAME.match(line):
            frames.append([line])
        elif frames and line.startswith("    "):
            frames[-1].append(line)
    if not frames:
        indented = [line for line in lines[:-1] if line.startswith("  ")]
        return indented[:_WITHOUT_FRAMES], len(indented) <= _WITHOUT_FRAMES
    own = [frame for frame in frames if not _is_not_the_users(frame[0])] or frames[-1:]
    if frames[-1] is not own[-1]:
        # The user's last line has called a library: where in there it went wrong is one more line.
        own[-1] = [*own[-1], f"    ... in {frames[-1][0].strip().removeprefix('File ')}"]
    is_whole = len(frames) == len(own) <= most and not before.strip()
    if len(own) > most:
        left_out = len(own) - most
        note = [f"  ... {left_out} more frame{'s' * (left_out > 1)} ..."]
        own = [own[0], note, *own[1 - most :]] if most > 1 else own[-1:]
    return [*_earlier(before), header, *(line for frame in own for line in frame)], is_whole


def _earlier(before: str) -> list[str]:
    """The exception that was being handled, or was named as the cause."""
    sections = [part for part in before.split(_HEADER) if part.strip()]
    if not sections:
        return []
    lines = [line for line in sections[-1].strip("\n").split("\n") if line and not line.startswith(" ")]
    return [f"after {lines[0]}"] if lines else []


def _is_not_the_users(line: str) -> bool:
    found = _FRAME.match(line)
    return found is not None and not is_users(found["file"])


def is_users(file: str) -> bool:
    """Whether a file is one of the user's: not of Python's library, an installed package, or ipmpi."""
    return _NOT_THE_USERS.search(file) is None


def callers(traceback: TracebackType | None) -> list[str]:
    """Where the user's own program called the method that raised: functions and files, not cells at a prompt."""
    found = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        name = code.co_filename
        if not (name.startswith(_OWN) or _NOT_THE_USERS.search(name) or _CELL.search(name)):
            found.append(f'called in File "{name}", line {traceback.tb_lineno}, in {code.co_name}')
        traceback = traceback.tb_next
    return found[-_CALLERS:]
