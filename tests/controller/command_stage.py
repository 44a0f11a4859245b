"""Clients that send commands, for :mod:`tests.controller.network_stage`, and what must hold of these commands.

What clients have heard is compared with what ranks have run.
"""

from __future__ import annotations

import graphlib
import itertools
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ipmpi.client.session.enginereply import EngineReply
from ipmpi.client.session.submission import Submission
from ipmpi.controller.commands.resumed import NOT_KEPT
from ipmpi.errors import ConnectionError, InvalidEngineID, NoEnginesRegistered
from ipmpi.ids import Ids
from ipmpi.protocol import messages as m, operations
from tests.controller.client_stage import StageClient
from tests.controller.rank_stage import LARGE, StageRank, told

if TYPE_CHECKING:
    from tests.controller.network_lines import Line
    from tests.controller.network_stage import NetworkStage


NEVER_BEGAN = operations.decode_outcome(operations.NEVER_BEGAN)


@dataclass(eq=False)
class Sent:
    """A command of a client, and what became of it."""

    name: str
    number: int
    engines: list[int]
    to_all: bool
    """It is for all engines that are there when it arrives."""
    fails: bool
    is_large: bool
    """Its answers are streams."""
    future: Future[list[EngineReply]]
    since: int
    until: int = 0
    """The steps in which it was sent, and ended."""


@dataclass(eq=False)
class Interrupted:
    """A request to interrupt engines: all commands (None), or these, by number."""

    engines: list[int]
    commands: list[int] | None
    since: int
    until: int = 0
    error: BaseException | None = None


class CommandClient(StageClient):
    """A client of engines."""

    def __init__(self, stage: NetworkStage, line: Line) -> None:
        super().__init__(stage, line)
        self.sent: list[Sent] = []
        self.interrupts: list[Interrupted] = []
        self.reserved: Counter[int] = Counter()
        """How often each engine is reserved."""
        self.refused: list[BaseException] = []
        """Why requests to reserve engines were refused."""
        self._asked: list[tuple[int, ...]] = []

    def send(
        self, name: str, engines: list[int], *, to_all: bool, argument: int, fails: bool, large: bool
    ) -> None:
        operation = operations.Execute(name, "large" if large else "", ["fails"] if fails else [])
        body = [told(name, argument)] if argument else []
        future = self.session.command(Submission(operation, None if to_all else engines, "execute", name, body))
        number = future.numbers[0]  # type: ignore[attr-defined]
        sent = Sent(name, number, engines, to_all, fails, large, future, self.stage.steps)
        future.add_done_callback(lambda _: setattr(sent, "until", self.stage.steps))
        self.sent.append(sent)

    @property
    def is_busy(self) -> bool:
        return super().is_busy or not all(each.future.done() for each in self.sent[-300:])

    # --- requests --------------------------------------------------------------------------------------------

    def interrupt(self, engines: list[int], commands: list[int] | None) -> None:
        request = Interrupted(engines, commands, self.stage.steps)
        self.interrupts.append(request)
        answer = self.session.request(lambda i: m.Interrupt(i, engines, commands))
        self.requests.append(answer)

        def answered(future: Future[Any]) -> None:
            request.until, request.error = self.stage.steps, future.exception()

        answer.add_done_callback(answered)

    def reserve(self, engines: list[int]) -> None:
        """Reserve engines, until :meth:`release`."""
        answer = self.session.request(lambda i: m.Reserve(i, engines))
        self.requests.append(answer)

        def answered(future: Future[Any]) -> None:
            error = future.exception()
            if error is None:
                there = tuple(Ids.unpacked(future.result()))
                self.reserved.update(there)
                self._asked.append(there)
            else:
                self.refused.append(error)

        answer.add_done_callback(answered)

    def release(self) -> None:
        """End one of its reservations."""
        if not self._asked:
            return
        there = self._asked.pop(self.stage.random.randrange(len(self._asked)))
        self.reserved.subtract(there)
        self.requests.append(self.session.request(lambda i: m.Release(i, list(there))))

    @property
    def has_reserved(self) -> bool:
        return bool(self._asked)


