"""The running controller: connects the links with the router and the farm.

Every event of a link becomes a call of the router, which has the commands, or of the farm, which has the tasks; at
the end of the loop's iteration their effects are carried out. Bodies are relayed chunk by chunk, and never
unpickled: the controller does not import pickle.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..errors import LocalProtocolError, RemoteProtocolError
from ..ids import NONE, Ids
from ..protocol import messages as m
from ..protocol.connection import Event, MessageReceived
from ..protocol.frames import Buffer
from ..protocol.handshake import printable
from ..protocol.permissions import CONTROLLER_RECEIVES
from ..transport.loop import Loop
from ..transport.timedpool import TimedPool
from ..transport.transfers import Transfers
from .bounds import is_observer
from .clienthistory import ClientHistory
from .clientmessages import ClientMessages
from .comeback import ComeBack
from .commands.router import Router
from .deadlines import Deadlines
from .describe import cluster_described, described
from .effects import Announce, Decline, Effect, Forward, GiveUp, Send, concerned
from .engineslog import came, gone
from .entry import Entry
from .farm.farm import Farm
from .farm.order import Order
from .flushtimer import FlushTimer
from .forwarding import Forwarding, send_whole
from .inquiries import Inquiries
from .interfaces import CLIENT_INTERFACES, Interface
from .interruptions import Interruptions
from .journalstore import Store
from .lanes import BulkLanes
from .lossnotices import Losses
from .namedtasks import USUAL, Keep
from .nojournal import NoJournal
from .onloss import SetFates
from .restarts import SetRestarts
from .roll import Roll
from .sessions import PeerSession, Sessions
from .stalled import Stalled
from .substitutes import send_instead
from .taskjournal import TaskJournal
from .watches import Watches

_FLUSH_AGAIN = 0.1
"""Seconds until effects are collected again after an error."""
STOP_DELAY = 2.0
"""Seconds that engine sets have to say goodbye after kill(controller=True)."""
_OF_COMMANDS = (m.Command, m.Result, m.Output)
"""Messages that change nothing but the queues and the history: most there are, and nothing else need be asked."""


class ControllerService:
    """Router, farm, sessions and relays of one controller, in one loop.

    Args:
        order: the order in which tasks are given to engines.
        keep: what is kept of named tasks and of those of clients that are gone.
        store: the journal, if there is one; restore what it holds next (:mod:`ipmpi.controller.restoring`).
        log: called with each line for the log.
        on_engines: called with the number of registered engines whenever it changes.
        on_stop: called when a client ended the controller.
    """

    ended_by_client = False
    """Whether the last engines were ended by a client."""

    def __init__(
        self,
        loop: Loop,
        log: Callable[[str], None],
        *,
        interfaces: Sequence[Interface] = CLIENT_INTERFACES,
        order: Order | None = None,
        store: Store | None = None,
        keep: Keep = USUAL,
        on_engines: Callable[[int], None] = lambda count: None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        # Lines quote peers' texts: without control characters, and of limited length.
        self._log: Callable[[str], None] = lambda line: log(printable(line))
        self._on_engines, self._on_stop = on_engines, on_stop
        self._interfaces = {interface.role: interface for interface in interfaces}
        tables = {"engine": CONTROLLER_RECEIVES["engine"]}
        tables.update({interface.role: interface.receives for interface in interfaces})
        # Engines outlive a controller; their replies to the old one must not be taken for replies to this one.
        self.router = Router(secrets.randbits(60))
        farm = self.farm = Farm(self.router.registry, secrets.randbits(60), order)
        self.journal = NoJournal(farm, keep) if store is None else TaskJournal(farm, store, self._log, keep)
        self.comeback = ComeBack(self.router.resumed, self._late, self._send, self._interfaces)
        flush_soon = partial(loop.call_at_turn_end, self._flush, self._not_flushed)
        self.losses = Losses(self.router, self.farm.blame, self._log, flush_soon)
        self.deadlines, self._roll = Deadlines(self.router.registry), Roll(self.router.registry)
        self._timer = FlushTimer(loop, self._flush, self._not_flushed)
        self.sessions = Sessions(loop, tables, self._begun, self._event, self._ended, self._has_work, self._log)
        self.sessions.journalled = self.journal.is_on
        self.transfers = Transfers(TimedPool(loop))
        by_key = self.sessions.by_key
        self.history = ClientHistory(loop, self.router, by_key, self._log)
        self.stalled = Stalled(loop, self.router, self.farm, by_key, self._log, flush_soon)
        self.interruptions = Interruptions(loop, self.router, self._send)
        self.inquiries = Inquiries(loop, self.router.registry, self._send)
        self.lanes = BulkLanes(loop, by_key, self._send, self._interfaces, self._log)
        kept = self.journal.named.large_kept
        self._forwarding = Forwarding(
            by_key, self.transfers, self.stalled, self.router, self._forwarded, kept, self.lanes.began, self._log
        )
        self._restarts = SetRestarts(self.router, self.farm, self.deadlines, self._log, self._engines_ended)
        self.fates = SetFates(self.router, self.losses, self._restarts, self._announce)
        self._engines, self._stopping, self._started = 0, False, time.time()
        self._requests = self._answers()
        self._reports = self._from_sets()
        self._watches = Watches(loop, self.router.registry, by_key, self._send, self._requests, self._reports)
        self.entry = Entry(
            loop, self.sessions, self.router.registry, self._registered, self._announce, self._requests, self._log,
            self.journal.named,
        )  # fmt: skip
        self._of_clients = ClientMessages(
            self.router, farm, self.journal, self._interfaces, self._requests, self._from_clients(),
            check_use=self.entry.check_use, send=self._send, end=self.sessions.end,
            commanded=lambda: loop.call_at_turn_end(self.stalled.look_for_silent_senders),
        )  # fmt: skip

    def _from_clients(self) -> dict[type[m.Message], Callable[[int, Any], object]]:
        return {
            m.Interrupt: self.interruptions.begin,
            m.AskAgents: self.inquiries.begin,
            **dict.fromkeys((m.CommandOrigin, m.FollowCommand, m.CommandHistory), self.history.told),
        }

    def _from_sets(self) -> dict[type[m.Message], Callable[[int, Any], object]]:
        return {
            m.JobEnds: self._job_ends,
            m.WantTasks: lambda key, message: self.farm.want_tasks(key, message.window),
            m.PropertiesChanged: lambda key, message: self.farm.properties_changed(key, message.ranks),
            m.Output: self.router.output,
            **self.router.debuggers.reports,
            m.Findings: self.inquiries.found,
            m.RunBeforeEnd: self.router.own.before_end,
            m.AnswerStuck: self.stalled.stuck,
            m.TasksReturned: self.farm.returned,
            m.TasksStarted: self.farm.blame.started,
            m.WantTaskBody: self.farm.bodies.want,
            m.TaskHolds: self.router.task_holds,
            m.TasksHeld: self.journal.held,
        }

    def _answers(self) -> dict[type[m.Message], Callable[[PeerSession, Any], Any]]:
        return {
            m.GetIds: lambda session, message: self.entry.seen(session.key, self._ids()),
            m.QueueStatus: lambda s, asked: self.stalled.queue_status(self.entry.targets(s.key, asked.targets)),
            m.ClearQueue: lambda session, message: self.router.clear_queue(message.targets),
            m.Kill: self._kill,
            m.Restart: lambda session, message: self._restarts.restart(session.key, message.targets),
            m.OnLoss: lambda session, message: self.fates.choose(message),
            m.RestoreAfterLoss: lambda session, message: self.fates.remember(message),
            m.ClusterInfo: lambda s, message: self.cluster_info(message.after, self.entry.only(s.key)),
            m.TaskStatus: lambda session, message: self.farm.status(session.key),
            m.Recheck: lambda session, message: self.farm.recheck(session.key),
            m.Reserve: lambda session, message: self.journal.reserve(session.key, message),
            m.Release: lambda session, message: self.journal.release(session.key, message),
            m.TaskHistory: lambda session, message: self.journal.named.history(session.key, message),
            m.ResumeTasks: lambda session, message: self.journal.named.resume(session.key, message),
            m.ForgetTasks: lambda session, message: self.journal.named.forget(session.key, message),
        }

    # --- events --------------------------------------------------------------------------------------------

    def _event(self, session: PeerSession, event: Event) -> None:
        if isinstance(event, MessageReceived):
            flush = self._flush_commands if type(event.message) in _OF_COMMANDS else self._flush
            self._loop.call_at_turn_end(flush, self._not_flushed)
            self._message(session, event)
        else:
            self.transfers.handle(session, event)

    def _message(self, session: PeerSession, event: MessageReceived) -> None:
        message = event.message
        if isinstance(message, m.Goodbye):
            session.farewell = message.reason or "it gave no reason"
            session.fault = message.fault
        elif self.lanes.heard(session, event):
            pass
        elif self.comeback.takes(session, event):
            self._loop.call_at_turn_end(self._flush, self._not_flushed)
        elif session.role == "engine":
            self._engine_message(session, event)
        else:
            self._of_clients.heard(session, event)

    def _late(self, session: PeerSession, event: MessageReceived) -> None:
        """Handle a message that was held back, if its sender is still there."""
        if self.sessions.by_key.get(session.key) is session:
            try:
                self._message(session, event)
            except Exception as error:
                self.sessions.broken(session, error)

    def _engine_message(self, session: PeerSession, event: MessageReceived) -> None:
        try:
            if isinstance(event.message, m.Register):
                self._register(session, event.message)
            elif isinstance(event.message, m.RanksLost):
                self._ranks_lost(session, event.message)
            else:
                self._answer(session.key, event)
        except RemoteProtocolError as error:
            self.sessions.end(session, str(error))

    def _register(self, session: PeerSession, part: m.Register) -> None:
        message = session.registration.add(part)
        if message is not None:
            self.entry.register(session, message)

    def _registered(self, session: PeerSession, message: m.Register) -> Ids:
        ids = self.router.register(session.key, message)
        self._loop.call_at_turn_end(self._flush, self._not_flushed)  # it may have waited to be let in
        if not message.program:  # ranks that have a loop of their own get no tasks
            self.journal.registered(session.key)
        self.fates.registered(session.key, ids)
        for line in came(self.router.registry.sets[session.key]):
            self._log(line)
        self._count_engines()
        return ids

    def _ranks_lost(self, session: PeerSession, message: m.RanksLost) -> None:
        key, over = session.key, self.deadlines.is_over(session.key, self._loop.now())
        self.farm.ranks_lost(key, message.ranks, ordered=over, told=message.ordered, reason=message.reason)
        self.fates.ranks_lost(key, message, self._loop.now(), expected=over or message.ordered)
        self._count_engines()

    def _job_ends(self, key: int, message: m.JobEnds) -> None:
        now = self._loop.now()
        ends_at = self.deadlines.told(key, message, now)
        self.farm.job_ends(key, ends_at)
        self.entry.job_ends(key, message.seconds)
        if ends_at is not None:
            self._log(f"the job of engine set {key} ends in {ends_at - now:.0f} s")

    def _answer(self, key: int, event: MessageReceived) -> None:
        """Handle a set's message about its commands and tasks."""
        message, farm = event.message, self.farm
        if isinstance(message, m.TaskResults):
            self.journal.results(key, message, event.body)
        elif isinstance(message, m.Result):
            self.router.result(key, message, event.body, event.stream)
        elif isinstance(message, m.LargeTaskResult):
            farm.result(key, message, event.body, event.stream)
        else:
            self._reports[type(message)](key, message)

    def _kill(self, session: PeerSession, message: m.Kill) -> Ids:
        nobody, targets = not self.router.registry.engines, None if message.controller else message.targets
        ids = NONE if message.controller and nobody else self._end_engines(targets, "it was ended by kill()")
        for line in gone(ids, "ended by a client"):
            self._log(line)
        self.ended_by_client = bool(ids) and not self.router.registry.engines
        self._count_engines()
        if message.controller:
            self._log(f"client {session.key} at {session.peer} ends the controller")
            self.stop_soon()
        return ids

    def _end_engines(self, targets: Sequence[int] | None, reason: str) -> Ids:
        registry = self.router.registry
        by_set = registry.by_set(registry.resolve(targets))
        for key, ranks in by_set.items():
            self.farm.ranks_lost(key, ranks, ordered=True)
        return self.router.kill(targets, reason)

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
            self._end_engines(None, "the controller was stopped, and ends its engines")
        self._flush()

    @property
    def tasks(self) -> int:
        """How many tasks wait, or are with engine sets."""
        return self.farm.unfinished

    def cluster_info(self, after: int = -1, only: frozenset[int] | None = None) -> dict[str, Any]:
        """Return a description of the cluster, the same for every client."""
        engines = described(self.router.registry, self.deadlines, after, self._loop.now(), only)
        return cluster_described(*engines, [each.role for each in self.sessions.by_key.values()], self._started)

    def _ended(self, session: PeerSession, reason: str) -> None:
        self._log(f"{session.role} {session.key} at {session.peer} is gone: {reason}")
        self._loop.call_at_turn_end(self._flush, self._not_flushed)
        key = session.key
        if session.role == "engine":
            # A peer that says goodbye was told to end: by a signal, or with its allocation.
            now = self._loop.now()
            blame = (not session.farewell or session.fault) and not self.deadlines.is_over(key, now)
            self._do_all(
                lambda: self.farm.set_lost(key, reason, blame=blame),
                lambda: self.fates.set_lost(key, reason, now, silent=session.is_dead, expected=not blame),
                lambda: self.deadlines.forget(key),
                self._count_engines,
                lambda: self.journal.set_lost(key),
            )
        else:
            orderly = self._stopping or bool(session.farewell and not session.fault)
            heard = self.history.wall(session.heard_at)
            lost = (lambda: self.router.client_lost(key, heard), partial(self._watches.client_lost, key))
            self._do_all(lambda: self.journal.client_lost(key, orderly), *lost)
        self._do_all(lambda: self.entry.left(key), lambda: self.comeback.ended(session))
        self._do_all(lambda: self.transfers.endpoint_lost(session), lambda: self.lanes.session_ended(key))
        self._do_all(self._stop_if_alone)

    def _do_all(self, *steps: Callable[[], object]) -> None:
        """Make all these calls, even if one fails, so that all resources are freed."""
        for step in steps:
            try:
                step()
            except Exception as error:
                self._loop.report(error)

    def _has_work(self, session: PeerSession) -> bool:
        """Return whether work would be lost with a session."""
        if session.role == "engine":
            return self.router.has_work(session.key) or self.farm.has_work(session.key)
        return not is_observer(self._interfaces[session.role].receives)

    def _begun(self, session: PeerSession) -> None:
        self.journal.began(session)
        # Of a connection before, if the session is from a journal: what its client has not got runs again.
        for source, stream in self.farm.large.to_client(session.key):
            self._forwarding.give_up(source, stream)
        self.transfers.endpoint_lost(session)
        self.lanes.session_ended(session.key)
        if session.role != "engine":
            self.history.began(session)
            self.farm.limit_to(session.key, session.only)
            session.connection.send(self.entry.changes(session.key, self._roll.whole()))

    def _tell_engines(self) -> None:
        if (news := self._roll.news()) is not None:
            for session in [each for each in self.sessions.by_key.values() if each.role != "engine"]:
                self._send(session.key, self.entry.changes(session.key, news), ())

    def _ids(self) -> Ids:
        self._tell_engines()  # a reply must not have engines that were not announced
        return self.router.registry.ids()

    def _engines_ended(self) -> None:
        self._tell_engines()
        self._count_engines()

    def _count_engines(self) -> None:
        self._loop.call_at_turn_end(self._tell_engines)
        count = len(self.router.registry.engines)
        if count != self._engines:
            self._engines = count
            self._on_engines(count)

    # --- effects -------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        now = self._loop.now()
        self.comeback.due(now)
        for think in (self.deadlines.due, self.losses.flush, self.journal.flush):
            self._perform_all(think, now)
        self._flush_commands()
        parts = (self.deadlines, self.losses, self.comeback)
        for deadline in (self.journal.next_deadline(now), *(part.next_deadline() for part in parts)):
            self._timer.set(deadline)

    def _flush_commands(self) -> None:
        self._perform_all(self.history.flush, self._loop.now())
        self.interruptions.look()

    def _perform_all(self, think: Callable[[float], Sequence[Effect]], now: float) -> None:
        try:
            for effect in think(now):
                try:
                    self._perform(effect)
                except Exception as error:
                    self._not_performed(effect, error)
        except Exception as error:
            self._not_flushed(error)

    def _not_flushed(self, error: BaseException) -> None:
        """Collecting effects has failed: try again soon."""
        self._loop.report(error)
        self._timer.set(self._loop.now() + _FLUSH_AGAIN)

    def _not_performed(self, effect: Effect, error: BaseException) -> None:
        """An effect has failed: end the session that it was for, whose peer would wait in vain."""
        sessions = [self.sessions.by_key[key] for key in concerned(effect) if key in self.sessions.by_key]
        for session in sessions:
            self.sessions.broken(session, error)
        if not sessions:
            self._loop.report(error)

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self._send(effect.to, effect.message, effect.body)
        elif isinstance(effect, Forward):
            self._forwarding.forward(effect)
        elif isinstance(effect, GiveUp):
            self._forwarding.give_up(effect.source, effect.stream)
        elif isinstance(effect, Announce):
            self._announce(effect.text)
        elif isinstance(effect, Decline) and (session := self.sessions.by_key.get(effect.source)) is not None:
            session.refuse(effect.stream)

    def _send(self, key: int, message: m.AnyMessage, body: Sequence[Buffer] = ()) -> None:
        if (session := self.sessions.by_key.get(key)) is not None:
            try:
                send_whole(session.connection, message, body)
            except LocalProtocolError as error:
                send_instead(session.connection, f"{session.role} {session.key}", message, error, self._log)
            session.wake()
            self._check_backlog(session)

    def _announce(self, text: str) -> None:
        notice = m.Notice(printable(text))
        self._log(notice.text)
        for session in [s for s in self.sessions.by_key.values() if s.role != "engine"]:
            self._send(session.key, notice, ())

    def _check_backlog(self, session: PeerSession) -> None:
        """End the session of a client that does not read its results, which would fill the memory."""
        waiting = session.connection.control_backlog
        if waiting > session.bounds.backlog:
            reason = f"it does not read, and {waiting >> 20} MiB of results wait for it"
            self._loop.call_soon(
                lambda: self.sessions.end(session, reason), lambda error: self.sessions.broken(session, error)
            )

    def _forwarded(self, source: int, stream: int, complete: bool) -> None:
        self.farm.result_passed_on(source, stream, complete)
        self.router.forward_ended(source, stream, complete)
        self._loop.call_at_turn_end(self._flush, self._not_flushed)
