"""What one rank prints into one stream during a command: numbered lines, bounded (no I/O)."""

from __future__ import annotations

from collections import deque
from typing import Final

from ... import limits

HALF: Final = limits.RESULT_TEXT // 2

Line = tuple[int, bytes]
"""A number that counts the lines of a stream, and the bytes, with the newline; without one, the line goes on."""


class LineCutter:
    """Cuts what comes into lines, and keeps the first and the last ones of a long output.

    Args:
        half: how many bytes of each.
        most_lines: how many lines of each at most.
    """

    def __init__(self, half: int = HALF, most_lines: int = limits.OUTPUT_LINES) -> None:
        self._half = half
        self._room = half
        self._most_lines = most_lines
        self._count = 0
        self._unfinished = b""
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._left_out = 0

    def feed(self, data: bytes) -> list[Line]:
        """The lines that are complete now."""
        if self._room:
            data, rest = self._unfinished + data[: self._room], data[self._room :]
            self._room = max(0, self._room - (len(data) - len(self._unfinished)))
            self._unfinished = b""
            lines = cut(data)
            if self._count + len(lines) > self._most_lines:
                first = max(0, self._most_lines - self._count)
                rest = b"".join(lines[first:]) + rest
                del lines[first:]
                self._room = 0
            if rest:
                self._to_tail(rest)
            elif lines and not lines[-1].endswith(b"\n"):
                last = lines.pop()
                whole = _whole_characters(last) if len(last) >= limits.OUTPUT_LINE else 0
                self._unfinished = last[whole:]
                lines += [last[:whole]] if whole else []
            return [self._number(line) for line in lines]
        self._to_tail(data)
        return []

    def take_number(self) -> int:
        """The number of something that is displayed after what has come so far."""
        self._count += 1
        return self._count - 1

    @property
    def has_unfinished(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._unfinished)

    def unfinished(self) -> list[Line]:
        """What there is of a line that has not ended: it is told as it is, except for half a character."""
        whole = _whole_characters(self._unfinished)
        data, self._unfinished = self._unfinished[:whole], self._unfinished[whole:]
        return [self._number(data)] if data else []

    def finish(self) -> list[Line]:
        """Whatever is left: nothing follows."""
        lines = [self._number(self._unfinished)] if self._unfinished else []
        self._unfinished = b""
        if self._tail:
            data = b"".join(self._tail)
            self._tail.clear()
            kept = cut(data[-self._half :])[-self._most_lines :]
            self._left_out += len(data) - sum(map(len, kept))
            if self._left_out:
                note = f"\n... [ipmpi: {self._left_out:,} bytes left out here] ...\n"
                kept = [*cut(note.encode()), *kept]
            lines += [self._number(line) for line in kept]
        return lines

    def _number(self, line: bytes) -> Line:
        return self.take_number(), line

    def _to_tail(self, data: bytes) -> None:
        if len(data) > self._half:
            self._left_out += len(data) - self._half + self._tail_size
            self._tail.clear()
            self._tail_size = 0
            data = data[-self._half :]
        self._tail.append(data)
        self._tail_size += len(data)
        while self._tail_size - len(self._tail[0]) >= self._half:
            dropped = self._tail.popleft()
            self._tail_size -= len(dropped)
            self._left_out += len(dropped)


def cut(data: bytes) -> list[bytes]:
    """The lines in ``data``; a carriage return ends none."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    if last:
        lines.append(last)
    return lines


def _whole_characters(data: bytes) -> int:
    """How many bytes of UTF-8 text there are before a character that is not complete."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:  # the first byte of a character that has more
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if back < length else len(data)
        if byte < 0x80:
            break
    return len(data)