# --- what must hold ----------------------------------------------------------------------------------------------


def check_reserved(stage: NetworkStage) -> None:
    """Those engines are reserved that clients have reserved: the farm says so, and so do the agents."""
    if stage.has_forgotten:
        return
    wanted: Counter[int] = Counter()
    for client in stage.commanding:
        wanted.update({engine: n for engine, n in client.reserved.items() if n > 0})
    for each in stage.sets:
        if each.is_ending or each.key not in stage.farm._sets.by_key:
            continue
        there = {rank.rank for rank in each.living if wanted[rank.engine] > 0}
        known = stage.farm._sets.by_key[each.key]
        assert set(known.reserved) == there, f"set {each.number}: {set(known.reserved)} are reserved, not {there}"
        for number, state in each.agent._tasks._scheduler._rank_table.states.items():
            assert state.reserved == (number in there), f"rank {number} of set {each.number} has heard otherwise"


def check_commands(stage: NetworkStage) -> None:
    """Each command ends once, has run at most once on each engine, and in one order on all."""
    ranks = {rank.engine: rank for each in stage.all_sets for rank in each.ranks}
    order: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for engine, rank in ranks.items():
        assert len(set(rank.ran)) == len(rank.ran), f"engine {engine} ran a command twice"
        died = rank.home.died
        if died is not None and stage.has_killed(died, stage.steps):
            continue  # another controller cannot know the order in which it ran them
        for before, after in itertools.pairwise(rank.ran):
            order.add(after, before)
    order.prepare()  # raises CycleError if engines have seen two orders
    failed: dict[int, list[Sent]] = {}
    for each in (each for client in stage.all_commanding for each in client.sent):
        for engine in _failed_on(each, ranks):
            failed.setdefault(engine, []).append(each)
    for client in stage.all_commanding:
        _check_requests(client)
        for engine, rank in ranks.items():
            mine = [int(name.split(".")[1]) for name in rank.ran if name.startswith(f"c{client.key}.")]
            assert mine == sorted(mine), f"engine {engine} ran commands of client {client.key} in another order"
        for sent in client.sent if client.vanished is None else ():
            _check_command(stage, client, sent, ranks, failed)


def _check_requests(client: CommandClient) -> None:
    """Requests fail only if an engine was lost, or the controller was killed while they were under way."""
    assert all(isinstance(error, InvalidEngineID) for error in client.refused), client.refused
    for request in client.interrupts if client.vanished is None else ():
        if isinstance(request.error, ConnectionError):
            assert request.until in client.begun, request
        else:
            assert request.error is None or isinstance(request.error, InvalidEngineID), request


def _failed_on(sent: Sent, ranks: dict[int, StageRank]) -> list[int]:
    """Return the engines on which a command may have failed."""
    found = [engine for engine, rank in ranks.items() if sent.name in rank.interrupted]
    if sent.fails:
        found += [engine for engine, rank in ranks.items() if sent.name in rank.ran]
    if sent.future.done() and sent.future.exception() is None:
        found += [reply.engine for reply in sent.future.result() if _has_failed(reply)]
    return found


def _has_failed(reply: EngineReply) -> bool:
    """Return whether a command has failed, or was interrupted while its data was on its way to an engine."""
    if reply.undone is None:
        return not reply.ok
    return reply.undone[0] == "KeyboardInterrupt" and reply.undone[1].endswith("waited for its data")


