"""Why a command makes no progress, in a sentence, from where its engines are (no I/O; the time is an argument).

Engines that wait in a call of a communicator that records its calls are known to wait for this one call, however
often they have called at the same line. Of others only the place is known, so they must have been seen there
twice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple, TypeVar

from ...exits import signal_name
from ...protocol.inquiries import ENDED, RUNNING, STOPPED, RankStack, StackFrame
from ...protocol.mpicalls import MpiCall
from ...ranges import label
from ..display.escapes import safe
from ..display.whereabouts import call_text, innermost_own, waits_in

_Value = TypeVar("_Value")

CALLS: Final = 8
"""Last MPI calls of each engine that are compared."""

_OF_MPI_ONLY: Final = (
    r"Barrier|[Bb]cast|Gatherv?|Scatterv?|[Aa]llgather|Allgatherv|[Aa]lltoall|Alltoall[vw]|[Aa]llreduce|Reduce"
    r"|Reduce_scatter|Reduce_scatter_block|Scan|[Ee]xscan|Ssend|Sendrecv|Sendrecv_replace|Waitall"
)
_OF_OTHERS_TOO: Final = r"barrier|gather|scatter|reduce|scan|Send|s?send|[Rr]ecv|sendrecv|M?[Pp]robe"
"""Names of methods that sockets, arrays and executors have as well."""
_MPI_LINE: Final = re.compile(
    rf"\.(?P<only>{_OF_MPI_ONLY})\(|\b\w*(?:comm|COMM)\w*\.(?P<maybe>{_OF_OTHERS_TOO})\("
)
_MPI_FUNCTION: Final = re.compile(r"P?MPI_(?P<name>[A-Z]\w+)")
_WAITED: Final = re.compile(r"\w+ \((?P<name>\w+)\)")


class Look(NamedTuple):
    """Where the engines of a command are that have not answered.

    Attributes:
        at: when that was asked, by the monotonic clock.
        stacks: their places, by id.
        silent: those whose node agents have not answered.
    """

    at: float
    stacks: Mapping[int, RankStack]
    silent: Collection[int] = ()


class Answered(NamedTuple):
    """The engines of a command that have answered.

    Attributes:
        failed: what they have raised, by id.
        finished: the others.
    """

    failed: Mapping[int, str] = {}
    finished: Collection[int] = ()


def judge(before: Look | None, now: Look, answered: Answered, patience: float) -> str:
    """Return why nothing goes on; "" if something may, or that is not known.

    Args:
        before: an earlier look at the same command, some of ``patience`` ago.
        now: the last one.
        answered: the other engines of the command.
        patience: seconds that a recorded call has to last.
    """
    sorted_out = _Engines(before, now, patience)
    if sorted_out.moves or now.silent or not now.stacks:
        return ""
    if not (sorted_out.waits or sorted_out.plain):
        blocked = sorted_out.stopped or sorted_out.ended
        return _sentence("no progress", sorted_out.halted()) if blocked else ""
    ends = _answered(answered)
    if sorted_out.waits:
        places = [*_waiting(sorted_out), *sorted_out.halted(), *ends]
        # In a collective call that all have entered in the same way, they may well move data.
        alone = len(places) == 1 and all(call.number for call in sorted_out.waits.values())
        return "" if alone else _sentence(f"no progress for {patience:.0f} s", places)
    # One line that all of them are at may be in a loop, in which they go on.
    places = [*_plain(sorted_out), *_elsewhere(sorted_out), *sorted_out.halted(), *ends]
    if len(places) < 2 or before is None:
        return ""
    return _sentence(f"no progress seen for {now.at - before.at:.0f} s", places)


def undecided(before: Look | None, now: Look, answered: Answered, patience: float) -> dict[int, list[int]]:
    """Return engines of which only functions of C can tell whether they wait in MPI: one for those at each place.

    They are where they were, and others have raised: a library may wait for these.
    """
    engines = _Engines(before, now, patience)
    known = engines.waits or engines.plain or engines.stopped or engines.ended
    if engines.moves or known or now.silent or not answered.failed:
        return {}
    return {ids[0]: ids for ids in _grouped(engines.stuck, lambda stack: str(_functions(stack))).values()}


def looked_into(now: Look, places: Mapping[int, list[int]], native: Mapping[int, RankStack]) -> Look:
    """Return a look in which engines have the functions of C of one that is at the same place."""
    stacks = dict(now.stacks)
    for engine, ids in places.items():
        if engine in native:
            stacks.update(dict.fromkeys(ids, native[engine]))
    return now._replace(stacks=stacks)


def _sentence(head: str, parts: Iterable[str]) -> str:
    return f"{head}: {'; '.join(parts)}. mec.where() shows more"


class _Engines:
    """The engines by what they do.

    Attributes:
        waits: their recorded calls, which have lasted long enough.
        plain: those at a line, or in a function, that waits in MPI.
        stuck: others that are where they were before.
        stopped, ended: those whose processes are.
        moves: whether any may go on.
        calls: the last recorded calls of all.
    """

    def __init__(self, before: Look | None, now: Look, patience: float) -> None:
        self.waits: dict[int, MpiCall] = {}
        self.plain: dict[int, RankStack] = {}
        self.stuck: dict[int, RankStack] = {}
        self.stopped: dict[int, RankStack] = {}
        self.ended: list[int] = []
        self.moves = False
        self.calls = {engine: stack.calls for engine, stack in now.stacks.items()}
        for engine, stack in now.stacks.items():
            call = waits_in(stack)
            if stack.state == STOPPED:
                self.stopped[engine] = stack
            elif stack.state == ENDED:
                self.ended.append(engine)
            elif call is not None and call.since >= max(1.0, patience - 1):  # it is told in whole seconds
                self.waits[engine] = call
            elif call is not None or not _is_where_it_was(before, engine, stack):
                self.moves = True
            elif mpi_name(stack):
                self.plain[engine] = stack
            else:
                self.stuck[engine] = stack

    def halted(self) -> list[str]:
        """What to say of those that are stopped or have ended."""
        parts = [
            f"{_ranks(ids)} {_is(ids)} stopped{signal}{_at(self.stopped[ids[0]])}"
            for signal, ids in _grouped(self.stopped, _stopped_by).items()
        ]
        if self.ended:
            parts.append(
                f"the process{'es' * (len(self.ended) > 1)} of {_ranks(self.ended)} {_has(self.ended)} ended"
            )
        return parts


def _stopped_by(stack: RankStack) -> str:
    return f" ({signal_name(stack.signal)})" if stack.signal else ""


def _is_where_it_was(before: Look | None, engine: int, stack: RankStack) -> bool:
    earlier = None if before is None else before.stacks.get(engine)
    if earlier is None or stack.state != RUNNING or earlier.state != RUNNING or not stack.frames:
        return False
    return stack.runs == earlier.runs and _functions(stack) == _functions(earlier) and stack.calls == earlier.calls


def _functions(stack: RankStack) -> list[tuple[str, str, int]]:
    """Its functions and lines; of the innermost not the line, which changes in a loop that never ends."""
    places = [(frame.function, frame.file, frame.line) for frame in stack.frames if frame.line]
    if places and not mpi_name(stack):
        places[0] = (*places[0][:2], 0)
    return places


def mpi_name(stack: RankStack) -> str:
    """Return the name of the MPI call that a stack shows; "" if it shows none."""
    for frame in stack.frames:
        function = None if frame.line else _MPI_FUNCTION.match(frame.function)
        if function is not None:
            return function["name"]
    line = _MPI_LINE.search(innermost_own(stack.frames).text) if stack.frames else None
    return "" if line is None else str(line["only"] or line["maybe"])


# --- recorded calls ------------------------------------------------------------------------------------------


def _waiting(engines: _Engines) -> list[str]:
    mismatch = _mismatch(engines.calls)
    if mismatch is not None:
        told, parts = mismatch
        rest = {engine: call for engine, call in engines.waits.items() if engine not in told}
        return [*parts, *_in_calls(rest), *_plain(engines, told), *_elsewhere(engines, None, told)]
    parts = _in_calls(engines.waits)
    last = _most(engines.waits)
    return [*parts, *_plain(engines), *_elsewhere(engines, last)]


def _mismatch(calls: Mapping[int, list[MpiCall]]) -> tuple[set[int], list[str]] | None:
    """The first collective call that engines have called differently: those engines, and what to say of each."""
    same: dict[tuple[int, str], dict[int, MpiCall]] = {}
    for engine, last in calls.items():
        for call in last:
            if call.number:
                same.setdefault((call.number, call.comm), {})[engine] = call
    for _, made in sorted(same.items()):
        for differs, word in _DIFFERENCES:
            groups = _grouped(made, differs)
            if len(groups) > 1 and any(call.open for call in made.values()) and "" not in groups:
                return set(made), _told_apart(made, groups, word)
    return None


def _told_apart(made: Mapping[int, MpiCall], groups: Mapping[str, list[int]], word: str) -> list[str]:
    parts = []
    for text, ids in sorted(groups.items(), key=lambda each: -len(each[1])):
        call = made[ids[0]]
        verb = f"{_is(ids)} in" if any(made[engine].open for engine in ids) else f"{_has(ids)} called"
        with_ = f" with {word}{text}" if word or text != _name(call) else ""
        parts.append(f"{_ranks(ids)} {verb} {call_text(call)}{with_} ({_place(call.file, call.line)})")
    return parts


def _name(call: MpiCall) -> str:
    waited = _WAITED.fullmatch(call.name)
    return call.name if waited is None else waited["name"]


def _root(call: MpiCall) -> str:
    return "" if call.root is None else str(call.root)


def _count(call: MpiCall) -> str:
    return "" if call.count is None else str(call.count)


def _dtype(call: MpiCall) -> str:
    return "" if call.dtype.startswith("MPI_") else call.dtype  # MPI's own names are others for the same types


_DIFFERENCES: Final[tuple[tuple[Callable[[MpiCall], str], str], ...]] = (
    (_name, ""), (_root, "root "), (_dtype, "items of type "), (_count, "a count of "),
)  # fmt: skip
"""What must be equal in one collective call, and its word."""


def _in_calls(calls: Mapping[int, MpiCall]) -> list[str]:
    groups: dict[tuple[str, str, str], list[int]] = {}
    for engine, call in calls.items():
        groups.setdefault((call.comm, call_text(call), _place(call.file, call.line)), []).append(engine)
    parts = []
    for (_, text, place), ids in sorted(groups.items(), key=lambda each: -len(each[1])):
        words = f"{_ranks(ids)} {_is(ids)} in {text} ({place})"
        call = calls[ids[0]]
        if call.peer is not None and call.peer >= 0:
            done = "received" if "send" in call.name.lower() and "recv" not in call.name.lower() else "sent"
            words += f", which rank {call.peer} has not {done}"
        parts.append(words)
    return parts


def _most(waits: Mapping[int, MpiCall]) -> MpiCall | None:
    """The collective call in which most wait."""
    collective = {engine: call for engine, call in waits.items() if call.number}
    groups = _grouped(collective, lambda call: f"{call.comm} {call.number}")
    largest = max(groups.values(), key=len, default=None)
    return None if largest is None else collective[largest[0]]


# --- the others ----------------------------------------------------------------------------------------------


def _plain(engines: _Engines, told: Collection[int] = ()) -> list[str]:
    groups = _grouped(
        {engine: stack for engine, stack in engines.plain.items() if engine not in told},
        lambda stack: f"{mpi_name(stack)} ({_own_place(stack)})",
    )
    return [
        f"{_ranks(ids)} {_is(ids)} in {text}" for text, ids in sorted(groups.items(), key=lambda e: -len(e[1]))
    ]


def _elsewhere(engines: _Engines, call: MpiCall | None = None, told: Collection[int] = ()) -> list[str]:
    """Those that wait for nobody: what they have not entered, and where they are."""
    groups = _grouped({engine: stack for engine, stack in engines.stuck.items() if engine not in told}, _inside)
    parts = []
    for text, ids in groups.items():
        missing = ""
        made = [each for engine in ids for each in engines.calls[engine]]
        if call is not None and all(each.comm != call.comm or each.number < call.number for each in made):
            missing = f"{_has(ids)} not entered it; {'it is' if len(ids) == 1 else 'they are'} "
        parts.append(f"{_ranks(ids)} {missing or f'{_is(ids)} '}{text}")
    return parts


def _answered(answered: Answered) -> list[str]:
    parts = [f"{_ranks(ids)} {_has(ids)} raised {text}" for text, ids in _grouped(answered.failed, str).items()]
    if answered.finished:
        parts.append(f"{_ranks(answered.finished)} {_has(answered.finished)} finished")
    return parts


def _inside(stack: RankStack) -> str:
    own = innermost_own(stack.frames)
    text = f": {safe(own.text)}" if own.text else ""
    return (
        f"in {'' if own.function == '<module>' else f'{safe(own.function)}() '}{_place(own.file, own.line)}{text}"
    )


def _at(stack: RankStack) -> str:
    return f" {_inside(stack)}" if stack.frames else ""


def _own_place(stack: RankStack) -> str:
    frame: StackFrame = innermost_own(stack.frames)
    return _place(frame.file, frame.line)


def _place(file: str, line: int) -> str:
    return f"{safe(os.path.basename(file) or file)}:{line}"


def _grouped(values: Mapping[int, _Value], key: Callable[[_Value], str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for engine, value in values.items():
        found.setdefault(key(value), []).append(engine)
    return found


def _ranks(ids: Collection[int]) -> str:
    return f"rank {next(iter(ids))}" if len(ids) == 1 else f"ranks {label(ids)}"


def _is(ids: Collection[int]) -> str:
    return "is" if len(ids) == 1 else "are"


def _has(ids: Collection[int]) -> str:
    return "has" if len(ids) == 1 else "have"
