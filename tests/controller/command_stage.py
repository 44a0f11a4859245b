"""Clients that send commands, and engine sets that run them, for :mod:`tests.controller.network_stage`.

The sessions of clients, the books of sets, and all bodies that are streams are the real ones. Sets run what they
are given, and note it; :func:`check_commands` compares that with what clients have heard.
"""

from __future__ import annotations

import graphlib
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.session import Session
from ipmpi.client.session.submission import Submission
from ipmpi.controller.commands.resumed import NOT_KEPT
from ipmpi.engine.agent.commandbook import CommandBook
from ipmpi.protocol import messages as m, operations
from ipmpi.protocol.connection import Event, MessageReceived
from ipmpi.transport.bodyreceiver import BodyReceiver
from ipmpi.transport.privatememory import PrivateMemory
from ipmpi.transport.transfers import Transfers
from tests.controller.journal_stage import SimulatedSet

if TYPE_CHECKING:
    from tests.controller.network_stage import Line, NetworkStage

INLINE = 2_000
"""Bytes above which bodies are streams, see ``ipmpi.limits.INLINE_BODY``: few, so that there are many streams."""
LARGE = 3_000


class StageLoop:
    """Stands for the loop of a session's thread: what is posted is done in the session's next turn."""

    thread = -1

    def __init__(self) -> None:
        self.posted: deque[Callable[[], object]] = deque()

    def call_threadsafe(self, call: Callable[[], object], on_error: Any = None) -> None:
        del on_error
        self.posted.append(call)

    def call_later(self, delay: float, call: Callable[[], object], on_error: Any = None) -> None:
        del delay, call, on_error  # it looks whether memory is free: that of the stage may stay

    def report(self, error: BaseException) -> None:
        raise error


class StageLink:
    """Stands for the session's way to the controller: a line of the stage."""

    line: Line
    is_journalled = was_journalled = True

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    @property
    def connection(self) -> Any:
        return self.line.near

    def wake(self) -> None:
        pass


@dataclass(eq=False)
class Sent:
    """A command of a client, and what became of it."""

    name: str
    number: int
    engines: list[int]
    fails: bool
    is_large: bool
    """Its answers are streams."""
    future: Future[list[EngineReply]]
    since: int
    until: int = 0
    """The steps in which it was sent, and ended."""


class CommandClient:
    """A client of engines: its session is a real one, without a thread."""

    def __init__(self, stage: NetworkStage, line: Line) -> None:
        self.stage = stage
        self.key = 0
        address: Any = SimpleNamespace(role="mec", fingerprint=b"")
        self.session = Session(address)
        self.session._link.line = line  # type: ignore[attr-defined]
        self._loop: Any = self.session.loop
        self.sent: list[Sent] = []

    def send(
        self, name: str, engines: list[int], *, to_all: bool, argument: int, fails: bool, large: bool
    ) -> None:
        operation = operations.Execute(name, "large" if large else "", ["fails"] if fails else [])
        body = [told(name, argument)] if argument else []
        future = self.session.command(Submission(operation, None if to_all else engines, "execute", name, body))
        number = future.numbers[0]  # type: ignore[attr-defined]
        sent = Sent(name, number, engines, fails, large, future, self.stage.steps)
        future.add_done_callback(lambda _: setattr(sent, "until", self.stage.steps))
        self.sent.append(sent)

    @property
    def is_busy(self) -> bool:
        return bool(self._loop.posted) or not all(each.future.done() for each in self.sent[-300:])

    def turn(self) -> None:
        while self._loop.posted:
            self._loop.posted.popleft()()

    def event(self, event: Event) -> None:
        self.session._event(event)

    def goes_on(self) -> None:
        """The controller is another one."""
        self.session._started()


