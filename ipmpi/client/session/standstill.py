"""What engines are in that do not end, what would end it, and whether they wait for others (no I/O)."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ...protocol.inquiries import ENDED, STOPPED, RankStack, StackFrame
from ..display.ranksets import RankSet
from ..display.whereabouts import is_library, located, waits_in

_MPI: Final = re.compile(r"^P?MPIX?_(?P<name>[A-Z][A-Za-z_]*)$")
"""Functions of MPI's C interface; libraries call the one with a P for the other."""

_RETURNS: Final = re.compile(r"Test|I[a-z]")
"""Those that wait for nothing."""

RESTART: Final = "mec.restart() gives the whole set back in seconds, with the names of the last mec.snapshot()"

UNKNOWN: Final = (
    "A call into C or MPI is interrupted when it returns, and waits for ever if it waits for another rank"
)
"""What is said where nothing is known of any engine."""


def mpi_function(stack: RankStack) -> str:
    """Return the function of MPI in which an engine waits, as ``MPI_Barrier``; "" if it is in none."""
    if stack.state in (STOPPED, ENDED):
        return ""
    for frame in stack.frames:
        found = _MPI.match(frame.function)
        if found and not frame.line and not _RETURNS.match(found["name"]):
            return f"MPI_{found['name']}"
    return ""


_PLURALS: Final = {"waits": "wait", "has": "have", "is": "are", "does": "do"}


def waits_for_others(stacks: Mapping[int, RankStack], engines: Iterable[int]) -> bool:
    """Return whether all of these engines are inside MPI, in calls that only another rank can end."""
    return all(engine in stacks and mpi_function(stacks[engine]) for engine in engines)


def place(stack: RankStack) -> tuple[object, ...]:
    """Return what is the same for an engine that has not moved: the function of MPI, and the lines of Python."""
    return (mpi_function(stack), *(frame for frame in stack.frames if frame.line))


def why_they_stay(stacks: Mapping[int, RankStack], engines: Iterable[int]) -> str:
    """Return what each of these engines is in and what would end that, with equal reasons once."""
    if not stacks:
        return UNKNOWN
    found: dict[str, list[int]] = {}
    for engine in engines:
        found.setdefault(_why(stacks.get(engine)), []).append(engine)
    return "; ".join(f"{RankSet(ids)!r} {_of(len(ids), why)}" for why, ids in found.items())


def _of(count: int, why: str) -> str:
    """Return a reason of one engine as that of several: the verb stands first."""
    verb, _, rest = why.partition(" ")
    return why if count == 1 else f"{_PLURALS.get(verb, verb)} {rest}".strip()


def _why(stack: RankStack | None) -> str:
    if stack is None:
        return "cannot be read: its node agent has not answered"
    if stack.state == ENDED:
        return "has ended"
    if stack.state == STOPPED:
        return "is stopped by a signal, and goes on after SIGCONT (kill -CONT)"
    call, function = waits_in(stack), mpi_function(stack)
    at = _line(stack.frames)
    if function or call is not None:
        name = function or (f"MPI_{call.name}" if call is not None else "")
        return f"waits for other ranks in {name}{at}: they would end it, an interrupt cannot"
    if not stack.frames:
        return f"does not react; where it is cannot be read ({stack.note})" if stack.note else "does not react"
    library = next(
        (frame for frame in itertools.takewhile(_is_c, stack.frames) if not _is_system_call(frame)), None
    )
    if library is not None:
        return f"is in {stack.frames[0].function}, C code{at}: the interrupt takes effect when that returns"
    if stack.note:
        return f"is{at}, in Python or in a call into C or MPI ({stack.note})"
    return f"is in Python{at}, which has caught the interrupt"


def _is_c(frame: StackFrame) -> bool:
    return not frame.line


def _is_system_call(frame: StackFrame) -> bool:
    """Return whether a C function is of the system's library, as those in which Python itself sleeps and reads."""
    return os.path.basename(frame.file).startswith(("libc.", "libc-", "libpthread", "[vdso]"))


def _line(frames: Sequence[StackFrame]) -> str:
    """Return the innermost line of Python that is of no library, as text that follows what happens there."""
    lines = [frame for frame in frames if frame.line]
    found = next((frame for frame in lines if not is_library(frame)), lines[0] if lines else None)
    return "" if found is None else f" at {located(found)}"
