"""One command of the history, and what is kept of it (no I/O)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from ... import limits
from ...ids import Ids, IdSet
from ...protocol import messages as m
from ...protocol.frames import Buffer, size_of
from ...quantities import sized
from .queuedcommand import QueuedCommand

_LEAST: Final = 256
"""Bytes for which a command, an answer and a message of output count in addition to their own."""


class PastCommand:
    """A command, from the moment in which its client has given it.

    Attributes:
        place: its number in the history.
        client, number: who has given it, and its number there.
        work: the command in the queues; None once all engines have answered.
        engines, many: those that it is for, and how many these are.
        given, ended: when, in seconds since 1970; 0.0 for not yet. ``printed_at`` is that of the last output.
        answered, failed: engines of which something was told; those whose answer is a failure.
        lost: those whose answers are not kept.
        followers: clients that are told of it, each with its own number.
        left_out: bytes of output that are not kept any more.
        size: bytes that are kept.
    """

    __slots__ = (
        *(
            "answered",
            "answers",
            "client",
            "ended",
            "engines",
            "failed",
            "followers",
            "given",
            "is_begun",
            "label",
        ),
        *("left_out", "lost", "many", "method", "number", "operation", "place", "printed", "printed_at", "size"),
        "work",
    )

    def __init__(self, place: int, work: QueuedCommand, engines: Ids, now: float) -> None:
        self.place = place
        self.client, self.number = work.client, work.id
        self.work: QueuedCommand | None = work
        self.method, self.label = work.method[: limits.LABEL], work.label
        self.operation = work.operation if len(work.operation) <= limits.HISTORY_SOURCE else b""
        self.engines, self.many = engines, len(IdSet(engines))
        self.given, self.ended, self.printed_at = now, 0.0, 0.0
        self.answered, self.failed, self.lost = IdSet(), IdSet(), IdSet()
        self.printed: deque[tuple[float, m.Output]] = deque()
        self.answers: deque[tuple[m.Result | m.Undone, Sequence[Buffer]]] = deque()
        self.followers: dict[tuple[int, int], None] = {}
        self.left_out = 0
        self.size = _LEAST + len(self.operation) + len(self.label) + 8 * len(engines.runs)

    @property
    def name(self) -> tuple[int, int]:
        """What names it: its client, and its number there."""
        return self.client, self.number

    @property
    def shown(self) -> str:
        """The same as text."""
        return f"{self.client}-{self.number}"

    @property
    def is_open(self) -> bool:
        """Whether engines have not answered."""
        return self.work is not None

    def note(self, message: m.Output | m.Result | m.Undone, body: Sequence[Buffer], now: float) -> None:
        """Keep what is told of it."""
        if isinstance(message, m.Output):
            self.printed_at = now
            self.printed.append((now, message))
            self.size += _size_of_output(message)
            return
        self.answers.append((message, [bytes(part) for part in body]))
        self.size += _size_of_answer(message, body)
        self.lost.remove(message.engines)
        self._has_answered(Ids.of(message.engines), isinstance(message, m.Result) and message.ok)

    def large(self, engines: Ids, ok: bool) -> None:
        """Engines have answered, too much to be kept."""
        self.lost.add(engines)
        self._has_answered(engines, ok)

    def _has_answered(self, engines: Ids, ok: bool) -> None:
        self.answered.add(engines)
        if not ok:
            self.failed.add(engines)
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
            self.lost.add(answer.engines)

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
        is_begun = self.work is None or self.work.is_begun
        return [
            self.place, self.client, self.number, whose, self.given, self.ended, host, user, self.method,
            self.label, self.operation, self.engines, self.answered.ids(), self.failed.ids(), is_begun,
            self.printed_at, self.left_out,
        ]  # fmt: skip


def _size_of_output(message: m.Output) -> int:
    return _LEAST + sum(len(block.data) + 8 * len(Ids.of(block.engines).runs) for block in message.blocks)


def _size_of_answer(message: m.Result | m.Undone, body: Sequence[Buffer]) -> int:
    said = len(message.outcome) if isinstance(message, m.Result) else len(message.text)
    return _LEAST + said + size_of(list(body)) + 8 * len(Ids.of(message.engines).runs)
