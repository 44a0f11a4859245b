"""Memory that a rank and its node agent share, so that they can communicate while user code runs.

A rank runs user code, which may hold the interpreter for minutes. The block has what the agent must know or do
meanwhile: what runs and since when, which items are revoked, the target of an interrupt, the results of items, and
the last MPI calls.

Every word has one writer. Words are aligned and 8 bytes wide, so the processor reads and writes them in one piece.
If both sides write one word and then read the other's, each calls :meth:`ControlBlock.fence` in between: otherwise
the processor may read before its own write is visible. Taking and releasing a lock is such a barrier. Processors
that may also reorder writes (ARM, POWER) need one between a result and its count, too.

* The rank writes :data:`CLAIMED`, then looks whether the item is revoked. The agent revokes it, then looks at
  CLAIMED. So an item that is not claimed then will not run, or has run and is among the results.
* A rank of a program writes :data:`STEP`, then looks at :data:`SENT`. The agent sends a packet, writes SENT, then
  looks at STEP. So a rank that is in step n then hears the packet at tick n + 1 at the latest, and one that holds
  at tick n before it goes on.
* The rank writes :data:`RESULTS`, then looks at :data:`BELL`. The agent clears BELL, then looks at RESULTS. So
  most results need no message, and none is overlooked.
"""

from __future__ import annotations

import _thread
import mmap
import os
from typing import Final

from .callring import CALLS

# Words that the agent writes.
SENT: Final = 0
"""Number of packets that the agent has sent; the rank compares it with those it has received."""
TARGET: Final = 1
"""The target of an interrupt: the negated number of a command, or the serial number of an item or part."""
INTERRUPTS: Final = 2
"""Number of interrupts that the agent has requested; the rank raises one for each."""
SKIP: Final = 3
"""Commands up to this number end as interrupted, unless they have begun."""
LEAVE: Final = 4
"""Serial number of the part to leave, as another rank has failed; the reason is in the block."""
LEAVE_COMMAND: Final = 7
"""Number of the command of which another rank has failed; which one, and how, is in the block."""
LEAVE_RANK: Final = 8
"""That rank."""
DEBUGGER: Final = 9
"""The connection of a debugger that debugpy shall serve, counted since the start; 0 for none."""
TAKEN: Final = 5
TAKEN_BYTES: Final = 6
"""Results that the agent has taken, and bytes of their payloads."""

# Words that the rank writes.
CURRENT: Final = 16
"""What runs: the number of a command, negated; the serial number of an item or part; 0 for nothing."""
SINCE: Final = 17
"""When that began, in nanoseconds of the monotonic clock."""
HEARD: Final = 18
"""Number of interrupts that were raised, or had no target."""
JOINING: Final = 19
"""1 while the rank creates a communicator inside MPI, where it cannot be interrupted."""
CLAIMED: Final = 22
"""Serial number of the item that began last, or is about to. Its result is left before the next claim."""
RESULTS: Final = 20
RESULT_BYTES: Final = 21
"""Results of items that the rank has left, and bytes of their payloads."""

DEBUGGER_HEARD: Final = 23
"""The value of :data:`DEBUGGER` that the rank has acted upon."""

ABORTED: Final = 26
ABORT_CODE: Final = 27
"""1 if the rank has called MPI_Abort, and with which code; written in the opposite order."""

# Words of a rank of a program, which it writes.
STEP: Final = 28
"""Twice the number of its last tick, plus 1 while it holds there; -2 before the first one."""
RECEIVED: Final = 29
"""Number of packets that it has received."""
DUE: Final = 30
"""The first tick at which it has something to do without being told."""
LABEL: Final = 31
"""What to add to the number of a tick to get the number that the program gives to the step."""
PAUSED: Final = 33
"""1 while it holds because somebody has paused the program."""

# Written by both: the rank sets it, the agent clears it.
BELL: Final = 32
"""1 while the agent was notified of results and has not taken them yet."""

SWAPS_WRITES: Final = os.uname().machine not in ("x86_64", "i686", "s390x")
"""Whether the processor may reorder writes."""

_WORDS: Final = 64
_TEXT: Final = 512
"""Bytes for the reason to leave a part, and as many for that of a command."""
SERIALS: Final = 65_536
"""Serial numbers are stored modulo this: an agent gives a rank far fewer items at a time."""
SLOTS: Final = 8_192
"""Results that a rank can store before the agent has to take some."""
RING: Final = 512 * 1024
"""Bytes of their payloads."""