def told(text: str, size: int) -> bytes:
    """Return so many bytes that nothing else consists of."""
    return (text.encode() * (size // len(text) + 1))[:size]


@dataclass
class Rank:
    """Runs one command after the other."""

    runs: m.Dispatch | None = None
    ran: list[tuple[int, str]] = field(default_factory=list)
    """Clients, and names of commands."""
    received: deque[m.Dispatch] = field(default_factory=deque)


class CommandedSet(SimulatedSet):
    """A set that runs commands besides its tasks. Its root agent has a book."""

    def __init__(self, stage: NetworkStage, number: int, ranks: int) -> None:
        super().__init__(stage, ranks)
        self.number = number
        self.members = [Rank() for _ in range(ranks)]
        self.book = CommandBook()
        self.book.is_on = True
        self.ids: list[int] = []
        self._transfers = Transfers()

    # --- an endpoint of streams ------------------------------------------------------------------------------

    @property
    def connection(self) -> Any:
        return self.stage.lines[self].near  # type: ignore[attr-defined]

    def wake(self) -> None:
        pass

    # --- as the root agent -----------------------------------------------------------------------------------

    def welcomed(self, again: bool) -> None:
        if again:
            self._transfers.endpoint_lost(self)
            self.book.forget_controller(True, True)
        super().welcomed(again)
        for message, body in self.book.after_registration(range(self.ranks)):
            self._say(message, body)

    def event(self, event: Event) -> None:
        if not isinstance(event, MessageReceived):
            self._transfers.handle(self, event)
        elif isinstance(event.message, m.Registered):
            self.ids = list(event.message.ids)
        elif isinstance(event.message, m.Dispatch):
            self._dispatched(event.message, event)
        else:
            self.hear(event.message, event.body)

    def _dispatched(self, message: m.Dispatch, event: MessageReceived) -> None:
        self.book.given(message, event.stream)
        if not event.stream:
            self._given(message, event.body)
            return
        memory = PrivateMemory(message.sizes)
        body = BodyReceiver(
            message.sizes, memory, lambda whole: self._given(message, whole.segments()), lambda: None
        )
        self._transfers.start(
            self, event.stream, [(body, body)], lambda complete: self.book.arrived(event.stream, complete)
        )

    def _given(self, message: m.Dispatch, body: Sequence[Any]) -> None:
        name = _operation(message).source
        arrived = b"".join(bytes(part) for part in body)
        assert arrived == told(name, len(arrived)), f"the argument of {name} is another one"
        assert len(arrived) == sum(message.sizes), f"the argument of {name} is incomplete"
        for rank in message.ranks:
            assert self.members[rank].runs is None, f"{name} was given to a rank that runs another command"
            self.members[rank].runs = message

    # --- as its ranks ----------------------------------------------------------------------------------------

    def step(self) -> None:
        busy = [rank for rank, each in enumerate(self.members) if each.runs is not None]
        if busy and self.stage.random.random() < 0.6:
            self._answer(self.stage.random.choice(busy))
        else:
            super().step()

    def _answer(self, rank: int) -> None:
        message, self.members[rank].runs = self.members[rank].runs, None
        assert message is not None
        operation = _operation(message)
        self.members[rank].ran.append((message.client, operation.source))
        printed = m.Output(
            message.id, [m.OutputBlock(m.STDOUT, 0, [rank], f"{self.number}.{rank} {operation.source}\n".encode())]
        )
        self.book.printed(printed)
        self._say(printed)
        is_large = bool(operation.filename)
        body = told(f"{self.number}.{rank} {operation.source}", LARGE if is_large else 20)
        outcome = operations.encode(operations.Executed(1))
        result = m.Result(message.id, [rank], not operation.argv, outcome, [len(body)])
        self.book.answered(result, () if is_large else [body], is_kept=not is_large)
        self._say(result, [body])


def _operation(message: m.Dispatch) -> operations.Execute:
    operation = operations.decode_operation(message.operation)
    assert isinstance(operation, operations.Execute)
    return operation


# --- what must hold ----------------------------------------------------------------------------------------------


def check_commands(stage: NetworkStage) -> None:
    """Each command ends once, has run at most once on each engine, and in one order on all."""
    clients, sets = stage.commanding, stage.sets
    ran = {engine: each.members[rank].ran for each in sets for rank, engine in enumerate(each.ids)}
    names = {engine: f"{each.number}.{rank}" for each in sets for rank, engine in enumerate(each.ids)}
    order: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for engine, commands in ran.items():
        there = [name for _, name in commands]
        assert len(set(there)) == len(there), f"engine {engine} ran a command twice"
        for before, after in itertools.pairwise(there):
            order.add(after, before)
    order.prepare()  # raises CycleError if engines have seen two orders
    failed: dict[int, list[Sent]] = {}
    for each in (each for client in clients for each in client.sent if each.fails):
        for engine in each.engines:
            failed.setdefault(engine, []).append(each)
    for client in clients:
        for engine, commands in ran.items():
            mine = [int(name.split(".")[1]) for key, name in commands if key == client.key]
            assert mine == sorted(mine), f"engine {engine} ran commands of client {client.key} in another order"
        for sent in client.sent:
            _check_command(stage, client, sent, ran, names, failed)


def _check_command(
    stage: NetworkStage,
    client: CommandClient,
    sent: Sent,
    ran: dict[int, list[tuple[int, str]]],
    names: dict[int, str],
    failed: dict[int, list[Sent]],
) -> None:
    replies = sent.future.result(0)
    answered = sorted(reply.engine for reply in replies)
    assert answered == sent.engines, f"{sent.name} was answered by {answered}, not {sent.engines}"
    for reply in replies:
        where = f"{sent.name} on engine {reply.engine}"
        has_run = (client.key, sent.name) in ran[reply.engine]
        if reply.undone is None:
            assert has_run, f"{where} is said to have run"
            assert reply.ok != sent.fails, where
            text = f"{names[reply.engine]} {sent.name}"
            body = b"".join(bytes(part) for part in reply.body)
            assert body == told(text, LARGE if sent.is_large else 20), f"{where}: another answer"
            assert reply.printed.stdout == text + "\n", f"{where} has printed {reply.printed.stdout!r}"
        elif reply.undone[0] == "QueueCleared":
            assert not has_run, f"{where} is said not to have run"
            # Only by a command that had not ended when this one was sent, nor the other way round.
            others = [each for each in failed.get(reply.engine, []) if each is not sent]
            assert any(each.since <= sent.until and each.until >= sent.since for each in others), where
        else:
            # A large answer that was on its way when the controller was killed.
            assert reply.undone[0] == "ConnectionError", (where, reply.undone)
            assert NOT_KEPT in reply.undone[1], (where, reply.undone)
            assert has_run, where
            assert sent.is_large, where
            assert any(sent.since <= step <= sent.until for step in stage.killed), (where, reply.undone)
