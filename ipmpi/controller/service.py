"""The running controller: links on one side, the router on the other (layer L4).

Every event of a link becomes a call of the router; at the end of the loop's turn the router's effects are
carried out. Bodies that are on their way are relayed chunk by chunk and never looked into: the controller does
not import pickle.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from .. import limits
from ..errors import KernelError, LocalProtocolError, MessageSizeError, RemoteProtocolError, SecurityError
from ..protocol import messages as m
from ..protocol.connection import Event, MessageReceived
from ..protocol.frames import Buffer, size_of
from ..protocol.handshake import printable
from ..protocol.states import CONTROLLER_RECEIVES
from ..transport.loop import Loop
from ..transport.transfers import Transfers
from .effects import Decline, Effect, Forward, Send
from .interfaces import CLIENT_INTERFACES, Interface
from .router import Router, refusal
from .sessions import Session, Sessions

_DISPATCH_ROOM = limits.KIB
STOP_DELAY = 2.0
"""Seconds that engine sets have to say goodbye after kill(controller=True)."""


class ControllerService:
    """Router, sessions and relays of one controller, in one loop.

    Args:
        log: called with each line for the log.
        on_engines: called with the number of registered engines whenever it changes.
        on_stop: called when a client ended the controller.
    """

    def __init__(
        self,
        loop: Loop,
        log: Callable[[str], None],
        *,
        interfaces: Sequence[Interface] = CLIENT_INTERFACES,
        on_engines: Callable[[int], None] = lambda count: None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        # Lines quote hosts and reasons as peers gave them: no forged lines, no control characters, no novels.
        self._log: Callable[[str], None] = lambda line: log(printable(line))
        self._on_engines = on_engines
        self._on_stop = on_stop
        self._interfaces = {interface.role: interface for interface in interfaces}
        tables = {"engine": CONTROLLER_RECEIVES["engine"]}
        tables.update({interface.role: interface.receives for interface in interfaces})
        # Engines outlive a controller, and their answers to the old one must not be taken for answers to this one.
        self.router = Router(secrets.randbits(60))
        self.sessions = Sessions(loop, tables, self._event, self._ended, self._log)
        self.transfers = Transfers()
        self._engines = 0
        self._stopping = False
        self.ended_by_client = False
        """Whether a client ended the engines that were there last."""
        self._started = time.time()
        self._requests: dict[type[m.Message], Callable[[Session, Any], Any]] = {
            m.GetIds: lambda session, message: self.router.registry.ids(),
            m.QueueStatus: lambda session, message: self.router.queue_status(message.targets),
            m.ClearQueue: lambda session, message: self.router.clear_queue(message.targets),
            m.Interrupt: lambda session, message: self.router.interrupt(message.targets),
            m.Kill: self._kill,
            m.ClusterInfo: lambda session, message: self.cluster_info(),
            m.AbortTask: lambda session, message: self.router.abort_task(session.key, message.task),
            m.TaskStatus: lambda session, message: self.router.scheduler.status(),
        }

    # --- events --------------------------------------------------------------------------------------------

    def _event(self, session: Session, event: Event) -> None:
        if isinstance(event, MessageReceived):
            self._message(session, event)
            self._loop.call_at_turn_end(self._flush)
        else:
            self.transfers.handle(session, event)

    def _message(self, session: Session, event: MessageReceived) -> None:
        message = event.message
        if isinstance(message, m.Goodbye):
            session.goodbye = True
            self._log(f"{session.role} {session.key} at {session.peer} leaves: {message.reason}")
        elif session.role == "engine":
            self._engine_message(session, event)
        else:
            self._client_message(session, event)

    def _engine_message(self, session: Session, event: MessageReceived) -> None:
        message = event.message
        router = self.router
        if isinstance(message, m.Result):
            router.result(session.key, message, event.body, event.stream, time.time())
        elif isinstance(message, m.Register):
            try:
                ids = router.register(session.key, message)
            except RemoteProtocolError as error:
                self.sessions.end(session, str(error))
                return
            for number, info in zip(ids, message.engines, strict=True):
                self._log(f"registered engine with id: {number} (rank {info.rank}, pid {info.pid} on {info.host})")
            self._count_engines()
        elif isinstance(message, m.RanksLost):
            for number in router.ranks_lost(session.key, message.ranks, message.reason):
                self._log(f"unregistered engine with id: {number} ({message.reason})")
            self._count_engines()

    def _client_message(self, session: Session, event: MessageReceived) -> None:
        message: Any = event.message
        try:
            if not self._interfaces[session.role].permits(message):
                raise SecurityError(
                    f"the {session.role!r} interface does not permit this {type(message).__name__}"
                )
            self._check_size(message, event.body)
            request = self._requests.get(type(message))
            if request is not None:
                answer = m.Reply(message.id, request(session, message))
                self._send(session.key, answer, ())
            elif isinstance(message, m.Command):
                self.router.command(session.key, message, event.body, event.stream)
            elif isinstance(message, m.BodyAgain):
                self.router.body_again(session.key, message, event.stream)
            elif isinstance(message, m.SubmitTask):
                self.router.submit_task(session.key, message, event.body, event.stream, time.time())
        except KernelError as error:
            self._send(session.key, refusal(message.id, error), ())
            if event.stream:
                session.connection.refuse(event.stream)
                session.wake()

    def _check_size(self, message: m.AnyMessage, body: Sequence[Buffer]) -> None:
        """Refuse what would not fit into a Dispatch, which also lists ranks."""
        if isinstance(message, m.Command | m.SubmitTask):
            size = len(message.operation) + size_of(body) + 5 * len(message.sizes) + len(message.label)
            room = limits.MESSAGE - _DISPATCH_ROOM - 5 * len(self.router.registry.engines)
            if size > room:
                raise MessageSizeError(
                    f"this command of {size} bytes is too large, {room} are possible: push large data first, "
                    "and use it by name"
                )

    def _kill(self, session: Session, message: m.Kill) -> list[int]:
        if message.controller and not self.router.registry.engines:
            ids: list[int] = []
        else:
            ids = self.router.kill(None if message.controller else message.targets)
        for number in ids:
            self._log(f"unregistered engine with id: {number} (ended by a client)")
        self.ended_by_client = bool(ids) and not self.router.registry.engines
        self._count_engines()
        if message.controller:
            self._log(f"client {session.key} at {session.peer} ends the controller")
            self.stop_soon()
        return ids

    def stop_soon(self) -> None:
        """Stop when all engine sets have said goodbye, or after a moment."""
        if not self._stopping:
            self._stopping = True
            self._loop.call_later(STOP_DELAY, self._on_stop)
            self._loop.call_soon(self._stop_if_alone)

    def _stop_if_alone(self) -> None:
        if self._stopping and not any(s.role == "engine" for s in self.sessions.by_key.values()):
            self._loop.call_later(0.05, self._on_stop)

    def stop_engines(self) -> None:
        """Tell all engines to end."""
        if self.router.registry.engines:
            self.router.kill(None, "the controller was stopped, and ends its engines")
        self._flush()

    def cluster_info(self) -> dict[str, Any]:
        """Who is there: plain data, the same for every client."""
        registry = self.router.registry
        engines = [
            {
                "id": engine.id, "rank": engine.rank, "host": engine.host, "pid": engine.pid,
                "set": engine.set_key, "mpi": registry.sets[engine.set_key].mpi,
                "python": registry.sets[engine.set_key].python,
            }
            for engine in (registry.engines[number] for number in registry.ids())
        ]  # fmt: skip
        clients = [s.role for s in self.sessions.by_key.values() if s.role != "engine"]
        return {"engines": engines, "clients": clients, "up": time.time() - self._started}

    def _ended(self, session: Session, reason: str) -> None:
        self._log(f"{session.role} {session.key} at {session.peer} is gone: {reason}")
        if session.role == "engine":
            for number in self.router.set_lost(session.key, reason):
                self._log(f"unregistered engine with id: {number} ({reason})")
            self._count_engines()
        else:
            self.router.client_lost(session.key)
        self.transfers.endpoint_lost(session)
        self._loop.call_at_turn_end(self._flush)
        self._stop_if_alone()

    def _count_engines(self) -> None:
        count = len(self.router.registry.engines)
        if count != self._engines:
            self._engines = count
            self._on_engines(count)

    # --- effects -------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        for effect in self.router.flush():
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self._send(effect.to, effect.message, effect.body)
        elif isinstance(effect, Forward):
            self._forward(effect)
        elif isinstance(effect, Decline):
            session = self.sessions.by_key.get(effect.source)
            if session is not None:
                session.connection.refuse(effect.stream)
                session.wake()

    def _send(self, key: int, message: m.AnyMessage, body: Sequence[Buffer]) -> None:
        session = self.sessions.by_key.get(key)
        if session is not None:
            try:
                session.connection.send(message, body)
            except LocalProtocolError as error:
                self._send_instead(session, message, error)
            session.wake()
            self._check_backlog(session)

    def _check_backlog(self, session: Session) -> None:
        """Part with a client that does not read its results: they would fill the memory."""
        waiting = session.connection.control_backlog
        if session.role != "engine" and waiting > limits.CLIENT_BACKLOG:
            reason = f"it does not read, and {waiting >> 20} MiB of results wait for it"
            self._loop.call_soon(lambda: self.sessions.end(session, reason))

    def _send_instead(self, session: Session, message: m.AnyMessage, error: LocalProtocolError) -> None:
        """An engine's answer fitted on its own link, and does not on the client's, where ids are longer."""
        self._log(f"not passed on to {session.role} {session.key}: {error}")
        text = f"the answer is too large to be passed on: {error}"
        if isinstance(message, m.Reply):
            session.connection.send(m.Refused(message.id, "MessageSizeError", text))
        elif isinstance(message, m.Result):
            session.connection.send(m.Undone(message.id, message.engines, "MessageSizeError", text))
        elif isinstance(message, m.TaskDone):
            session.connection.send(m.TaskUndone(message.id, "MessageSizeError", text))
        elif isinstance(message, m.Undone):
            short = printable(message.text)
            session.connection.send(m.Undone(message.id, message.engines, message.error, short))

    def _forward(self, effect: Forward) -> None:
        source = self.sessions.by_key.get(effect.source)
        sinks = []
        for key, message in effect.sinks:
            session = self.sessions.by_key.get(key)
            if session is not None:
                try:
                    sinks.append((session, session.connection.send_streamed(message, effect.size)))
                except LocalProtocolError as error:
                    self._send_instead(session, message, error)
                    session.wake()
        if source is None:
            for session, stream in sinks:
                session.connection.abort(stream)
                session.wake()
            return
        origin = (effect.source, effect.stream)
        self.transfers.start(source, effect.stream, sinks, lambda complete: self._forwarded(*origin))

    def _forwarded(self, source: int, stream: int) -> None:
        self.router.forward_ended(source, stream)
        self._loop.call_at_turn_end(self._flush)