_AT_TEXT: Final = 8 * _WORDS
_AT_COMMAND_TEXT: Final = _AT_TEXT + _TEXT
_AT_REVOKED: Final = _AT_COMMAND_TEXT + _TEXT
_AT_RECORDS: Final = _AT_REVOKED + SERIALS
_AT_RING: Final = _AT_RECORDS + 4 * 8 * SLOTS
_AT_CALLS: Final = _AT_RING + RING
SIZE: Final = _AT_CALLS + CALLS


class ControlBlock:
    """The shared memory, mapped.

    Args:
        descriptor: the anonymous file.

    Attributes:
        words: the words named above.
        revoked: by the remainder of its serial number, whether an item shall not be run. The agent writes.
        serials: of results, by slot; the rank writes these four.
        kinds: their outcomes.
        lengths: bytes of their payloads.
        seconds: their run times.
        ring: their payloads, in a ring buffer.
        calls: the last MPI calls: see :mod:`ipmpi.engine.rank.callring`.
        lock: what :meth:`fence` takes and releases, for code that must avoid the call.
    """

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE)
        view = memoryview(self._map)
        records = view[_AT_RECORDS:_AT_RING]
        self.words = view[:_AT_TEXT].cast("q")
        self._text = view[_AT_TEXT:_AT_COMMAND_TEXT]
        self._command_text = view[_AT_COMMAND_TEXT:_AT_REVOKED]
        self.revoked = view[_AT_REVOKED:_AT_RECORDS]
        self.serials = records[: 8 * SLOTS].cast("q")
        self.kinds = records[8 * SLOTS : 16 * SLOTS].cast("q")
        self.lengths = records[16 * SLOTS : 24 * SLOTS].cast("q")
        self.seconds = records[24 * SLOTS :].cast("d")
        self.ring = view[_AT_RING:_AT_CALLS]
        self.calls = view[_AT_CALLS:]
        self.lock = _thread.allocate_lock()

    @classmethod
    def create(cls) -> tuple[ControlBlock, int]:
        """Return a new block and the descriptor of its file; unused pages take no memory."""
        descriptor = os.memfd_create("ipmpi-rank", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, SIZE)
        return cls(descriptor), descriptor

    def fence(self) -> None:
        """A memory barrier: the other side sees our writes before we read its words."""
        with self.lock:
            pass

    def aborts(self, code: int) -> None:
        """This rank calls MPI_Abort."""
        self.words[ABORT_CODE] = code
        self.fence()
        self.words[ABORTED] = 1

    @property
    def text(self) -> str:
        """The reason to leave the part :data:`LEAVE`; written before that word."""
        return _read(self._text)

    @text.setter
    def text(self, value: str) -> None:
        _write(self._text, value)

    @property
    def command_text(self) -> str:
        """The reason to leave the command :data:`LEAVE_COMMAND`."""
        return _read(self._command_text)

    def leave_command(self, number: int, rank: int, reason: str) -> None:
        """Say that another rank has failed in a command; the agent does."""
        _write(self._command_text, reason)
        self.words[LEAVE_RANK] = rank
        self.fence()
        self.words[LEAVE_COMMAND] = number

    def put(self, start: int, data: bytes) -> None:
        """Write a payload into the ring, at ``start`` bytes, counted since the first payload."""
        at = start % RING
        room = RING - at
        if len(data) <= room:
            at += _AT_RING
            self._map[at : at + len(data)] = data
        else:
            self.ring[at:] = data[:room]
            self.ring[: len(data) - room] = data[room:]

    def get(self, start: int, end: int) -> bytes:
        """Return the bytes of the ring from ``start`` to ``end``, both counted since the first payload."""
        at, size = start % RING, end - start
        data = bytes(self.ring[at : at + size])
        return data if len(data) == size else data + bytes(self.ring[: size - len(data)])


def _read(text: memoryview) -> str:
    return bytes(text).rstrip(b"\0").decode(errors="replace")


def _write(text: memoryview, value: str) -> None:
    text[:] = value.encode(errors="replace")[:_TEXT].ljust(_TEXT, b"\0")
