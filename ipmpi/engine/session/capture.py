"""What user code prints: captured while a command runs, bounded, safe for its threads."""

from __future__ import annotations

import codecs
import io
import sys
import threading
from collections import deque
from typing import Any, TextIO

from ipmpi import limits


def shorten(text: str, limit: int = limits.RESULT_TEXT) -> str:
    """``text`` that fits in ``limit`` bytes of UTF-8: the middle of a longer one becomes a note."""
    if len(text) * 4 <= limit:
        return sendable(text)
    data = sendable(text).encode()
    if len(data) <= limit:
        return data.decode()
    half = limit // 2
    # "ignore": the cut may go through a character
    return _joined(data[:half].decode(errors="ignore"), data[-half:].decode(errors="ignore"), len(data) - 2 * half)


def sendable(text: str) -> str:
    """``text`` with lone surrogates, which cannot be sent as UTF-8, written as escapes."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


def share(texts: list[str], limit: int) -> list[str]:
    """The same texts, cut so that all together fit in ``limit`` bytes: the short stay, the longest are cut."""
    sizes = [len(text.encode()) for text in texts]
    if sum(sizes) <= limit:
        return texts
    result, left = list(texts), limit
    order = sorted(range(len(texts)), key=sizes.__getitem__)
    for position, index in enumerate(order):
        part = left // (len(order) - position)
        if sizes[index] > part:
            result[index] = shorten(texts[index], max(part - _NOTE, 0))
        left -= min(sizes[index], part)
    return result


_NOTE = 80
"""Bytes that the note takes at most."""


def _joined(head: str, tail: str, left_out: int) -> str:
    return f"{head}\n... [ipmpi: {left_out:,} characters left out here] ...\n{tail}"


class BoundedText:
    """Text that keeps its first and its last half-``limit`` characters and counts what was between."""

    def __init__(self, limit: int = limits.RESULT_TEXT) -> None:
        self._half = limit // 2
        self._head: list[str] = []
        self._room = self._half
        self._tail: deque[str] = deque()
        self._tail_size = 0
        self._left_out = 0

    def write(self, text: str) -> None:
        """Append ``text``; memory stays below twice the limit."""
        if self._room:
            piece = text[: self._room]
            self._head.append(piece)
            self._room -= len(piece)
            text = text[len(piece) :]
        if len(text) > self._half:
            self._left_out += len(text) - self._half + self._tail_size
            self._tail.clear()
            self._tail_size = 0
            text = text[-self._half :]
        if text:
            self._tail.append(text)
            self._tail_size += len(text)
            while self._tail_size - len(self._tail[0]) >= self._half:
                dropped = self._tail.popleft()
                self._tail_size -= len(dropped)
                self._left_out += len(dropped)

    @property
    def is_used(self) -> bool:
        """Whether anything was written."""
        return bool(self._head)

    def text(self) -> str:
        """All of it, or beginning, note and end."""
        head, tail = "".join(self._head), "".join(self._tail)
        if not self._left_out:
            return head + tail
        return _joined(head, tail, self._left_out)


class CapturedStream(io.TextIOBase):
    """Stands for ``sys.stdout`` or ``sys.stderr``: keeps what is written while it captures, else passes it on.

    One object serves all commands, because user code keeps references (logging handlers, say). Everything
    that is not writing (``fileno``, ``encoding``) is the real stream's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.RLock()  # a signal handler may print in the middle of a write
        self._kept: BoundedText | None = None
        self._real: TextIO | None = getattr(sys, f"__{name}__")
        self._bytes = _BytesSide(self)

    def begin(self, real: TextIO | None) -> None:
        """Keep what is written from now on, in place of ``real``."""
        with self._lock:
            if not isinstance(real, CapturedStream):
                self._real = real
            self._kept = BoundedText()

    def end(self) -> None:
        """Keep no more, and forget what was kept."""
        with self._lock:
            self._kept = None

    def forked(self) -> None:
        """Pass on what is written, in a forked child: nobody would ask it for what it keeps."""
        self._lock = threading.RLock()  # another thread may have held it at the fork
        self._kept = None

    def peek(self) -> str:
        """What was written since :meth:`begin`, and go on."""
        with self._lock:
            return shorten(self._kept.text()) if self._kept is not None and self._kept.is_used else ""

    def write(self, text: str, /) -> int:
        """Keep ``text``, or pass it on; TypeError for anything but a string."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._lock:
            if self._kept is not None:
                self._kept.write(text)
                return len(text)
        real = self._real
        if real is not None:
            real.write(text)
            if "\n" in text:
                real.flush()  # what a thread prints between commands; the process may be killed any time
        return len(text)

    def flush(self) -> None:
        """Flush the real stream, unless this one captures."""
        real = self._real
        if real is not None and self._kept is None:
            real.flush()

    def close(self) -> None:
        """Nothing: the stream outlives the user code that closes it."""

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Never: nobody looks at it while it is written."""
        return False

    def fileno(self) -> int:
        """The real stream's descriptor, for subprocesses: what they write there is not captured."""
        real = self._real
        if real is None:
            raise io.UnsupportedOperation("fileno")
        return real.fileno()

    @property
    def buffer(self) -> io.RawIOBase:
        """For those who write bytes to ``sys.stdout.buffer``."""
        return self._bytes

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """UTF-8: what is captured travels so."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Undecodable bytes are kept as escapes."""
        return "backslashreplace"

    @property
    def name(self) -> str:
        """As the real stream is called."""
        return f"<{self._name}>"

    @property
    def mode(self) -> str:
        """Always for writing."""
        return "w"


class _BytesSide(io.RawIOBase):
    """Decodes what is written as bytes."""

    def __init__(self, stream: CapturedStream) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        piece = memoryview(data).cast("B")  # type: ignore[arg-type]
        self._stream.write(self._decoder.decode(bytes(piece)))
        return piece.nbytes

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def close(self) -> None:
        """Nothing, as for the text side."""


class Capture:
    """Both streams of one engine: captures inside a with-statement on it.

    Read them with :meth:`CapturedStream.peek` before its end. ``sys.stdout`` and ``sys.stderr`` are what they were
    afterwards, whatever user code made of them.
    """

    def __init__(self) -> None:
        self.stdout = CapturedStream("stdout")
        self.stderr = CapturedStream("stderr")
        self._before: tuple[Any, Any] = (None, None)

    def __enter__(self) -> None:
        self._before = sys.stdout, sys.stderr
        self.stdout.begin(sys.stdout)
        self.stderr.begin(sys.stderr)
        sys.stdout, sys.stderr = self.stdout, self.stderr

    def __exit__(self, *_error: object) -> None:
        sys.stdout, sys.stderr = self._before
        self.stdout.end()
        self.stderr.end()

    def forked(self) -> None:
        """This is a forked child: capture no more."""
        self.stdout.forked()
        self.stderr.forked()
