"""Asks the user for lines for debuggers on engines, one of which has the prompt at a time."""

from __future__ import annotations

import builtins
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from ... import limits
from ...protocol.debugging import LEFT, PROMPT, TEXT
from ...ranges import engines_named, ranges
from ..display.escapes import safe
from ..display.ranksets import label
from .debuggertalk import DebuggerTalk, Prompt

_STEPS: Final = 1.0
_LEFT: Final = 0.2
"""Seconds for which an engine whose user code runs on keeps the prompt, while others wait: after a step, and after
``continue``."""
_LONGEST: Final = 3600.0


class Screen(Protocol):
    """See :class:`ipmpi.client.session.callwait.Screen`."""

    def tell(self, text: str) -> None:
        """Show a line that stays."""

    def settle(self) -> None:
        """Show all that has come, and leave nothing that could be replaced."""

    def wait(self, seconds: float) -> None:
        """Let so much time pass, or less if something may have happened."""


class _Waiting(NamedTuple):
    talk: DebuggerTalk
    prompt: Prompt


class DebuggerConsole:
    """The console of the debuggers in the commands of one call.

    Lines that begin with ``@`` are for the console: ``@`` lists the engines that wait, ``@3`` gives the prompt to
    engine 3, ``@all c`` sends the line ``c`` to all that wait.

    Args:
        talks: of the commands.
        screen: where to show what.
        interrupt: interrupts what runs on some engines in this call.
        is_over: whether the call has ended.
        first: the engine that gets the prompt first, if it waits.
    """

    def __init__(
        self,
        talks: Sequence[DebuggerTalk],
        screen: Screen,
        interrupt: Callable[[list[int]], object],
        is_over: Callable[[], bool],
        first: int | None = None,
    ) -> None:
        self._talks = talks
        self._screen = screen
        self._interrupt = interrupt
        self._is_over = is_over
        self._current: int | None = None
        self._first = first
        self._answered_at = 0.0
        self._introduced: set[int] = set()
        self._was_hit = self._line_was_hit = False

    @property
    def is_wanted(self) -> bool:
        """Whether a debugger waits."""
        return any(talk.waiting() for talk in self._talks)

    def attend(self) -> None:
        """Ask for lines until no debugger waits for one.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed twice, or while user code ran.
        """
        for talk in self._talks:
            talk.is_attended = True
        while not self._is_over():
            waiting, seconds = self._waiting(), self._stays()
            if waiting and self._current not in waiting and seconds <= 0:
                self._choose(waiting)
            self._show()
            if self._current in waiting:
                self._introduce(set(waiting) - {self._current})
                self._turn(self._current, waiting[self._current])
            elif seconds > 0:
                self._pass_time(seconds)
            else:
                break
        self._introduced.clear()
        self._show()

    def _waiting(self) -> dict[int, _Waiting]:
        found = {}
        for talk in self._talks:
            found.update({engine: _Waiting(talk, prompt) for engine, prompt in talk.waiting().items()})
        return found

    # --- whose turn it is ------------------------------------------------------------------------------------

    def _choose(self, waiting: dict[int, _Waiting]) -> None:
        self._current = self._first if self._first in waiting else min(waiting)
        self._first = None

    def _introduce(self, others: set[int]) -> None:
        if others - self._introduced:
            self._screen.tell(
                f"{engines_named(sorted(others))} also wait{'s' * (len(others) == 1)} in the debugger: @ lists "
                "who waits, @3 goes to engine 3, @all c lets all go on"
            )
        self._introduced |= others | {-1 if self._current is None else self._current}

    def _stays(self) -> float:
        """Seconds for which the engine that was answered last keeps the prompt, though it does not wait."""
        if self._current is None:
            return 0.0
        state = self._state(self._current)
        if state in (TEXT, PROMPT):
            return _LONGEST
        return self._answered_at + (_LEFT if state == LEFT else _STEPS) - time.monotonic()

    def _state(self, engine: int) -> int:
        return next((s for talk in self._talks if (s := talk.state(engine)) != LEFT), LEFT)

    def _pass_time(self, seconds: float) -> None:
        try:
            self._screen.wait(seconds)
        except KeyboardInterrupt:
            if self._current is None or self._line_was_hit or self._state(self._current) == LEFT:
                raise
            self._line_was_hit = True
            self._screen.tell(f"interrupting {engines_named([self._current])}")
            self._interrupt([self._current])

    # --- a line --------------------------------------------------------------------------------------------

    def _turn(self, engine: int, waits: _Waiting) -> None:
        line = self._read(f"[{engine}] {safe(waits.prompt.text)}", waits.talk)
        if line is None:
            return
        if line.startswith("@"):
            self._own(line[1:].strip(), engine)
        else:
            self._answered_at, self._line_was_hit = time.monotonic(), False
            waits.talk.answer([engine], line)

    def _read(self, prompt: str, talk: DebuggerTalk) -> str | None:
        """The line that the user types, with its end; None if there is nothing to do for it."""
        self._screen.settle()
        try:
            line = builtins.input(prompt)
        except EOFError:
            print(flush=True)
            return ""
        except KeyboardInterrupt:
            print(flush=True)
            if self._was_hit:
                self._was_hit = False
                raise
            self._was_hit = True
            self._screen.tell("c lets the engine go on, q ends its command; Ctrl-C again interrupts all engines")
            return None
        except Exception as error:  # no terminal, or a notebook that is run by a program
            self._screen.tell(f"nobody can be asked here ({error}): this call passes breakpoints over")
            talk.go_on()
            return None
        self._was_hit = False
        if len(line) > limits.DEBUGGER_LINE:
            self._screen.tell(f"a line has at most {limits.DEBUGGER_LINE} characters, and this one {len(line)}")
            return None
        try:
            line.encode()
        except UnicodeEncodeError as error:
            self._screen.tell(f"this line cannot be sent: {error}")
            return None
        return line + "\n"

    def _own(self, words: str, current: int) -> None:
        waiting = self._waiting()
        first, _, rest = words.partition(" ")
        if not words:
            self._list(waiting, current)
        elif first == "all" and rest.strip():
            self._send_to_all(waiting, rest.strip() + "\n")
        elif first.isdecimal() and not rest and int(first) in waiting:
            self._current = int(first)
        elif first.isdecimal() and not rest:
            self._screen.tell(f"engine {first} does not wait in a debugger of this call")
        else:
            self._screen.tell("@ lists who waits, @3 goes to engine 3, @all c sends the line 'c' to all that wait")

    def _list(self, waiting: dict[int, _Waiting], current: int) -> None:
        places: dict[str, list[int]] = {}
        for engine in sorted(waiting):
            places.setdefault(waiting[engine].prompt.place, []).append(engine)
        for place, engines in places.items():
            mark = " *" if current in engines else ""
            print(f"[{ranges(engines)}] {safe(place)}{mark}", flush=True)

    def _send_to_all(self, waiting: dict[int, _Waiting], line: str) -> None:
        self._answered_at = time.monotonic()
        for talk in self._talks:
            talk.answer([engine for engine, each in waiting.items() if each.talk is talk], line)
        before, self._current = self._current, None
        end = self._answered_at + _STEPS
        while any(self._state(engine) == TEXT for engine in waiting) and time.monotonic() < end:
            self._screen.wait(end - time.monotonic())
        self._show()
        self._current = before

    # --- what they write -------------------------------------------------------------------------------------

    def _show(self) -> None:
        """Show what has been written: of the engine with the prompt as it is, of others once where it is equal."""
        texts: dict[int, str] = {}
        for talk in self._talks:
            for engine, text in talk.take_texts():
                texts[engine] = texts.get(engine, "") + text
        if not texts:
            return
        self._screen.settle()
        groups: dict[str, list[int]] = {}
        for engine in sorted(texts, key=lambda each: each == self._current):
            groups.setdefault(texts[engine], []).append(engine)
        for text, engines in groups.items():
            end = "" if text.endswith("\n") else "\n"
            head = "" if engines == [self._current] else f"{label(engines)}\n"
            sys.stdout.write(f"{head}{safe(text)}{end}")
        sys.stdout.flush()
