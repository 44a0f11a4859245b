"""What the debuggers in one command have said, and lines for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from ...protocol.debugging import LEFT, PROMPT, TEXT, DebuggerLine, DebuggerSaid
from ...ranges import engines_named
from .notices import say

_TOLD_AFTER: Final = 1.0
"""Seconds after which a debugger that waits is announced if nobody asks for its lines."""


class Prompt(NamedTuple):
    """A debugger that waits for a line: its prompt, and where user code has stopped."""

    text: str
    place: str


class DebuggerTalk:
    """The debuggers in one command.

    Thread-safety: :meth:`said` and :meth:`ended` are called in the session's thread, all others in any.

    Args:
        number: of the command.
        send: sends a line to the controller.
        later: calls a function in the session's thread after some seconds.

    Attributes:
        number: of the command.
        is_attended: whether somebody has been asked for lines in this call.
    """

    def __init__(
        self,
        number: int,
        send: Callable[[DebuggerLine], None],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.number = number
        self.is_attended = False
        self._send = send
        self._later = later
        self._lock = threading.Lock()
        self._prompts: dict[int, Prompt] = {}
        self._states: dict[int, int] = {}
        self._texts: list[tuple[int, str]] = []
        self._listeners: list[Callable[[], object]] = []
        self._goes_on = False
        self._is_told = False

    def said(self, message: DebuggerSaid) -> None:
        """A debugger has said something."""
        engine = message.engine
        with self._lock:
            if message.text:
                self._texts.append((engine, message.text))
            if message.state != TEXT or engine not in self._states:
                self._states[engine] = message.state
            waits = message.state == PROMPT
            if waits:
                self._prompts[engine] = Prompt(message.prompt, message.place)
            listeners = list(self._listeners)
        if waits and self._goes_on:
            self.answer([engine], None)
        elif waits and not (self.is_attended or self._is_told):
            self._is_told = True
            self._later(_TOLD_AFTER, self._tell)
        for listener in listeners:
            listener()

    def ended(self, engines: Iterable[int]) -> None:
        """These engines have ended the command."""
        if not self._states:
            return  # nobody waits for the end of a debugger, and each answer would wake the caller
        with self._lock:
            for engine in engines:
                self._prompts.pop(engine, None)
                self._states[engine] = LEFT
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def _tell(self) -> None:
        waiting = self.waiting()
        if waiting and not self.is_attended:
            place = next(iter(waiting.values())).place
            ids = sorted(waiting)
            say(
                f"{engines_named(ids)} stopped in the debugger ({place}): mec.debug() or %pxdebug opens it, and "
                "so does waiting for the result"
            )

    def listen(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` in the session's thread when a debugger has said something; it must be quick."""
        with self._lock:
            self._listeners.append(listener)

    def waiting(self) -> dict[int, Prompt]:
        """The engines whose debuggers wait for a line."""
        with self._lock:
            return dict(self._prompts)

    def state(self, engine: int) -> int:
        """What the debugger of an engine has done last; :data:`TEXT` while it works on a line."""
        with self._lock:
            return self._states.get(engine, LEFT)

    def take_texts(self) -> list[tuple[int, str]]:
        """What engines have written since the last call."""
        with self._lock:
            texts, self._texts = self._texts, []
            return texts

    def answer(self, engines: Sequence[int], line: str | None) -> None:
        """Give a line to those of these debuggers that wait; "" is the end of input, None says to go on."""
        with self._lock:
            there = [engine for engine in engines if self._prompts.pop(engine, None) is not None]
            self._states.update(dict.fromkeys(there, TEXT if line is not None else LEFT))
        if there:
            self._send(DebuggerLine(self.number, there, line))

    def go_on(self) -> None:
        """Nobody can be asked: user code goes on, now and at all later breakpoints of this command."""
        self._goes_on = True
        self.answer(list(self.waiting()), None)

    def interrupted(self) -> None:
        """The command was interrupted, which ends debuggers that wait."""
        with self._lock:
            self._states.update(dict.fromkeys(self._prompts, LEFT))
            self._prompts.clear()
