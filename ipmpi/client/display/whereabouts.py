"""Where engines are: stacks, folded, as text."""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from ... import limits
from ...exits import signal_name
from ...places import place_in
from ...protocol.inquiries import ENDED, IDLE, STOPPED, RankStack, StackFrame
from ...protocol.mpicalls import ANY, NOBODY, MpiCall, open_call
from .escapes import safe
from .ranksets import RankSet

_LIBRARIES: Final = ("site-packages", "dist-packages", "/lib/python3", "<frozen ")


class Whereabouts(Mapping[int, RankStack]):
    """Where engines are, by their ids; shown with equal places once.

    ``where[5]`` is the stack of engine 5: ``state``, ``runs`` (what it runs), ``running`` (seconds since that
    began), and ``frames``, innermost first, each with ``function``, ``file``, ``line`` and ``text``.

    Attributes:
        silent: engines whose node agents have not answered.
    """

    def __init__(self, stacks: Mapping[int, RankStack], silent: Iterable[int] = ()) -> None:
        self._stacks = dict(sorted(stacks.items()))
        self.silent = RankSet(silent)

    def __getitem__(self, engine: int) -> RankStack:
        return self._stacks[engine]

    def __iter__(self) -> Iterator[int]:
        return iter(self._stacks)

    def __len__(self) -> int:
        return len(self._stacks)

    @property
    def groups(self) -> dict[RankSet, RankStack]:
        """Equal places once, by the engines that are there; times may differ, and are those of the first."""
        return {RankSet(ids): self._stacks[ids[0]] for ids in self._grouped()}

    def _grouped(self) -> list[list[int]]:
        found: dict[_Place, list[int]] = {}
        for engine, stack in self._stacks.items():
            found.setdefault(_place(stack), []).append(engine)
        return list(found.values())

    def text(self, *, stacks: bool = False) -> str:
        """Return one line for each place; with ``stacks``, all functions of each."""
        lines = []
        for ids in self._grouped():
            those = [self._stacks[engine] for engine in ids]
            lines.append(f"{RankSet(ids)!r}  {_described(those)}")
            if stacks:
                lines += [f"      {located(frame)}" for frame in those[0].frames]
        if self.silent:
            lines.append(f"{self.silent!r}  their node agents have not answered within {limits.INQUIRY:.0f} s")
        return "\n".join(lines) or "there are no engines"

    def __repr__(self) -> str:
        return self.text()


class _Place(NamedTuple):
    """What must be equal in one group."""

    state: str
    signal: int
    runs: str
    note: str
    frames: tuple[tuple[str, str, int], ...]
    call: str


def _place(stack: RankStack) -> _Place:
    frames = tuple((frame.function, frame.file, frame.line) for frame in stack.frames)
    call = waits_in(stack)
    return _Place(stack.state, stack.signal, stack.runs, stack.note, frames, call_text(call) if call else "")


def waits_in(stack: RankStack) -> MpiCall | None:
    """Return the MPI call that an engine is in, if it is in one that its communicator records."""
    return open_call(stack.calls)


def call_text(call: MpiCall) -> str:
    """``Allreduce #118``, or ``Recv from 3, tag 7``; the name of its communicator where it has one of several."""
    words = call.name
    if call.number:
        words += f" #{call.number}"
    if call.peer is not None:
        peer = {ANY: "any", NOBODY: "nobody"}.get(call.peer, str(call.peer))
        words += f" {'to' if 'send' in call.name.lower() else 'from'} {peer}"
    if call.tag is not None and call.tag != ANY:
        words += f", tag {call.tag}"
    return safe(words)


def _described(those: Sequence[RankStack]) -> str:
    one = those[0]
    if one.state == ENDED:
        return "its process has ended" if len(those) == 1 else "their processes have ended"
    if one.state == IDLE:
        return f"idle{_for(those)}"
    words = []
    if one.state == STOPPED:
        name = f" ({signal_name(one.signal)})" if one.signal else ""
        words.append(f"stopped{name}{_for(those)}")
    call = waits_in(one)
    if call is not None:
        words.append(f"in {call_text(call)} for {_span([_seconds(stack) for stack in those])}")
    if one.frames:
        words.append(_where(one.frames))
    elif call is not None:
        words.append(located(StackFrame(call.function, call.file, call.line)))
    elif one.note:
        words.append(f"where it is cannot be read: {safe(one.note)}")
    if one.runs:
        words.append(f"({safe(one.runs)}, {_span([stack.running for stack in those])})")
    return "  ".join(words)


def _seconds(stack: RankStack) -> int:
    call = waits_in(stack)
    return 0 if call is None else int(call.since)


def _for(those: Sequence[RankStack]) -> str:
    known = [stack.seconds for stack in those if stack.seconds >= 0]
    return f" for {_span(known)}" if any(known) else ""


def _span(seconds: Sequence[int]) -> str:
    """``31 s``, or ``29-31 s`` where they differ by more than the moment at which they were read."""
    low, high = min(seconds), max(seconds)
    return f"{high} s" if high - low <= 1 else f"{low}-{high} s"


def _where(frames: Sequence[StackFrame]) -> str:
    """The innermost function that is not of a library, and what it is in."""
    own = innermost_own(frames)
    text = f": {safe(own.text)}" if own.text else ""
    inner = "" if own is frames[0] else f"  > {located(frames[0])}"
    return f"{located(own)}{text}{inner}"


def innermost_own(frames: Sequence[StackFrame]) -> StackFrame:
    """Return the innermost of some frames that is not of a library; if all are, the innermost."""
    return next((frame for frame in frames if not is_library(frame)), frames[0])


def located(frame: StackFrame) -> str:
    """``heat.py:41 in step``."""
    return safe(place_in(frame.file, frame.line, frame.function.replace("<module>", "")))


def is_library(frame: StackFrame) -> bool:
    """Return whether a function is of a library, or of C."""
    return not frame.line or any(part in frame.file for part in _LIBRARIES)


def with_own_lines(stack: RankStack) -> RankStack:
    """Add the lines of functions that were typed here, in cells: their source is nowhere else."""
    if all(frame.text or not frame.line for frame in stack.frames):
        return stack
    frames = [
        frame if frame.text else msgspec.structs.replace(frame, text=_typed(frame)) for frame in stack.frames
    ]
    return msgspec.structs.replace(stack, frames=frames)


def _typed(frame: StackFrame) -> str:
    kept = linecache.cache.get(frame.file)
    if kept is None or len(kept) < 4 or kept[1] is not None:  # else it is a file, maybe another one of that name
        return ""
    lines = kept[2]
    return lines[frame.line - 1].strip() if 0 < frame.line <= len(lines) else ""
