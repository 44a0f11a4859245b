"""The controller of the network simulation: its real thinking parts, and what its service does with their effects.

Sessions are resumed, begun anew and ended as in ``ipmpi.controller.sessions``, and messages of engine sets go
where ``ipmpi.controller.service`` passes them, which do I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from ipmpi import limits
from ipmpi.controller.clientmessages import ClientMessages
from ipmpi.controller.comeback import ComeBack
from ipmpi.controller.commands.router import Router
from ipmpi.controller.deadlines import Deadlines
from ipmpi.controller.effects import Decline, Effect, Forward, GiveUp, Send
from ipmpi.controller.forwarding import Forwarding, send_whole
from ipmpi.controller.interfaces import CLIENT_INTERFACES
from ipmpi.controller.interruptions import Interruptions
from ipmpi.controller.lossnotices import Losses
from ipmpi.controller.onloss import SetFates
from ipmpi.controller.registry import Registry
from ipmpi.controller.restarts import SetRestarts
from ipmpi.journal.rows import SetRow
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Event, MessageReceived
from ipmpi.protocol.permissions import CONTROLLER_RECEIVES
from ipmpi.transport.transfers import Transfers
from tests.controller.journal_stage import JournalStage
from tests.controller.network_lines import CheckedStore, Known, Line, Violation
from tests.controller.stage_loop import StageLoop

INTERFACES = {interface.role: interface for interface in CLIENT_INTERFACES}


class ControllerStage(JournalStage):
    """One controller after the other, each with the journal of those before it.

    ``killed``: the steps in which one was killed. ``passed_on``: large results of which the connection of their
    client had all, by its key and the number of the task.
    """

    def __init__(self, seed: int) -> None:
        self.sessions: dict[bytes, Known] = {}
        self.by_key: dict[int, Known] = {}
        self.killed: list[int] = []
        self.passed_on: set[tuple[int, int, int]] = set()
        self._coming: dict[tuple[int, int], tuple[int, int, int]] = {}
        self.steps = 0
        self._is_due = False
        super().__init__(seed, 0, 0)

    def _start(self) -> None:
        if not isinstance(self.store, CheckedStore):
            self.store = CheckedStore(lambda: self.steps)
        self.sessions, self.by_key = {}, {}
        self._coming.clear()
        self.loop: Any = StageLoop()
        super()._start()
        look = lambda: setattr(self, "_is_due", True)  # noqa: E731
        losses = Losses(self.router, self.farm.blame, self.log.append, look)
        restarts = SetRestarts(self.router, self.farm, Deadlines(self.registry), self.log.append, look)
        self._losses, self._fates = losses, SetFates(self.router, losses, restarts, self.log.append)
        self._interruptions = Interruptions(self.loop, self.router, self._send)
        self._of_clients = self._new_client_messages()
        self._reports: dict[type[m.Message], Callable[[int, Any], Any]] = {
            m.Output: self.router.output,
            m.TasksReturned: self.farm.returned,
            m.TasksStarted: self.farm.blame.started,
            m.WantTaskBody: self.farm.bodies.want,
            m.TaskHolds: self.router.task_holds,
            m.TasksHeld: self.journal.held,
            m.RanksLost: self._ranks_lost,
        }
        self._is_due = True

    def _new_client_messages(self) -> ClientMessages:
        journal = self.journal

        def end(known: Any, reason: str) -> None:
            raise Violation(f"the {known.role} with key {known.key} is refused: {reason}")

        return ClientMessages(
            self.router, self.farm, journal, INTERFACES,
            {
                m.Reserve: lambda known, message: journal.reserve(known.key, message),
                m.Release: lambda known, message: journal.release(known.key, message),
                m.TaskHistory: lambda known, message: journal.named.history(known.key, message),
                m.ResumeTasks: lambda known, message: journal.named.resume(known.key, message),
            },
            # Who it is, for the history of commands, which is not here.
            {m.Interrupt: self._interruptions.begin, m.CommandOrigin: lambda _key, _message: None},
            check_use=lambda _key, _message: None, send=self._send, end=end, commanded=lambda: None,
        )  # fmt: skip

    def _start_commands(self) -> tuple[Registry, Any]:
        self.router = Router(self.random.getrandbits(40))
        self.comeback: Any = ComeBack(self.router.resumed, self._late, self._send, INTERFACES)  # type: ignore[arg-type]
        self._transfers = Transfers()
        stalled: Any = frozenset()
        by_key: Any = self.by_key
        self._forwarding = Forwarding(
            by_key, self._transfers, stalled, self.router, self._forwarded,
            lambda *kept: self.journal.named.large_kept(*kept), lambda *_: None, self.log.append,
        )  # fmt: skip
        return self.router.registry, self.comeback

    def _forwarded(self, source: int, stream: int, complete: bool) -> None:
        task = self._coming.pop((source, stream), None)
        if complete and task is not None:
            self.passed_on.add(task)
        self.farm.result_passed_on(source, stream, complete)
        self.router.forward_ended(source, stream, complete)
        self._is_due = True

    def _restore_session(self, key: int, token: bytes, role: str) -> None:
        self.sessions[token] = self.by_key[key] = Known(key, token, role, restored=True)

    def restart(self, *, with_a_stranger: bool) -> None:
        """Kill the controller, and start another; the journal may have a set that nobody has heard of."""
        self.kills += 1
        self.killed.append(self.steps)
        if with_a_stranger:
            self.store.contents.sets.append(SetRow(next(self._keys), self.random.randbytes(16)))
        self._start()

    # --- sessions --------------------------------------------------------------------------------------------

    def admit(self, line: Line) -> tuple[Known, int, bool]:
        """Answer a Hello: the session, how much of it has arrived, and whether it is resumed."""
        known = self.sessions.get(line.token) if line.token else None
        resumed = known is not None and not known.restored
        if known is None:
            if line.role != "engine" and line.token:
                raise Violation("the controller has forgotten the session of a client")
            is_back = line.role == "engine" and line.token in self.known_sets
            token = line.token if is_back else self.random.randbytes(16)
            known = Known(next(self._keys), token, line.role, line.token, restored=is_back)
            self.sessions[known.token] = self.by_key[known.key] = known
        elif resumed:
            known.connection.resume(line.hello)
        else:
            known.connection = type(known.connection)(CONTROLLER_RECEIVES[known.role])
        if not resumed:
            for source, stream in self.farm.large.to_client(known.key):
                self._forwarding.give_up(source, stream)
            self._transfers.endpoint_lost(known)
            self.journal.began(
                SimpleNamespace(
                    key=known.key, token=known.token, role=known.role, former=line.token, holder="", only=None
                )
            )
        known.line, known.ends_at = line, None
        line.up.clear()
        line.down.clear()
        self._is_due = True
        return known, known.connection.received, resumed

    def look_for_orphans(self, tokens: set[bytes]) -> None:
        """End sessions of which nobody comes back: whose peer is gone, or has not got its Welcome.

        ``tokens``: those that peers have, or are on their way to them.
        """
        for known in list(self.sessions.values()):
            if known.token in tokens:
                continue
            if known.ends_at is None:
                waits = self.random.choice([limits.LEASE_AFTER_CLOSE, self.random.uniform(0.0, 40.0)])
                known.ends_at = self.now + (0.0 if known.farewell else waits)
            elif self.now >= known.ends_at:
                self.end(known, "it did not come back", is_dead=self.random.random() < 0.5)

    def end(self, known: Known, reason: str, *, is_dead: bool = False) -> None:
        """A session has ended, as in ``ControllerService._ended``."""
        if self.by_key.pop(known.key, None) is None:
            return
        del self.sessions[known.token]
        if known.line is not None and known.line.far is known:
            known.line.far = None
        key, orderly = known.key, bool(known.farewell)
        if known.role == "engine":
            self.farm.set_lost(key, reason, blame=not orderly)
            self._fates.set_lost(key, reason, self.now, silent=is_dead, expected=orderly)
            self.journal.set_lost(key)
        else:
            self.journal.client_lost(key, orderly)
            self.router.client_lost(key)
        self.comeback.ended(known)
        self._transfers.endpoint_lost(known)
        self._is_due = True

    # --- messages --------------------------------------------------------------------------------------------

    def heard(self, known: Known, event: Event) -> None:
        """A session has said something."""
        known.restored = False
        self._is_due = True
        if not isinstance(event, MessageReceived):
            self._transfers.handle(known, event)
        elif isinstance(event.message, m.Goodbye):
            known.farewell = event.message.reason
        elif not self.comeback.takes(known, event):
            self._take(known, event)

    def _late(self, known: Any, event: MessageReceived) -> None:
        """Something that was held back."""
        if self.by_key.get(known.key) is known:
            self._take(known, event)

    def _take(self, known: Known, event: MessageReceived) -> None:
        if known.role == "engine":
            self._take_of_set(known, event)
        else:
            client: Any = known
            self._of_clients.heard(client, event)

    def _take_of_set(self, known: Known, event: MessageReceived) -> None:
        message, key = event.message, known.key
        if isinstance(message, m.Register):
            whole = known.registration.add(message)
            if whole is not None:
                ids = self.router.register(key, whole)
                self.journal.registered(key)
                self._fates.registered(key, ids)
        elif isinstance(message, m.TaskResults):
            self.journal.results(key, message, event.body)
        elif isinstance(message, m.Result):
            self.router.result(key, message, event.body, event.stream)
        elif isinstance(message, m.LargeTaskResult):
            self.farm.result(key, message, event.body, event.stream)
        elif isinstance(message, m.WantTasks):
            self.farm.want_tasks(key, message.window)
        else:
            self._reports[type(message)](key, message)

    def _ranks_lost(self, key: int, message: m.RanksLost) -> None:
        self.farm.ranks_lost(key, message.ranks, told=message.ordered, reason=message.reason)
        self._fates.ranks_lost(key, message, self.now, expected=message.ordered)

    # --- effects ---------------------------------------------------------------------------------------------

    def _send(self, key: int, message: m.AnyMessage, body: Sequence[Any] = ()) -> None:
        if key in self.by_key:
            send_whole(self.by_key[key].connection, message, [bytes(part) for part in body])

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self._send(effect.to, effect.message, effect.body)
        elif isinstance(effect, Forward):
            client, message = effect.sinks[0]
            if isinstance(message, m.TaskDone):
                self._coming[effect.source, effect.stream] = client, message.group, message.index
            self._forwarding.forward(effect)
        elif isinstance(effect, GiveUp):
            self._forwarding.give_up(effect.source, effect.stream)
        elif isinstance(effect, Decline) and effect.source in self.by_key:
            self.by_key[effect.source].connection.refuse(effect.stream)

    def flush(self) -> None:
        """The end of a turn of the controller."""
        self._is_due = False
        self.comeback.due(self.now)
        for think in (self._losses.flush, self.journal.flush, self.router.flush):
            for effect in think(self.now):
                self._perform(effect)
        self._interruptions.look()

    def time_passes(self) -> bool:
        """Make the calls that are due; return whether it is time for :meth:`flush`, although nobody has spoken."""
        self.loop.turn()
        deadlines = (
            self.journal.next_deadline(self.now),
            self.comeback.next_deadline(),
            self._losses.next_deadline(),
        )
        return any(each is not None and self.now >= each for each in deadlines)
