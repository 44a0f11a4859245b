"""The agent of one node of an engine set: all communication of its ranks.

It is a separate process, so it works while ranks are blocked, and survives their deaths. The link to the agent
above leads to another node; for the root agent it is the set's TLS link to the controller. Commands come from
above with a list of ranks, and are passed on to ranks of this node and to the agents below; equal replies are
merged on the way up.

If the link to the agent above is lost, this node ends at once: no process may stay behind in an allocation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import KernelError, internal_error
from ...ids import Ids, IdSet
from ...protocol import messages as m, rankmessages as rm
from ...protocol.connection import Connection, Event, MessageReceived
from ...protocol.frames import Buffer
from ...protocol.permissions import FROM_BELOW
from ...protocol.registration import parts
from ...ranges import ranks_named
from ...transport.loop import Loop
from ...transport.pipes import Pipe
from ...transport.timedpool import TimedPool
from ...transport.transfers import Endpoint, Transfers
from ...username import user_name
from .commandbook import CommandBook
from .controllerfaults import ControllerFaults
from .deathcertificate import Thinning
from .debuggers import Debuggers
from .deliveries import Deliveries, for_rank, for_ranks
from .inquiries import Inquiries
from .largestreams import LargeAnswer
from .leaving import Leaving
from .localrank import LocalRank, RankCommand
from .peeragent import PeerAgent
from .setend import SetEnd
from .setoutput import SetOutput
from .settasks import SetTasks
from .shared import SharedMemory
from .upward import Upward


class Agent:
    """Routes commands down and replies up.

    Args:
        host: the name of this node.
        mpi: description of the set's MPI, for the controller.
        expected: how many agents are right below.
        log: called with lines for the log.
        on_stop: called once, when this node is to end, with the reason and whether the agent above is lost.
        joined: whether the ranks share a communicator.
        leaders: for each rank, the lowest rank on its node.

    Attributes:
        local: the ranks of this node that have registered, by rank.
        children: the agents below.
        above: the session with the controller, or the link to the agent above.
        has_failed: whether this node ends because of an error in its agent.
        is_dismissed: whether a client or the controller has ended the whole set.
        ends_at_once: whether the controller has said so, for a restart unless it ``is_dismissed``.
        launch, program, on_loss: see :class:`~ipmpi.protocol.messages.Register`.
    """

    def __init__(
        self, loop: Loop, host: str, mpi: str, python: str, expected: int, log: Callable[[str], None],
        on_stop: Callable[[str, bool], None], *, joined: bool = False, leaders: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.loop, self.host, self._joined = loop, host, joined
        self._mpi, self._python = mpi, python
        self._expected = expected
        self._log = log
        self._on_stop = on_stop
        self.above: Endpoint | None = None
        self._ids: dict[int, int] = {}
        self._offered: list[m.EngineInfo] = []
        self._ended: set[int] = set()  # ranks whose engine was ended, and whose process stays until the set ends
        self.local: dict[int, LocalRank] = {}
        self.children: list[PeerAgent] = []
        self._numbers = itertools.count(1)  # of commands to ranks of this node
        self._book = CommandBook()
        self.output = SetOutput(loop, self.send_up)
        self._inquiries = Inquiries(self)
        self.debuggers = Debuggers(self)
        self._thinning = Thinning()
        self._answers = Upward(loop, self._answer)
        self.transfers = Transfers(TimedPool(loop))
        self._deliveries = Deliveries(host, self.transfers.pool, self._run_shared, self._not_run)
        self._too_late = self._stopped = False
        self._faults = ControllerFaults(loop.now, log)
        self.has_failed = self.is_dismissed = self.ends_at_once = False
        self.launch, self.program, self.on_loss = "", "", "shrink"
        self._tasks = SetTasks(self, joined, leaders, mpi)
        self._leaving = Leaving(self, joined, self._tasks)
        self._orders: dict[type[m.Message], Callable[[Any], object]] = {
            m.Inquiry: self._inquiries.asked, **self.debuggers.orders, m.StopRanks: self._stop_ranks,
            m.LeaveCommand: self._leaving.heard, m.CommandWithdrawn: self._leaving.heard,
            m.EndSet: self._end_set, m.Registered: self._registered,
        }  # fmt: skip
        self._reports: dict[type[m.Message], Callable[[Any], object]] = {
            m.Output: self.output.from_below, **self.debuggers.reports,
            m.AnswerStuck: self.send_up, m.Findings: self._inquiries.from_below,
        }  # fmt: skip
        self.end = SetEnd(self, self._tasks.job_ends, log)
        self.on_complete: Callable[[], None] = lambda: None
        """Called when all agents below have reported."""
        self.on_ids: Callable[[Mapping[int, int]], None] = lambda ids: None
        """Called with the ids of all ranks of this node and those below, when they are known."""

    # --- building the set ----------------------------------------------------------------------------------

    def add_rank(self, local: LocalRank) -> None:
        """A rank of this node has registered."""
        local.join(self, self._tasks)
        self.local[local.rank] = local

    def add_peer(self, pipe: Pipe) -> PeerAgent:
        """An agent below has connected."""
        peer = PeerAgent(pipe, Connection(FROM_BELOW, resumable=False))

        def event(happened: Event) -> None:
            self._from_below(peer, happened)

        def closed(reason: str, orderly: bool, error: KernelError | None) -> None:
            if error is not None:
                reason = str(error)
            self._peer_lost(peer, peer.silent_end("" if orderly else reason))

        peer.start(self.loop, event, closed)
        self.children.append(peer)
        return peer

    @property
    def is_complete(self) -> bool:
        """Return whether all agents below have reported their ranks."""
        return sum(1 for peer in self.children if peer.engines) >= self._expected

    def wait_no_longer(self) -> None:
        """Continue without the agents below that have not reported; a late one is told to end."""
        if not self.is_complete:
            there = sum(1 for peer in self.children if peer.engines)
            self._log(
                f"{self._expected - there} of {self._expected} nodes have not reported; continuing without them"
            )
            self._expected = there
            self._too_late = True
            self.on_complete()

    @property
    def engines(self) -> list[m.EngineInfo]:
        """Return the ranks of this node and those below, by rank."""
        own = [local.info for local in self.local.values()]
        found = [*own, *(engine for peer in self.children for engine in peer.engines)]
        return sorted(found, key=lambda engine: engine.rank)

    def ask_for(self, ids: Mapping[int, int]) -> None:
        """Request these engine ids, by rank."""
        self._ids.update(ids)

    def register(self) -> None:
        """Report the ranks to the agent or controller above, with their former ids if they had some."""
        self._offered = self._alive
        ids = [self._ids[engine.rank] for engine in self._offered if engine.rank in self._ids]
        offer = m.Register(
            self._offered, self._mpi, self._python, ids,
            launch=self.launch, on_loss=self.on_loss, program=self.program, user=user_name(),
        )  # fmt: skip
        for part in parts(offer):
            self.send_up(part)
        if self.is_root:
            ranks = [engine.rank for engine in self._offered]
            self._tasks.registered(ranks)
            for told in self._book.after_registration(ranks):
                self._send_above(*told)
            self._leaving.registered(self._offered)
            self.end.registered()

    @property
    def _alive(self) -> list[m.EngineInfo]:
        return [engine for engine in self.engines if engine.rank not in self._ended]

    @property
    def is_root(self) -> bool:
        """Whether this agent has the link to the controller."""
        return not isinstance(self.above, PeerAgent)

    def forget_controller(self, had_journal: bool = False, has_journal: bool = False) -> None:
        """The controller was restarted: incomplete bodies from the old one will not be completed."""
        # First: what is said of these bodies now answers no command, as another controller sends them again.
        self._book.forget_controller(had_journal, has_journal)
        if self.above is not None:
            self.transfers.endpoint_lost(self.above)
        self._tasks.forget_controller(had_journal, has_journal)
        self.debuggers.nobody_is_there()

    def send_up(self, message: m.AnyMessage, body: Sequence[Buffer] = ()) -> None:
        """Send to the agent or controller above."""
        if isinstance(message, m.Result):
            self._book.answered(message, body)
        elif isinstance(message, m.Output):
            self._book.printed(message)
        self._send_above(message, body)

    def _send_above(self, message: m.AnyMessage, body: Sequence[Buffer] = ()) -> None:
        if self.above is not None:
            self.above.connection.send(message, body)
            self.above.wake()

    def _answer(self, message: m.Result, body: Sequence[Buffer] = ()) -> None:
        """Send an answer up, after what its ranks have printed."""
        self.output.flush(message.id)
        self.send_up(message, body)

    # --- from above ----------------------------------------------------------------------------------------

    def from_above(self, event: Event) -> None:
        """Handle an event of the link to the agent or controller above."""
        if not isinstance(event, MessageReceived):
            assert self.above is not None
            self.transfers.handle(self.above, event)
            return
        message = event.message
        if isinstance(message, m.Dispatch):
            self._book.given(message, event.stream)
            self._leaving.give(message, lambda given: self.dispatch(given, event.body, event.stream))
        elif isinstance(message, m.InterruptRanks):
            self._deliveries.interrupt(message.ranks)
            self._split(message.ranks, LocalRank.interrupt, m.InterruptRanks)
        elif (order := self._orders.get(type(message))) is not None:
            order(message)
        elif isinstance(message, m.Goodbye):
            if not (message.fault and self.is_root and self._faults.may_go_on(message.reason)):
                self.is_dismissed = True
                self._stop_all(
                    f"the controller ended the session: {message.reason}" if self.is_root else message.reason
                )
        else:
            self._tasks.from_above(event)

    def _split(
        self, ranks: Sequence[int], own: Callable[[LocalRank], object], make: Callable[[Ids], m.AnyMessage]
    ) -> None:
        """Call one function with the ranks that are here, and one for each agent below with its ranks."""
        for local in self._here(ranks):
            own(local)
        for peer, theirs in self.by_peer(ranks):
            peer.connection.send(make(theirs))
            peer.wake()

    def _here(self, ranks: Sequence[int]) -> list[LocalRank]:
        """Return those of these ranks that are on this node."""
        if len(ranks) > len(self.local):
            ranks = IdSet(ranks).common(sorted(self.local))
        return [local for rank in ranks if (local := self.local.get(rank)) is not None]

    def by_peer(self, ranks: Sequence[int]) -> list[tuple[PeerAgent, Ids]]:
        """Group ranks of other nodes by the agent below through which they are reached."""
        found = ((peer, peer.ranks.common(ranks)) for peer in self.children)
        return [(peer, theirs) for peer, theirs in found if theirs]

    def _registered(self, message: m.Registered) -> None:
        # The controller gives ids in the order of the report. An agent above names ranks, some of them perhaps
        # lost.
        ranks = message.ranks or [engine.rank for engine in self._offered]
        if len(message.ids) != len(ranks):
            self.stop(f"the controller gave {len(message.ids)} ids to {len(ranks)} engines")
            return
        by_rank = dict(zip(ranks, message.ids, strict=True))
        self._ids.update(by_rank)
        self.on_ids(self._ids)
        for local in self._here(ranks):
            local.send(rm.NewEngineId(by_rank[local.rank]))
        for peer in self.children:  # their ids are usually one run
            if order := [rank for rank in peer.ranks if rank in by_rank]:
                peer.connection.send(m.Registered(Ids.of([by_rank[rank] for rank in order]), Ids.of(order)))
                peer.wake()

    # --- commands ------------------------------------------------------------------------------------------

    def dispatch(self, message: m.Dispatch, body: Sequence[Buffer] = (), stream: int = 0) -> None:
        """Pass a command to the ranks here and below; its body may be a stream from above."""
        self._tasks.command_given(message.ranks)
        self.end.dispatched(message)
        self._answers.begin(message.id, message.ranks)
        here = [local.rank for local in self._here(message.ranks)]
        below = self.by_peer(message.ranks)
        if not stream:
            for peer, ranks in below:
                peer.connection.send(for_ranks(message, ranks), body)
                peer.wake()
            if here:
                self._run(for_ranks(message, here), body, ())
            return
        assert self.above is not None
        sinks: list[tuple[Any, Any]] = [
            (peer, peer.connection.send_streamed(for_ranks(message, ranks), sum(message.sizes)))
            for peer, ranks in below
        ]
        if here and (receiver := self._deliveries.expect(for_ranks(message, here))) is not None:
            sinks.append((receiver, receiver))
        self.transfers.start(self.above, stream, sinks, lambda complete: self._book.arrived(stream, complete))

    def _run_shared(self, message: m.Dispatch, memory: SharedMemory) -> None:
        self._run(message, (), (memory.descriptor,))

    def _run(self, message: m.Dispatch, body: Sequence[Buffer], files: tuple[int, ...]) -> None:
        """Pass a command to ranks of this node."""
        number = next(self._numbers)
        command = RankCommand(message.id, message.method, message.operation)
        packet = rm.encode(for_rank(number, message, bool(files)), body)
        gone = []
        for rank in message.ranks:
            local = self.local.get(rank)
            if local is None or local.is_stopping:
                gone.append(rank)
            else:
                local.run(number, packet, command, files)
                self._leaving.begun(local, message.id)
        if gone:  # RanksLost has been or will be sent, which is their reply
            self._answers.leave_out(message.id, gone)

    def _not_run(self, message: m.Dispatch, ok: bool, outcome: bytes) -> None:
        """Reply for ranks that will not run a command."""
        result = m.Result(message.id, message.ranks, ok, outcome)
        self._leaving.answered(result)
        self._answers.leave_out(message.id, message.ranks)
        self.send_up(result)

    def rank_answered(
        self, local: LocalRank, command: RankCommand, message: rm.CommandDone, body: Sequence[Buffer],
        large: LargeAnswer | None,
    ) -> None:  # fmt: skip
        """A rank of this node has ended a command."""
        if not command.id:  # no client waits for it
            if large is not None:
                large.drop()
            return
        ranks = Ids.of([local.rank])
        result = m.Result(command.id, ranks, message.ok, message.outcome, message.sizes, message.used)
        self._leaving.answered(result)
        if large is None:
            self._answers.add(result, body)
            return
        self._answers.leave_out(command.id, ranks)
        self._book.answered(result, is_kept=False)
        if self.above is None:
            large.drop()
        else:
            self.output.flush(command.id)
            large.begin(self.above, result, self.send_up)

    # --- from below ----------------------------------------------------------------------------------------

    def _from_below(self, peer: PeerAgent, event: Event) -> None:
        if not isinstance(event, MessageReceived):
            self.transfers.handle(peer, event)
            return
        message = event.message
        if isinstance(message, m.Result):
            self._leaving.answered(message)
            if event.stream:
                self.output.flush(message.id)
                self._answers.leave_out(message.id, message.engines)
                self._book.answered(message, is_kept=False)
                self.pass_up(peer, message, event.stream)
            else:
                self._answers.add(message, event.body)
        elif (report := self._reports.get(type(message))) is not None:
            report(message)
        elif isinstance(message, m.Register) and self._too_late and not peer.engines:
            peer.connection.send(m.Goodbye("the set was formed without this node, which reported too late"))
            peer.wake()
        elif isinstance(message, m.Register):
            if peer.registers(message) and self.is_complete:
                self.on_complete()
        elif isinstance(message, m.RanksLost):
            self._below_lost(peer, message)
        elif isinstance(message, m.EndIsNear):
            self.end.warned()
        elif isinstance(message, m.Goodbye):
            peer.farewell = f"it said goodbye: {message.reason}"
            peer.fault = message.fault
        else:
            self._tasks.from_below(peer, event)

    def pass_up(self, peer: PeerAgent, message: m.Result | m.LargeTaskResult, stream: int) -> None:
        """Relay a message of a rank below with its stream."""
        if self.above is None:
            return
        out = self.above.connection.send_streamed(message, sum(message.sizes))
        self.transfers.start(peer, stream, [(self.above, out)])

    def properties_changed(self, local: LocalRank) -> None:
        """The properties of an engine of this node were set or deleted."""
        self._tasks.report(m.PropertiesChanged([local.rank]), ())

    # --- ends ----------------------------------------------------------------------------------------------

    def _peer_lost(self, peer: PeerAgent, reason: str) -> None:
        self.transfers.endpoint_lost(peer)
        if peer in self.children:
            self.children.remove(peer)
        if not peer.has_registered and not self._stopped:
            # It ended before it had registered: do not wait for it.
            self._log(f"a node was lost before it had registered: {reason}")
            self._expected -= 1
            if self.is_complete:
                self.on_complete()
            self._stop_if_ended("")
            return
        if not self._stopped:
            self._below_lost(peer, m.RanksLost(peer.ranks.ids(), peer.farewell or reason, peer.has_left))

    def _below_lost(self, peer: PeerAgent, lost: m.RanksLost) -> None:
        peer.loses(lost.ranks)
        self._lost(lost)

    def rank_lost(self, local: LocalRank, reason: str, ordered: bool, death: m.Death | None = None) -> None:
        """The process of a rank of this node has ended."""
        if self.local.pop(local.rank, None) is not None:
            local.gone()
            if not self._stopped:
                self._lost(m.RanksLost([local.rank], reason, ordered, death))

    def _lost(self, lost: m.RanksLost) -> None:
        if lost.ranks:
            self._log(f"lost {ranks_named(lost.ranks)}: {lost.reason}")
            self._answers.leave_out(None, lost.ranks)
            self.output.flush_all()
            self.send_up(self._thinning.passed_on(lost, self.loop.now()))
            self._tasks.ranks_gone(lost.ranks, died=True, ordered=lost.ordered)
            self._leaving.lost(lost.ranks, lost.reason)
        self._stop_if_ended(lost.reason if lost.ordered else "")

    def _stop_ranks(self, message: m.StopRanks) -> None:
        ranks = message.ranks
        self._ended.update(ranks)
        self._tasks.ranks_gone(ranks, died=False)
        self._leaving.lost(ranks, "it was ended on request")
        self.is_dismissed = not self._alive
        if not self._stop_if_ended("ended on request"):
            self._split(ranks, self._retire, m.StopRanks)

    def _stop_if_ended(self, reason: str) -> bool:
        """End the set if no engine is left. Only the root sees that; others end with their last rank."""
        gone = not self._alive if self.is_root else not self.local and not self.children
        if gone and not self._stopped:
            self._stop_all(reason or "no rank is left")
        return gone

    def _stop_all(self, reason: str) -> None:
        """End all ranks of the set regularly, so that they call MPI_Finalize together."""
        self._tell_below(m.Goodbye(reason))
        self.stop(reason)

    def _end_set(self, message: m.EndSet) -> None:
        self.ends_at_once, self.is_dismissed = True, not message.restart
        self._tell_below(message)
        self.stop(message.reason)

    def _tell_below(self, message: m.AnyMessage) -> None:
        for peer in self.children:
            peer.connection.send(message)
            peer.wake()

    def _retire(self, local: LocalRank) -> None:
        """End one engine; its process stays."""
        local.retire(next(self._numbers), self._joined)
        if self._joined:
            self._log(f"engine of rank {local.rank} was ended; its process stays until its set ends, for MPI")

    def fail(self, error: BaseException) -> None:
        """End this node because of an unexpected exception in this process.

        It is unknown which replies are lost with it, so clients are told that the engines are lost.
        """
        self.loop.report(error)
        self.has_failed = True
        self.stop(str(internal_error(error, f"in the node agent on {self.host}")))

    def leave(self, local: LocalRank, reason: str) -> None:
        """A rank of this node was told to end, by a signal."""
        if not local.is_stopping and not self._stopped:
            local.farewell = reason
            # Before the interrupt, which must not become the outcome of the running task.
            self.rank_lost(local, reason, True)
            if not local.is_stopping:
                local.stop(rm.Stop(reason))

    def stop(self, reason: str, *, orphaned: bool = False) -> None:
        """End this node and those below; at once if the agent above is lost."""
        if not self._stopped:
            self._stopped = True
            if isinstance(self.above, PeerAgent) and not orphaned:
                self.above.leave(reason, self.has_failed)
            self._on_stop(reason, orphaned)
