"""Freeing ranks that wait in plain MPI for one that does not come: another one revokes MPI.COMM_WORLD."""

from __future__ import annotations

import concurrent.futures
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from ...errors import ClientError
from ...ids import Ids
from ...protocol import messages, operations
from ...ranges import engines_named
from .enginereply import EngineReply
from .replies import values
from .stacks import ask_stacks, stacks_of
from .standstill import RESTART, mpi_function, why_they_stay
from .submission import Submission

METHOD: Final = "free"

FREED_WITHIN: Final = 3.0
"""Seconds in which ranks notice that their communicator is revoked; it usually takes milliseconds."""

_LOOK: Final = 0.02
"""Seconds between questions whether they have ended their commands."""


class Requests(Protocol):
    """The part of :class:`ipmpi.client.session.session.Session` that is needed here."""

    def request(self, make: Callable[[int], messages.AnyMessage]) -> concurrent.futures.Future[Any]:
        """Send a request to the controller."""

    def command(self, submission: Submission) -> concurrent.futures.Future[list[EngineReply]]:
        """Send a command to engines."""


class Freed(NamedTuple):
    """What :meth:`MultiEngineClient.free` has done.

    Attributes:
        engines: the ids of the engines whose commands have ended by it.
        seconds: how long that took.
        by: the engines that have revoked MPI.COMM_WORLD, one of each set.
        still: the ids of those that have not ended.
        why: what these are in, and what would end that.
        trouble: why MPI.COMM_WORLD could not be replaced; "" if it was.
    """

    engines: list[int]
    seconds: float
    by: list[int]
    still: list[int]
    why: str = ""
    trouble: str = ""

    def __str__(self) -> str:
        if not self.by:
            return "no engine waits in MPI"
        told = [f"{engines_named(self.by)} revoked MPI.COMM_WORLD"]
        if self.engines:
            told.append(f"which has freed {engines_named(self.engines)} in {self.seconds:.2f} s")
        if self.still:
            told.append(f"{engines_named(self.still)} did not end: {self.why}")
            told.append(f"mec.free() replaces it when they have ended, and {RESTART}")
        elif self.trouble:
            told.append(f"it was not replaced: {self.trouble}")
        else:
            told.append("in Python it stands for a new communicator; that of C libraries is of no use any more")
        return "; ".join(told)

    def __repr__(self) -> str:
        return f"<{self}>"


def free(session: Requests, wanted: Sequence[int] | None) -> Freed:
    """Free engines (None: all), and all of their sets, that wait in MPI.COMM_WORLD; waits for that.

    Raises:
        ClientError: no engine of their set is idle, or their MPI cannot revoke.
    """
    sets, busy = _sets(session), _busy(session)
    total = Freed([], 0.0, [], [])
    for members in sets:
        if wanted is not None and not set(members).intersection(wanted):
            continue
        theirs = [engine for engine in members if engine in busy]
        if not theirs:
            total = _added(total, _replace_late(session, members))
        elif _may_wait(session, theirs):
            total = _added(total, _free_set(session, members, theirs))
    return total


def _free_set(session: Requests, members: list[int], busy: list[int]) -> Freed:
    idle = [engine for engine in members if engine not in busy]
    if not idle:
        raise ClientError(
            f"{engines_named(busy)} cannot be freed: only an engine that is idle can revoke the communicator in "
            f"which they wait, and all of {engines_named(members)} are busy. {RESTART}"
        )
    began = time.monotonic()
    _run(session, operations.EndWaits("revoke"), idle[:1])
    still = busy
    while still and time.monotonic() < began + FREED_WITHIN:
        time.sleep(_LOOK)
        still = sorted(set(still).intersection(_busy(session)))
    took = time.monotonic() - began
    freed = [engine for engine in busy if engine not in still]
    if still:
        return Freed(freed, took, idle[:1], still, why_they_stay(_stacks(session, still), still))
    return Freed(freed, took, idle[:1], [], "", _replace(session, members))


def _replace_late(session: Requests, members: list[int]) -> Freed:
    """Replace what was revoked before, while some engines still ran something else."""
    revoked = _run(session, operations.EndWaits("ask"), members)
    by = [engine for engine, has_revoked in zip(members, revoked, strict=True) if has_revoked]
    return Freed([], 0.0, by, [], "", _replace(session, members) if by else "")


def _replace(session: Requests, members: list[int]) -> str:
    return str(next(filter(None, _run(session, operations.EndWaits("replace"), members)), ""))


def _added(total: Freed, one: Freed) -> Freed:
    return Freed(
        sorted(total.engines + one.engines), max(total.seconds, one.seconds), total.by + one.by,
        sorted(total.still + one.still), "; ".join(filter(None, (total.why, one.why))),
        "; ".join(filter(None, (total.trouble, one.trouble))),
    )  # fmt: skip


def _run(session: Requests, operation: operations.EndWaits, engines: list[int]) -> list[Any]:
    replies = session.command(Submission(operation, engines, METHOD, METHOD)).result()
    for reply in replies:
        outcome = reply.outcome
        if isinstance(outcome, operations.Failed) and outcome.type_name.rpartition(".")[2] == "ClientError":
            raise ClientError(outcome.text)
    return values(replies, METHOD)


def _may_wait(session: Requests, engines: list[int]) -> bool:
    """Return whether any of them is inside MPI, or it is not known."""
    stacks = _stacks(session, engines)
    return any(
        engine not in stacks or mpi_function(stacks[engine]) or not stacks[engine].frames for engine in engines
    )


def _stacks(session: Requests, engines: list[int]) -> dict[int, Any]:
    return stacks_of(ask_stacks(session, engines).result())


def _busy(session: Requests) -> list[int]:
    rows = session.request(lambda i: messages.QueueStatus(i, None)).result()
    return sorted(engine for row in rows if row[1] is not None for engine in Ids.unpacked(row[0]))


def _sets(session: Requests) -> list[list[int]]:
    """Return the engines of each set."""
    found: dict[Any, list[int]] = {}
    more, after = True, -1
    while more:
        answer = session.request(functools.partial(messages.ClusterInfo, after=after)).result()
        for engine in answer["engines"]:
            found.setdefault(engine["set"], []).append(int(engine["id"]))
            after = int(engine["id"])
        more = bool(answer.get("more")) and bool(answer["engines"])
    return list(found.values())
