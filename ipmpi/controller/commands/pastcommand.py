"""One command of the history, and what is kept of it (no I/O)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ... import limits
from ...ids import Ids, IdSet
from ...protocol import messages as m
from ...protocol.frames import Buffer, size_of
from ...quantities import sized
from .historynotes import About, Given
from .queuedcommand import QueuedCommand

_LEAST: Final = 256
"""Bytes for which a command, an answer and a message of output count in addition to their own."""
_RUN: Final = 96
"""Bytes for which each further run of ids counts."""

_NOBODY: Final = IdSet()
"""In place of a set of its own, until somebody is in it."""


class Owner(NamedTuple):
    """Who gives commands: the name of all who hold the same furl, the machine, and the user."""

    holder: str = ""
    host: str = "?"
    user: str = "?"


class What(NamedTuple):
    """A command: its method, its label, and the encoded operation, b"" if that is long."""

    method: str
    label: str
    operation: bytes


class PastCommand:
    """A command, from the moment in which its client has given it.

    Attributes:
        place: its number in the history.
        client, number, name: who has given it, its number there, and both.
        work: the command in the queues; None if it is not there, as once all engines have answered.
        engines, many: those that it is for, and how many these are.
        given, ended: when, in seconds since 1970; 0.0 for not yet. ``printed_at`` is that of the last output.
        answered, failed: engines of which something was told; those whose answer is a failure.
        lost: those whose answers are not kept.
        followers: clients that are told of it, each with its own number.
        left_out: bytes of output that are not kept any more.
        size: bytes that are kept.
    """

    __slots__ = (
        *("_is_restored", "_known", "answered", "answers", "client", "ended", "engines", "failed", "followers"),
        *("given", "label", "left_out", "lost", "many", "method", "name", "number", "operation", "place"),
        *("printed", "printed_at", "size", "work"),
    )

    def __init__(self, place: int, name: tuple[int, int], what: What, engines: Ids, now: float) -> None:
        self.place = place
        self.client, self.number = self.name = name
        self.work: QueuedCommand | None = None
        self.method, self.label, self.operation = what
        self.engines, self.many = engines, len(engines.ascending())
        self.given, self.ended, self.printed_at = now, 0.0, 0.0
        self.answered = self.failed = self.lost = _NOBODY
        self.printed: deque[tuple[float, m.Output]] = deque()
        self.answers: deque[tuple[m.Result | m.Undone, Sequence[Buffer]]] = deque()
        self.followers: dict[tuple[int, int], None] = {}
        self.left_out = 0
        self.size = _LEAST + len(self.operation) + len(self.label) + _size_of_ids(engines)
        self._is_restored = False
        """Whether another controller has known it: then sets may tell again what is here."""
        self._known: Counter[int] | None = None

    @classmethod
    def of(cls, place: int, work: QueuedCommand, engines: Ids, now: float) -> PastCommand:
        """Return the command that a client has given just now."""
        operation = work.operation if len(work.operation) <= limits.HISTORY_SOURCE else b""
        what = What(work.method[: limits.LABEL], work.label, operation)
        past = cls(place, (work.client, work.id), what, engines, now)
        past.work = work
        return past

    @classmethod
    def restored(cls, place: int, note: Given) -> PastCommand:
        """Return the command of which another controller has noted this."""
        what = What(note.method, note.label, note.operation)
        past = cls(place, (note.client, note.number), what, Ids.of(note.engines), note.given)
        for when, message in note.printed:
            past.note(message, (), when)
        for answer, body in note.answers:
            past.note(answer, body, note.given)
        past.answered, past.failed, past.lost = IdSet(note.answered), IdSet(note.failed), IdSet(note.lost)
        past.ended, past.printed_at, past.left_out = note.ended, note.printed_at, note.left_out
        past._is_restored = True
        return past

    def as_note(self, holder: str, host: str, user: str, seen: float) -> Given:
        """Return all that is kept of it; for what is said of its client see :class:`Given`."""
        return msgspec.structs.replace(
            self.as_given(holder, host, user, seen), ended=self.ended, printed_at=self.printed_at,
            answered=self.answered.ids(), failed=self.failed.ids(), lost=self.lost.ids(), left_out=self.left_out,
            printed=list(self.printed),
            answers=[(message, [bytes(part) for part in body]) for message, body in self.answers],
        )  # fmt: skip

    def as_given(self, holder: str, host: str, user: str, seen: float) -> Given:
        """As :meth:`as_note`, of a command of which nothing has been told."""
        return Given(
            self.client, self.number, holder, host, user, self.given, self.method, self.label, self.operation,
            self.engines, seen=seen,
        )  # fmt: skip

    @property
    def shown(self) -> str:
        """Its name as text."""
        return f"{self.client}-{self.number}"

    @property
    def is_open(self) -> bool:
        """Whether engines have not answered."""
        return len(self.answered) < self.many

    # --- after a restart -------------------------------------------------------------------------------------

    def reopen(self, lacks: Iterable[int]) -> None:
        """Its client has not heard what was told of these engines: another thing may come of them."""
        engines = IdSet(lacks)
        for told in (self.answered, self.failed, self.lost):
            told.remove(engines)
        answers, self.answers = self.answers, deque()
        for message, body in answers:
            self.size -= _size_of_answer(message, body)
            still = IdSet(message.engines)
            still.remove(engines)
            if still:
                self.answers.append((msgspec.structs.replace(message, engines=still.ids()), body))
                self.size += _size_of_answer(self.answers[-1][0], body)

    def is_for(self, engines: Ids) -> None:
        """It is for these engines, beside those that have answered."""
        both = IdSet(engines)
        both.add(self.answered)
        self.engines, self.many = both.ids(), len(both)

    def news(self, message: About) -> About | None:
        """Return what is new in what is told of it; None if nothing is."""
        if not self._is_restored:
            return message
        if isinstance(message, m.Output):
            # Ranks print nothing after they have answered: then it is what they had printed before.
            blocks = [block for block in message.blocks if self._is_new(block)] if self.is_open else []
            return m.Output(message.id, blocks) if blocks else None
        engines, known = IdSet(message.engines), IdSet(self.answered)
        known.remove(self.lost)
        engines.remove(known)
        return msgspec.structs.replace(message, engines=engines.ids()) if engines else None

    def may_come_again(self, message: About) -> None:
        """This has been noted, and sets will tell it again."""
        if isinstance(message, m.Output) and self._known is not None:
            self._known.update(map(_identity, message.blocks))

    def _is_new(self, block: m.OutputBlock) -> bool:
        if self._known is None:
            self._known = Counter(_identity(block) for _, message in self.printed for block in message.blocks)
        name = _identity(block)
        if self._known[name]:
            self._known[name] -= 1
            return False
        return True

    # --- what is told ----------------------------------------------------------------------------------------

    def note(self, message: About, body: Sequence[Buffer], now: float) -> None:
        """Keep what is told of it."""
        if isinstance(message, m.Output):
            self.printed_at = now
            self.printed.append((now, message))
            self.size += _size_of_output(message)
            return
        self.answers.append((message, [bytes(part) for part in body]))
        self.size += _size_of_answer(message, body)
        if self.lost:
            self.lost.remove(message.engines)
        self._has_answered(Ids.of(message.engines), isinstance(message, m.Result) and message.ok)

    def large(self, engines: Ids, ok: bool) -> None:
        """Engines have answered, too much to be kept."""
        self.lost = _with(self.lost, engines)
        self._has_answered(engines, ok)

    def _has_answered(self, engines: Ids, ok: bool) -> None:
        self.answered = _with(self.answered, engines)
        if not ok:
            self.failed = _with(self.failed, engines)
        if len(self.answered) >= self.many:
            self.work = None

    def shed(self, most: int) -> None:
        """Keep so many bytes: drop what was printed first, then answers."""
        while self.size > most and self.printed:
            _, printed = self.printed.popleft()
            self.size -= _size_of_output(printed)
            self.left_out += sum(len(block.data) for block in printed.blocks)
        while self.size > most and self.answers:
            answer, body = self.answers.popleft()
            self.size -= _size_of_answer(answer, body)
            self.lost = _with(self.lost, answer.engines)

    def what_is_left_out(self) -> str:
        """Say how much of what was printed is not kept."""
        return f"the first {sized(self.left_out)} of what it has printed are not kept"

    def printed_since(self, since: float, number: int) -> Iterator[m.Output]:
        """Yield what was printed after that time, under another number."""
        for when, message in self.printed:
            if when > since:
                yield msgspec.structs.replace(message, id=number)

    def answers_for(self, number: int) -> Iterator[tuple[m.Result | m.Undone, Sequence[Buffer]]]:
        """Yield the answers that are kept, under another number."""
        for message, body in self.answers:
            yield msgspec.structs.replace(message, id=number), body

    @property
    def listed_size(self) -> int:
        """About how many bytes its row has."""
        ids = len(self.engines.runs) + len(self.answered.ids().runs) + len(self.failed.ids().runs)
        return _LEAST + len(self.operation) + 4 * len(self.label) + 8 * ids

    def row(self, whose: int, host: str, user: str) -> list[Any]:
        """Return what :class:`~ipmpi.protocol.messages.CommandHistory` says of it."""
        is_begun = bool(self.answered or self.printed) if self.work is None else self.work.is_begun
        return [
            self.place, self.client, self.number, whose, self.given, self.ended, host, user, self.method,
            self.label, self.operation, self.engines, self.answered.ids(), self.failed.ids(), is_begun,
            self.printed_at, self.left_out,
        ]  # fmt: skip


def _with(some: IdSet, more: Iterable[int]) -> IdSet:
    if some is _NOBODY:
        return IdSet(more)
    some.add(more)
    return some


def _size_of_output(message: m.Output) -> int:
    return _LEAST + sum(len(block.data) + _size_of_ids(block.engines) for block in message.blocks)


def _size_of_answer(message: m.Result | m.Undone, body: Sequence[Buffer]) -> int:
    said = len(message.outcome) if isinstance(message, m.Result) else len(message.text)
    return _LEAST + said + size_of(list(body)) + _size_of_ids(message.engines)


def _size_of_ids(engines: Iterable[int]) -> int:
    runs = len(Ids.of(engines).ascending().runs)
    return 8 * min(1, runs) + _RUN * max(0, runs - 1)


def _identity(block: m.OutputBlock) -> int:
    """Return what tells a block from others of the same command; two that are alike may both have been printed."""
    return hash((block.kind, block.first, Ids.of(block.engines).packed(), block.data))
