"""The end of a rank's process in a sentence, and as data (no I/O; the time is an argument)."""

from __future__ import annotations

import os
import re
import signal
from collections import deque
from typing import Final, NamedTuple

import msgspec

from ... import limits
from ...crashreport import Crash, last_crash
from ...exits import how_it_ended
from ...places import file_name
from ...protocol import operations
from ...protocol.messages import Death, RanksLost
from ...protocol.mpicalls import MpiCall
from ...quantities import duration, sized, sized_of
from .watch import describe_status

_NEARLY: Final = 0.9
"""From this part of a limit on, it may be the cause."""
_SOURCE: Final = 60
"""Characters of the source text of a command."""
_ABORTED: Final = re.compile(r"application called MPI_Abort\(.*?, (-?\d+)\)")
"""What MPICH prints where a library in C calls it."""
_SAYS_NOTHING: Final = re.compile(r"\s*(?:import|from|#|%)")
_UNKNOWN: Final = "its process ended, and how is not known: a crash, MPI_Abort, or out of memory"


class MemoryFacts(NamedTuple):
    """What is known of the memory of a process that has ended; 0 for what is not.

    Attributes:
        peak_rss: the most that it was seen to have.
        used: what all have had together to whom ``limit`` applies.
        limit: how much they may have.
        scope: to whom it applies, "control group" or "machine".
        address_space: the most that it has mapped, and ``address_limit`` how much it may.
        oom: whether the kernel's out-of-memory killer has ended it, if a SIGKILL did.
    """

    peak_rss: int = 0
    used: int = 0
    limit: int = 0
    scope: str = ""
    address_space: int = 0
    address_limit: int = 0
    oom: bool = False


class Evidence(NamedTuple):
    """What is found where a rank has ended.

    Attributes:
        status: its exit status, as of ``os.waitpid``; None if it is unknown.
        abort: the code with which it called MPI_Abort; None if it did not.
        memory: about its memory.
        ran: what it ran; "" for nothing.
        seconds: for how long.
        printed: the last lines that it printed.
        log: the end of the file into which faulthandler writes.
        call: its last MPI call, as far as those are recorded.
    """

    status: int | None = None
    abort: int | None = None
    memory: MemoryFacts = MemoryFacts()
    ran: str = ""
    seconds: float = 0.0
    printed: str = ""
    log: str = ""
    call: MpiCall | None = None


def certificate(rank: int, pid: int, host: str, found: Evidence) -> tuple[Death, str]:
    """Return what is known, and the sentence that says it of "it"."""
    code = None if found.status is None else os.waitstatus_to_exitcode(found.status)
    killed, crash = -min(0, code or 0), last_crash(found.log)
    if crash is not None and not _belongs(crash, found, killed):
        crash = None  # of a child process, or long ago
    if code is None and crash is not None:
        killed = crash.signal
    abort = found.abort
    if abort is None and (printed := _ABORTED.findall(found.printed)):
        abort = int(printed[-1])
    oom = found.memory.oom and (killed == signal.SIGKILL or code is None) and abort is None
    death = Death(
        rank, pid, host, int(signal.SIGKILL) if oom else killed, code if code is not None and code >= 0 else None,
        abort, oom, found.memory.peak_rss, found.memory.used, found.memory.limit, found.ran, found.seconds,
        found.printed, "" if crash is None else crash.text[: limits.DEATH_STACK],
    )  # fmt: skip
    place = "" if crash is None else crash.place
    how = how_it_ended(-killed) if found.status is None else describe_status(found.status)
    parts = [_manner(death, how, place), *_memory(death, found.memory), _ran(death, found.call)]
    return death, "; ".join(parts)


def _belongs(crash: Crash, found: Evidence, killed: int) -> bool:
    if found.abort is not None or crash.is_abort:
        return found.abort is not None and crash.is_abort
    return crash.is_last if found.status is None else bool(killed) and crash.signal == killed


def _manner(death: Death, how: str, place: str) -> str:
    if death.abort is not None:
        return f"it called MPI_Abort with code {death.abort}" + (f" in {place}" if place else "")
    if death.oom:
        return "the kernel's OOM killer ended it (SIGKILL), as there was no memory left"
    if death.signal:
        return f"it was {how}" + (f" in {place}" if place else "")
    if death.exit_code is not None:
        return f"its process ended with {how}, as by os._exit() or by exit() in C"
    return _UNKNOWN


def _memory(death: Death, facts: MemoryFacts) -> list[str]:
    suspicious = death.oom or death.signal == signal.SIGKILL or (not death.signal and death.exit_code is None)
    found = []
    if facts.limit and facts.peak_rss >= _NEARLY * facts.limit:
        found.append(f"its memory was {sized_of(facts.peak_rss, facts.limit)} (the limit of its {facts.scope})")
    else:
        if facts.peak_rss:
            found.append(f"its memory was {sized(facts.peak_rss)}")
        if facts.limit and death.abort is None and (suspicious or facts.used >= _NEARLY * facts.limit):
            where = "on its machine" if facts.scope == "machine" else f"in its whole {facts.scope}"
            found.append(f"{sized_of(facts.used, facts.limit)} were in use {where}")
    if facts.address_limit and facts.address_space >= _NEARLY * facts.address_limit and death.abort is None:
        found.append(f"its address space was {sized_of(facts.address_space, facts.address_limit)} (ulimit -v)")
    return [", ".join(found)] if found else []


def _ran(death: Death, call: MpiCall | None) -> str:
    if not death.ran:
        return "it ran nothing then"
    inside = ""
    if call is not None and call.open:
        number = f" #{call.number}" if call.number else ""
        inside = f", and was in {call.name}{number} ({file_name(call.file)}:{call.line})"
    return f"it ran {death.ran} for {duration(death.seconds)}{inside}"


def command_in_words(method: str, operation: bytes) -> str:
    """``execute "x = step(x)"``: the first line of code that says anything; of other commands the method."""
    try:
        decoded = operations.decode_operation(operation)
    except msgspec.DecodeError:
        return method
    if not isinstance(decoded, operations.Execute):
        return method
    lines = [line for line in decoded.source.splitlines() if line.strip()]
    if not lines:
        return method
    first = next((line for line in lines if not _SAYS_NOTHING.match(line)), lines[0]).strip()
    if len(first) > _SOURCE or len(lines) > 1:
        first = f"{first[:_SOURCE]}..."
    return f'{method} "{first}"'


def last_lines(data: bytes, most: int = limits.DEATH_LINES) -> str:
    """The last lines of what was printed, in bounds."""
    lines = data.decode("utf-8", "replace").splitlines()[-most:]
    kept: deque[str] = deque()
    left = limits.DEATH_PRINTED
    for line in reversed(lines):
        short = line if len(line) <= limits.DEATH_LINE else f"{line[: limits.DEATH_LINE]}..."
        left -= len(short.encode("utf-8", "replace")) + 1
        if left < 0:
            break
        kept.appendleft(short)
    return "\n".join(kept)


class Thinning:
    """Bounds what many deaths at a time carry beside their sentences."""

    def __init__(self) -> None:
        self._whole: deque[float] = deque(maxlen=limits.DEATHS_WHOLE)

    def passed_on(self, lost: RanksLost, now: float) -> RanksLost:
        """The message as it is passed on: without output and stack if there were many of late."""
        death = lost.death
        if death is None or not (death.printed or death.stack):
            return lost
        if len(self._whole) == self._whole.maxlen and now - self._whole[0] < limits.DEATHS_WITHIN:
            return msgspec.structs.replace(lost, death=msgspec.structs.replace(death, printed="", stack=""))
        self._whole.append(now)
        return lost
