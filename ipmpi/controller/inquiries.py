"""Questions of clients to node agents, answered when all agents have answered, or not in time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from .. import limits
from ..ids import IdSet
from ..protocol import messages as m
from ..transport.loop import Loop
from .registry import Registry


@dataclass(eq=False)
class _Open:
    client: int
    id: int
    waiting: IdSet
    answers: dict[bytes, IdSet] = field(default_factory=dict)
    size: int = 0


class Inquiries:
    """The questions that are open.

    The reply is ``[[[engine, ...], answer], ...]``, followed by the engines of which nobody has told anything
    within ``limits.INQUIRY`` seconds: ``[answers, [engine, ...]]``.

    Args:
        send: called with an engine set or client, and the message for it.
    """

    def __init__(self, loop: Loop, registry: Registry, send: Callable[[int, m.AnyMessage], None]) -> None:
        self._loop = loop
        self._registry = registry
        self._send = send
        self._numbers = itertools.count(1)
        self._open: dict[int, _Open] = {}

    def begin(self, client: int, message: m.AskAgents) -> None:
        """Ask; raises an error to refuse the question."""
        targets = self._registry.resolve(message.targets)
        number = next(self._numbers)
        self._open[number] = _Open(client, message.id, IdSet(targets))
        for key, ranks in self._registry.by_set(targets).items():
            self._send(key, m.Inquiry(number, ranks, message.question))
        self._loop.call_later(limits.INQUIRY, lambda: self._reply(number))

    def found(self, key: int, message: m.Findings) -> None:
        """An agent has answered for ranks."""
        inquiry = self._open.get(message.id)
        if inquiry is None:
            return
        engines = inquiry.waiting.common(self._registry.of_ranks(key, message.engines))
        inquiry.size += len(message.answer) + 5 * len(engines)
        if engines and inquiry.size < limits.MESSAGE - limits.INLINE_BODY:
            inquiry.waiting.remove(engines)
            inquiry.answers.setdefault(message.answer, IdSet()).add(engines)
        if not inquiry.waiting:
            self._reply(message.id)

    def _reply(self, number: int) -> None:
        inquiry = self._open.pop(number, None)
        if inquiry is not None:
            answers = [[engines.ids(), answer] for answer, engines in inquiry.answers.items()]
            self._send(inquiry.client, m.Reply(inquiry.id, [answers, inquiry.waiting.ids()]))
