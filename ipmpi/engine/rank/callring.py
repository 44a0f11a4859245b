"""The last MPI calls of a rank, in memory that its node agent reads while the rank waits in one of them.

The rank writes, and nobody tells the reader. A record begins with a stamp: its number, and 0 while the rest is
being written. A reader that finds another stamp after it has copied a record drops the copy.

Texts (names of calls, files, ...) are stored once, in slots that are used in turn. A record refers to a text by
its number; a slot says which text it has. When all slots are used the rank forgets the numbers of all texts, so
that those it still uses get new ones, and a record whose texts have been replaced shows none.
"""

from __future__ import annotations

import itertools
import struct
import sys
import time
from types import CodeType, FrameType
from typing import Final

from ...protocol.mpicalls import MpiCall

RECORDS: Final = 512
"""Calls that are kept."""
TEXTS: Final = 1024
_TEXT: Final = 128
"""Bytes of a text, and of its number and length. A longer one loses its beginning: the end of a path says more."""
NONE: Final = -(2**63)
"""In the memory, a number that a call does not have."""

_STAMP: Final = struct.Struct("=q")
_RECORD: Final = struct.Struct("=13q")
_LEFT_AT: Final = 13
"""The word of a record that says when the call has returned; 0 before."""
_BEGAN: Final = 11
"""Index in a record, without its stamp, of when the call began."""
_WORDS: Final = 14
_HEAD: Final = struct.Struct("=qq")
_AT_TEXTS: Final = 8 * _WORDS * RECORDS
CALLS: Final = _AT_TEXTS + _TEXT * TEXTS
"""Bytes of the memory."""
_CODES: Final = 4096
"""Code objects whose file and function are known: a session that runs many cells must not keep them all."""


class CallRing:
    """The writer, in the rank. Any thread may call it.

    Args:
        memory: :data:`CALLS` bytes, zero at first.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._words = memory[:_AT_TEXTS].cast("q")
        self._next = itertools.count(1).__next__
        self._texts = itertools.count(1)
        self._numbers: dict[str, int] = {}
        self._codes: dict[int, tuple[CodeType, int, int]] = {}

    def entered(
        self,
        name: str,
        comm: str,
        number: int = 0,
        count: int = NONE,
        dtype: str = "",
        root: int = NONE,
        peer: int = NONE,
        tag: int = NONE,
        frame: FrameType | None = None,
    ) -> int:
        """A call begins; return what :meth:`left` needs.

        The arguments are the fields of :class:`~ipmpi.protocol.mpicalls.MpiCall`. ``frame`` is that of the code
        that calls; by default, it is the caller of the caller.
        """
        if frame is None:
            frame = sys._getframe(2)
        code = frame.f_code
        known = self._codes.get(id(code))  # hashing a code object itself is slow
        if known is None or known[0] is not code:
            known = self._place(code)
        numbers = self._numbers
        stamp = self._next()
        at = _WORDS * (stamp % RECORDS)
        words = self._words
        words[at] = 0
        _RECORD.pack_into(
            self._memory, 8 * at + 8,
            numbers.get(comm) or self._store(comm), number, numbers.get(name) or self._store(name), count,
            numbers.get(dtype) or self._store(dtype), root, peer, tag, known[1], known[2], frame.f_lineno or 0,
            time.monotonic_ns(), 0,
        )  # fmt: skip
        words[at] = stamp
        return at

    def left(self, at: int) -> None:
        """The call has returned, or has raised."""
        self._words[at + _LEFT_AT] = time.monotonic_ns()

    def _place(self, code: CodeType) -> tuple[CodeType, int, int]:
        if len(self._codes) >= _CODES:
            self._codes.clear()
        file, function = code.co_filename, getattr(code, "co_qualname", code.co_name)
        known = code, self._number(file), self._number(function)
        self._codes[id(code)] = known
        return known

    def _number(self, text: str) -> int:
        return self._numbers.get(text) or self._store(text)

    def _store(self, text: str) -> int:
        number = next(self._texts)
        if number % TEXTS == 0:
            self._numbers.clear()
            self._codes.clear()
        data = text.encode(errors="replace")[-(_TEXT - _HEAD.size) :]
        at = _AT_TEXTS + _TEXT * (number % TEXTS)
        _HEAD.pack_into(self._memory, at, 0, len(data))
        self._memory[at + _HEAD.size : at + _HEAD.size + len(data)] = data
        _STAMP.pack_into(self._memory, at, number)
        self._numbers[text] = number
        return number


def read_calls(memory: memoryview, most: int, now: int, after: int = 0) -> list[MpiCall]:
    """Return the last calls of a rank, the newest one last.

    A record that is being written is left out.

    Args:
        memory: that of a :class:`CallRing`, of this or another process.
        most: calls to return at most.
        now: the monotonic clock, in nanoseconds.
        after: calls that began earlier, by this clock, are left out.
    """
    stamps = memory[:_AT_TEXTS].cast("q")[::_WORDS].tolist()
    newest = sorted(((stamp, at) for at, stamp in enumerate(stamps) if stamp > 0), reverse=True)[:most]
    found = []
    for stamp, at in reversed(newest):
        start = 8 * _WORDS * at
        record = _RECORD.unpack_from(memory, start + 8)
        if _STAMP.unpack_from(memory, start)[0] == stamp and record[_BEGAN] >= after:
            found.append(_call(memory, record, now))
    return found


def _call(memory: memoryview, record: tuple[int, ...], now: int) -> MpiCall:
    comm, number, name, count, dtype, root, peer, tag, file, function, line, began, left = record
    return MpiCall(
        _read(memory, comm), number, _read(memory, name), _known(count), _read(memory, dtype), _known(root),
        _known(peer), _known(tag), _read(memory, file), line, _read(memory, function),
        max(0, (left or now) - began) * 1e-9, not left,
    )  # fmt: skip


def _known(value: int) -> int | None:
    return None if value == NONE else value


def _read(memory: memoryview, number: int) -> str:
    at = _AT_TEXTS + _TEXT * (number % TEXTS)
    _, length = _HEAD.unpack_from(memory, at)
    data = bytes(memory[at + _HEAD.size : at + _HEAD.size + max(0, min(length, _TEXT - _HEAD.size))])
    # Read last: the text is the one that was wanted only if its slot was not given to another one meanwhile.
    return data.decode(errors="replace") if _STAMP.unpack_from(memory, at)[0] == number else ""
