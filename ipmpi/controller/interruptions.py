"""Requests to interrupt engines, answered when their results are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .. import limits
from ..ids import Ids
from ..protocol import messages as m
from ..transport.loop import Loop
from .commands.queuedcommand import QueuedCommand
from .commands.router import Router


@dataclass(eq=False)
class _Request:
    client: int
    id: int
    works: dict[int, QueuedCommand]


class Interruptions:
    """The open requests.

    The reply is ``[engines, [[engines, label], ...]]``: engines whose command has ended, and those whose command
    still runs after ``limits.INTERRUPT_REACTS`` seconds.

    Args:
        send: called with the client and the reply.
    """

    def __init__(self, loop: Loop, router: Router, send: Callable[[int, m.Reply], None]) -> None:
        self._loop = loop
        self._router = router
        self._send = send
        self._requests: list[_Request] = []

    def begin(self, client: int, message: m.Interrupt) -> None:
        """Interrupt engines; raises an error to refuse the request."""
        works = self._router.interrupt(message.targets, client, message.commands)
        request = _Request(client, message.id, works)
        self._requests.append(request)
        if request.works:
            self._loop.call_later(limits.INTERRUPT_REACTS, lambda: self._answer(request))

    def look(self) -> None:
        """Answer the requests whose engines have all reacted; call it after events."""
        for request in list(self._requests):
            if not any(self._router.runs(engine, work) for engine, work in request.works.items()):
                self._answer(request)

    def _answer(self, request: _Request) -> None:
        if request not in self._requests:
            return
        self._requests.remove(request)
        runs = {engine for engine, work in request.works.items() if self._router.runs(engine, work)}
        ended = Ids.of(engine for engine in request.works if engine not in runs)
        stuck: dict[str, list[int]] = {}
        for engine in runs:
            stuck.setdefault(request.works[engine].label, []).append(engine)
        answer = [ended, [[Ids.of(sorted(engines)), label] for label, engines in stuck.items()]]
        self._send(request.client, m.Reply(request.id, answer))
