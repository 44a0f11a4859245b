"""Classification of the results in a message of which not all are passed on (no I/O)."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import RemoteProtocolError
from ...protocol import messages as m, packed
from ...protocol.frames import Buffer, size_of
from .groups import DROPPED, INTERRUPTED, TaskGroup


@dataclass
class Classified:
    """The tasks in a message of results, by what happens to them.

    Attributes:
        answered: number of tasks that the set had; ``stale`` of those that it had not.
        indices: of the results to pass on, with their ``failed_positions``, ``lengths`` and ``payloads``.
        succeeded: indices of those that succeeded; ``failed``: that failed.
        retried: failed, to be run again. ``interrupted``, ``dropped``: the client does not get the result.
        settled: tasks that were to be cancelled, and were not.
        mark: tells a message with failures of tasks that have retries from others; the same when it is sent again.
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
    mark: int = 0


def numbers(data: bytes) -> array[int]:
    """Unpack numbers from an engine set; raises RemoteProtocolError if they are invalid."""
    try:
        return packed.unpack(data)
    except ValueError:
        raise RemoteProtocolError("packed numbers of an impossible length") from None


def check(message: m.TaskResults, body: Sequence[Buffer]) -> None:
    """Raise RemoteProtocolError if the parts of a message of results are inconsistent."""
    tasks = len(numbers(message.indices))
    if (
        len(message.indices) != len(message.lengths)
        or max(numbers(message.failed), default=-1) >= tasks
        or sum(numbers(message.lengths)) != size_of(body)
    ):
        raise RemoteProtocolError(f"a message of {tasks} results whose parts are inconsistent")


def classify(key: int, group: TaskGroup, message: m.TaskResults, body: Sequence[Buffer]) -> Classified:
    """Classify each task in the message of set ``key``."""
    found = Classified()
    failed = set(packed.unpack(message.failed))
    if failed and group.options.retries:
        found.mark = zlib.crc32(m.encode(message))  # it has the run time as well
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
        elif position in failed and group.may_retry(index, found.mark):
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
