"""Where a rank's output goes: to its node agent while a command runs, and else where the launcher has put it.

During a command the file descriptors 1 and 2 are pipes of the agent. What C, Fortran, MPI and subprocesses print
is captured like what Python prints, and is on its way to the client while the rank is still inside C. Between
commands they are those that the process was started with: what tasks and threads print is in the job's output, as
in any MPI program. The agent gets a copy of what Python prints then, for the log that clients can read.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import threading
from collections import deque
from typing import Any, Final, TextIO

_HELD: Final = 8192
"""Characters of an unfinished line that are held back of one write."""
_HELD_PIECES: Final = 64
"""Writes of an unfinished line that are held back."""
_LINE_BUFFERED: Final = 1
"""_IOLBF of stdio.h."""


class OutputPipes:
    """Three pipes to the agent: standard output and error of commands, and a copy of what else Python prints.

    A with-statement on it encloses a command. Without :meth:`install`, nothing else is changed.

    Args:
        redirect: whether the descriptors 1 and 2 of this process become the pipes; else only Python's streams do.

    Attributes:
        read_ends: for the agent, in this order; see :meth:`handed_over`.
    """

    def __init__(self, redirect: bool = True) -> None:
        pairs = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        self.read_ends = tuple(pair[0] for pair in pairs)
        self._write_ends = [pair[1] for pair in pairs]
        os.set_blocking(self._write_ends[2], False)  # a copy: nobody waits until it is read
        self._own = [os.dup(1), os.dup(2)] if redirect else []
        for descriptor in self._own:
            os.set_inheritable(descriptor, False)
        self.stdout = StandardStream("<stdout>", sys.stdout, self._write_ends[0], self._write_ends[2])
        self.stderr = StandardStream("<stderr>", sys.stderr, self._write_ends[1], self._write_ends[2])
        self._streams: tuple[Any, Any] | None = None
        self._before: tuple[Any, Any] = (None, None)
        self._c_stdout = _CStdout() if redirect else None

    def handed_over(self) -> None:
        """The agent has its ends."""
        for descriptor in self.read_ends:
            os.close(descriptor)
        self.read_ends = ()

    def install(self) -> None:
        """Let Python print through here, and the C library line by line."""
        self._streams = (sys.stdout, sys.stderr)
        sys.stdout, sys.stderr = self.stdout, self.stderr
        if self._own:
            # Launchers pass a terminal's input on to one rank, where input() would wait for ever: now it raises.
            nowhere = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nowhere, 0)
            os.close(nowhere)
        if self._c_stdout is not None:
            self._c_stdout.buffer_lines()
            # Read by libgfortran when it is loaded, which user code does.
            os.environ.setdefault("GFORTRAN_UNBUFFERED_PRECONNECTED", "y")

    def __enter__(self) -> None:
        self._before = sys.stdout, sys.stderr
        if self._streams is None:  # the program has its own, which buffer
            self._write_out_own()
        self.stdout.begin(sys.stdout)
        self.stderr.begin(sys.stderr)
        sys.stdout, sys.stderr = self.stdout, self.stderr
        if self._own:  # no loop: every command comes here
            os.dup2(self._write_ends[0], 1)
            os.dup2(self._write_ends[1], 2)

    def _write_out_own(self) -> None:
        for stream in self._before:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        if self._c_stdout is not None:
            self._c_stdout.flush()

    def __exit__(self, *_error: object) -> None:
        self.stdout.end()
        self.stderr.end()
        if self._c_stdout is not None:
            self._c_stdout.flush()
        if self._own:
            os.dup2(self._own[0], 1)
            os.dup2(self._own[1], 2)
        sys.stdout, sys.stderr = self._before  # whatever user code has made of them

    def forked(self) -> None:
        """This is a forked child: it prints to where this process does."""
        self.stdout.forked()
        self.stderr.forked()

    def close(self) -> None:
        """Print as before :meth:`install`, and close the pipes: the agent ends."""
        if self._streams is not None:
            sys.stdout, sys.stderr = self._streams
        self.stdout.detach_pipes()
        self.stderr.detach_pipes()
        for descriptor in [*self._write_ends, *self._own]:
            os.close(descriptor)
        self.handed_over()
        self._write_ends, self._own = [], []


class StandardStream(io.TextIOBase):
    """Stands for ``sys.stdout`` or ``sys.stderr``: to a pipe during a command, else to the real stream.

    One object serves all commands, because user code keeps references (logging handlers, say). Everything
    that is not writing (``fileno``, ``encoding``) is the real stream's.

    Args:
        name: as Python calls it.
        real: the stream for which it stands.
        pipe: descriptor for what is printed during commands.
        copy: descriptor that does not block, for a copy of what is printed otherwise.
    """

    def __init__(self, name: str, real: TextIO | None, pipe: int, copy: int) -> None:
        self._name = name
        self._real = real
        self._pipe = pipe
        self._copy = copy
        self._in_command = False
        self._lock = threading.RLock()  # a signal handler may print in the middle of a write
        self._held: deque[str] = deque()
        self._copied: deque[str] = deque()
        self._bytes = _BytesSide(self)

    def begin(self, real: Any) -> None:
        """Write to the pipe from now on, in place of ``real``."""
        if not isinstance(real, StandardStream):
            self._real = real
        self._in_command = True

    def end(self) -> None:
        """Write to the real stream from now on."""
        if self._held:
            self._write_out()
        self._in_command = False

    def detach_pipes(self) -> None:
        """The pipes are about to be closed."""
        self.end()
        self._copy = -1

    def forked(self) -> None:
        """This is a forked child; another thread may have held the lock, or an unfinished line."""
        self._lock = threading.RLock()
        self._held.clear()

    def write(self, text: str, /) -> int:
        """Write ``text``; TypeError for anything but a string."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if not self._in_command:
            self._pass_on(text)
            return len(text)
        # Without the lock, which costs as much as all the rest of a short write: print() makes two of them.
        self._held.append(text)
        if "\n" in text or len(text) > _HELD or len(self._held) > _HELD_PIECES:
            self._write_out()
        return len(text)

    def _write_out(self) -> None:
        with self._lock:
            held = [self._held.popleft() for _ in range(len(self._held))]
            data = "".join(held).encode("utf-8", "backslashreplace")
            with contextlib.suppress(BrokenPipeError):  # the agent is gone, and this process ends soon
                while data:
                    try:
                        data = data[os.write(self._pipe, data) :]
                    except BlockingIOError:
                        # User code, or a program that it runs (ssh does), has made descriptor 1 non-blocking,
                        # and that is the same pipe.
                        os.set_blocking(self._pipe, True)

    def _pass_on(self, text: str) -> None:
        real = self._real
        if real is not None:
            real.write(text)
            if "\n" in text:
                real.flush()  # what a thread prints between commands; the process may be killed any time
        if self._copy < 0:
            return
        self._copied.append(text)
        if "\n" in text or len(self._copied) > _HELD_PIECES:
            with self._lock:
                copied = "".join([self._copied.popleft() for _ in range(len(self._copied))])
            with contextlib.suppress(OSError):  # the pipe is full, or its agent gone
                os.write(self._copy, copied.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Pass on an unfinished line, too."""
        if self._held:
            self._write_out()
        if self._real is not None and not self._in_command:
            self._real.flush()

    def close(self) -> None:
        """Nothing: the stream outlives the user code that closes it."""

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Never: what is written is looked at elsewhere, and together with that of other ranks."""
        return False

    def fileno(self) -> int:
        """The real stream's descriptor, 1 or 2, which is captured as well."""
        if self._real is None:
            raise io.UnsupportedOperation("fileno")
        return self._real.fileno()

    def reconfigure(self, **_options: object) -> None:
        """Write what was printed so far. Lines are passed on at once, in UTF-8, whatever the options are."""
        self.flush()

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
        """What cannot be encoded is written as an escape."""
        return "backslashreplace"

    @property
    def name(self) -> str:
        """As Python calls it."""
        return self._name

    @property
    def mode(self) -> str:
        """Always for writing."""
        return "w"


class _BytesSide(io.RawIOBase):
    """Decodes what is written as bytes."""

    def __init__(self, stream: StandardStream) -> None:
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


class _CStdout:
    """``stdout`` of the C library. It buffers 4 KiB or more where it writes to no terminal."""

    def __init__(self) -> None:
        self._library: Any = None
        self._stream: Any = None
        with contextlib.suppress(ImportError, OSError, ValueError, AttributeError):
            # Only here: numpy takes it along anyway, and processes other than ranks do not need it.
            import ctypes

            self._library = ctypes.CDLL(None)
            self._stream = ctypes.c_void_p.in_dll(self._library, "stdout")

    def buffer_lines(self) -> None:
        if self._stream is not None:
            self._library.setvbuf(self._stream, None, _LINE_BUFFERED, 0)

    def flush(self) -> None:
        if self._stream is not None:
            self._library.fflush(self._stream)
