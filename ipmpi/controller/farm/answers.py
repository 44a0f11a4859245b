"""Sorting out an answer to tasks of which not all are to be passed on (no I/O)."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import RemoteProtocolError
from ...protocol import messages as m, packed
from ...protocol.frames import Buffer, size_of
from .groups import DROPPED, INTERRUPTED, TaskGroup


@dataclass
class Classified:
    """What is to become of the tasks in an answer.

    Attributes:
        answered: tasks that the set had, and has not any more; ``stale`` the others.
        indices: of those to pass on, ``failed_positions`` in them, their ``lengths`` and ``payloads``.
        succeeded: the indices of these that succeeded, and ``failed`` that failed.
        retried: failed, to be tried again. ``interrupted``, ``dropped``: the client is not to get the result.
        settled: all of these, of which it is known now that they were not cancelled.
    """

    answered: int = 0
    stale: int = 0
    indices: list[int] = field(default_factory=list)
    failed_positions: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    payloads: list[memoryview] = field(default_factory=list)
    succeeded: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    retried: list[int] = field(default_factory=list)
    interrupted: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)


def numbers(data: bytes) -> array[int]:
    """Packed numbers from an engine set; RemoteProtocolError if they are none."""
    try:
        return packed.unpack(data)
    except ValueError:
        raise RemoteProtocolError("packed numbers of an impossible length") from None


def check(message: m.TaskResults, body: Sequence[Buffer]) -> None:
    """RemoteProtocolError for an answer whose parts do not fit each other."""
    tasks = len(numbers(message.indices))
    if (
        len(message.indices) != len(message.lengths)
        or max(numbers(message.failed), default=-1) >= tasks
        or sum(numbers(message.lengths)) != size_of(body)
    ):
        raise RemoteProtocolError(f"an answer of {tasks} tasks whose parts do not fit each other")


def classify(key: int, group: TaskGroup, message: m.TaskResults, body: Sequence[Buffer]) -> Classified:
    """Look at each task in the answer of set ``key``."""
    found = Classified()
    failed = set(packed.unpack(message.failed))
    lengths = packed.unpack(message.lengths)
    payloads = packed.slices(b"".join(body), lengths)
    seen: set[int] = set()
    indices = packed.unpack(message.indices)
    for position, (index, length, payload) in enumerate(zip(indices, lengths, payloads, strict=True)):
        if index in seen or not group.is_given(key, index):
            found.stale += 1
            continue
        seen.add(index)
        found.settled.append(index)
        if group.states[index] == DROPPED:
            found.dropped.append(index)
        elif group.states[index] == INTERRUPTED:
            found.interrupted.append(index)
        elif position in failed and group.tries_left(index):
            found.retried.append(index)
        else:
            if position in failed:
                found.failed_positions.append(len(found.indices))
            (found.failed if position in failed else found.succeeded).append(index)
            found.indices.append(index)
            found.lengths.append(length)
            found.payloads.append(payload)
    found.answered = len(seen)
    found.succeeded.sort()
    return found
