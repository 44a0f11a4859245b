"""The output of one rank: its pipes, and what was printed during which command."""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Final

from ... import limits
from ...protocol import messages as m
from ...transport.loop import READ, Loop
from ...transport.readable import Readable
from .linecutter import Line, LineCutter

_READ: Final = 64 * limits.KIB
"""As much as a pipe holds."""
_END: Final = -1
_PAUSE: Final = 0.005
"""Seconds until a pipe is looked at again that was not full: a rank that prints line by line shall not wake its
agent for each of them."""

Tell = Callable[[int, int, int, bytes], None]
"""Called with a command's number, a kind of output, the number of the line, and the line."""


class RankOutput:
    """Reads what a rank prints.

    Args:
        loop: of the agent.
        files: read ends of the pipes for standard output and standard error during commands, and for what is
            printed otherwise; they are closed by :meth:`close`.
        tell: called with each line of a command.
        note: called with what was printed while no command ran.
        wait: called when a line has begun, so that :meth:`unfinished` is called in time.
    """

    def __init__(
        self,
        loop: Loop,
        files: list[int],
        tell: Tell,
        note: Callable[[bytes], None],
        wait: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._files = files
        self._tell = tell
        self._note = note
        self._wait = wait
        self._command = 0
        self._cutters = [LineCutter(), LineCutter()]
        self._is_used = False
        """Whether the command has printed or displayed something: most do not, and cost nothing here."""
        self._of_commands = Readable(files[:2])
        self._displayed = 0
        self._waited: list[bool] = [False, False]
        self._kept = _Kept()
        for kind, descriptor in enumerate(files):
            os.set_blocking(descriptor, False)
            self._look(kind)

    def begin(self, command: int) -> None:
        """The rank was given a command, and has no other: what it prints from now on belongs to that."""
        self._command = command
        if self._is_used:
            self._cutters = [LineCutter(), LineCutter()]
            self._waited = [False, False]
            self._displayed = 0
            self._is_used = False

    def end(self) -> None:
        """The rank has ended its command: everything that it printed is in the pipes."""
        if self._files and self._of_commands.any():
            self.drain()
        command, self._command = self._command, 0
        if command and self._is_used:
            for kind, cutter in enumerate(self._cutters):
                self._told(command, kind, cutter.finish())

    def last_words(self, most: int) -> bytes:
        """The last lines of the running command, whose rank has ended; everything that it has printed is told."""
        command = self._command
        self.end()
        lines = [line for kind, line in self._kept.lines(command) if kind != m.DISPLAY]
        return b"".join(lines[-most:])

    def displayed(self, data: bytes) -> None:
        """The rank displays something, after what it has printed."""
        self.drain()
        if not self._command:
            return
        self._is_used = True
        self._displayed += len(data)
        if self._displayed > limits.DISPLAYS:
            return  # the rank says so, and sends no more
        stdout = self._cutters[m.STDOUT]
        self._told(self._command, m.STDOUT, stdout.unfinished())
        self._told(self._command, m.DISPLAY, [(stdout.take_number(), data)])

    def tell_all(self) -> None:
        """Read and tell everything that the rank has printed so far, also of a line that has not ended."""
        self.drain()
        if self._command:
            for kind, cutter in enumerate(self._cutters):
                self._told(self._command, kind, cutter.unfinished())

    def unfinished(self) -> None:
        """Tell of lines that have begun, and had not ended at the last call of this either."""
        if not self._command:
            return
        for kind, cutter in enumerate(self._cutters):
            if self._waited[kind]:
                self._told(self._command, kind, cutter.unfinished())
            self._waited[kind] = cutter.has_unfinished

    @property
    def has_unfinished(self) -> bool:
        """Whether a line has begun."""
        return any(cutter.has_unfinished for cutter in self._cutters) if self._command else False

    def again(self, earlier: int, command: int) -> None:
        """Tell what was printed during an earlier command once more, as the output of ``command``."""
        for number, (kind, data) in enumerate(self._kept.lines(earlier)):
            self._tell(command, kind, number, data)

    def drain(self) -> None:
        """Read what is in the pipes of commands now."""
        self._drain((m.STDOUT, m.STDERR))

    def drain_all(self) -> None:
        """Read what is in all pipes now, also what was printed while no command ran."""
        self._drain(range(len(self._files)))

    def _drain(self, kinds: Iterable[int]) -> None:
        for kind in kinds if self._files else ():
            for _ in range(2):  # a pipe that is filled again meanwhile shall not hold up others
                if self._read(kind) < _READ:
                    break

    def _look(self, kind: int) -> None:
        if self._files:
            self._loop.register(self._files[kind], READ, lambda _events: self._ready(kind))

    def _ready(self, kind: int) -> None:
        descriptor = self._files[kind]
        size = self._read(kind)
        if size < _READ:
            self._loop.unregister(descriptor)
            if size != _END:
                # Also where there was nothing: what made it readable was read at the end of a command just now.
                self._loop.call_later(_PAUSE, lambda: self._look(kind))

    def _read(self, kind: int) -> int:
        """Read once; how much there was, :data:`_END` where nobody has the other end any more."""
        try:
            data = os.read(self._files[kind], _READ)
        except BlockingIOError:
            return 0
        if not data:
            return _END
        if kind == len(self._cutters) or not self._command:
            self._note(data)
        else:
            self._is_used = True
            self._told(self._command, kind, self._cutters[kind].feed(data))
            if self._cutters[kind].has_unfinished:
                self._wait()
        return len(data)

    def _told(self, command: int, kind: int, lines: list[Line]) -> None:
        for number, line in lines:
            self._kept.add(command, kind, line)
            self._tell(command, kind, number, line)

    def close(self) -> None:
        """The rank is gone, or the agent ends."""
        for descriptor in self._files:
            with contextlib.suppress(OSError, KeyError):
                self._loop.unregister(descriptor)
            os.close(descriptor)
        self._files = []


class _Kept:
    """The output of the last commands, for those who ask for it again."""

    def __init__(self) -> None:
        self._commands: OrderedDict[int, deque[tuple[int, bytes]]] = OrderedDict()
        self._size = 0

    def add(self, command: int, kind: int, data: bytes) -> None:
        lines = self._commands.setdefault(command, deque())
        lines.append((kind, data))
        self._size += len(data) + limits.OUTPUT_ENTRY
        while self._size > limits.OUTPUT_KEPT and len(self._commands) > 1:
            _, oldest = self._commands.popitem(last=False)
            self._size -= sum(len(line) + limits.OUTPUT_ENTRY for _, line in oldest)

    def lines(self, command: int) -> list[tuple[int, bytes]]:
        return list(self._commands.get(command, ()))