def _check_command(
    stage: NetworkStage,
    client: CommandClient,
    sent: Sent,
    ranks: dict[int, StageRank],
    failed: dict[int, list[Sent]],
) -> None:
    error = sent.future.exception(0)
    if error is not None:  # it was for an engine that was lost
        assert isinstance(error, InvalidEngineID | NoEnginesRegistered), (sent.name, error)
        assert sent.to_all or any(ranks[engine].is_lost(0, sent.until) for engine in sent.engines), (
            sent.name,
            error,
        )
        assert not any(sent.name in rank.ran for rank in ranks.values()), f"{sent.name} was refused, and ran"
        return
    replies = sent.future.result(0)
    answered = sorted(reply.engine for reply in replies)
    if sent.to_all:
        lacks = [each for each in sent.engines if each not in answered and not ranks[each].is_lost(0, sent.until)]
        assert not lacks, f"{sent.name} was answered by {answered}, and not by {lacks}"
        assert len(set(answered)) == len(answered), f"{sent.name} was answered twice"
    else:
        assert answered == sent.engines, f"{sent.name} was answered by {answered}, not {sent.engines}"
    for reply in replies:
        _check_reply(stage, client, sent, reply, ranks[reply.engine], failed)


def _check_reply(
    stage: NetworkStage, client: CommandClient, sent: Sent, reply: EngineReply, rank: StageRank,
    failed: dict[int, list[Sent]],
) -> None:  # fmt: skip
    where = f"{sent.name} on engine {reply.engine}, steps {sent.since} to {sent.until}: {reply.undone}"
    outcome = reply.outcome
    never_began = isinstance(outcome, operations.Failed) and outcome == NEVER_BEGAN
    has_run, was_interrupted = sent.name in rank.ran, sent.name in rank.interrupted or never_began
    if was_interrupted:
        assert _wants_interrupt(client, sent, rank, stage), where
    if reply.undone is None:
        assert reply.ok == (not sent.fails and not was_interrupted), where
        assert has_run != never_began or sent.name in rank.interrupted, f"{where} is said to have run: {outcome}"
        if not was_interrupted:
            text = f"{rank.engine} {sent.name}"
            body = b"".join(bytes(part) for part in reply.body)
            assert body == told(text, LARGE if sent.is_large else 20), f"{where}: another answer"
            assert reply.printed.stdout == text + "\n", f"{where} has printed {reply.printed.stdout!r}"
        return
    kind, text = reply.undone
    if kind == "EngineLost":
        # A set that could not be written does not come back to the next controller.
        assert rank.is_lost(0, sent.until) or (sent.to_all and stage.has_forgotten), where
    elif kind == "KeyboardInterrupt":
        assert not has_run, f"{where} is said not to have run"
        assert _wants_interrupt(client, sent, rank, stage), where
    elif kind == "QueueCleared":
        assert not has_run, f"{where} is said not to have run"
        # Only by a command that had not ended when this one was sent, nor the other way round.
        others = [each for each in failed.get(reply.engine, []) if each is not sent]
        assert (
            any(each.since <= sent.until and (each.until or stage.steps) >= sent.since for each in others)
            or any(
                request.commands is None and rank.engine in request.engines for request in _requests(stage, sent)
            )
            or (sent.to_all and rank.engine not in sent.engines)
        ), where  # it came after the command was sent
    else:
        # A large answer that was on its way when the controller was killed.
        assert kind == "ConnectionError", where
        assert NOT_KEPT in text, where
        assert has_run, where
        assert sent.is_large, where
        assert stage.has_killed(sent.since, sent.until), where


def _requests(stage: NetworkStage, sent: Sent) -> list[Interrupted]:
    """Return the requests to interrupt something that were under way when this command was."""
    every = [request for client in stage.all_commanding for request in client.interrupts]
    return [each for each in every if each.since <= sent.until]


def _wants_interrupt(client: CommandClient, sent: Sent, rank: StageRank, stage: NetworkStage) -> bool:
    """Return whether somebody has asked to interrupt this command there."""
    return any(
        rank.engine in request.engines
        and (request.commands is None or (request in client.interrupts and sent.number in request.commands))
        and (request.until >= sent.since or not request.until)
        for request in _requests(stage, sent)
    )
