"""The agent of one node of an engine set: all traffic of its ranks.

It is a process of its own, so it works while every rank is stuck, and no rank's death is its end. What makes an
agent the root of its set is only its place in the tree: the link above it is the set's TLS link to the controller;
for others it is a link to the agent of another node. Commands come from above with a list of ranks, and are passed
on to ranks of this node and to the agents below; answers are folded on their way up.

If the agent above is gone, so are its ranks, and this node ends at once: nobody may stay behind in an allocation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import KernelError, internal_error
from ...protocol import messages as m, operations, rankmessages as rm
from ...protocol.connection import Connection, Event, MessageReceived
from ...protocol.frames import Buffer
from ...protocol.permissions import FROM_BELOW
from ...protocol.registration import parts
from ...transport.loop import Loop
from ...transport.pipes import Pipe
from ...transport.transfers import Endpoint, Transfers
from .deliveries import Deliveries, for_ranks
from .largestreams import LargeAnswer
from .localrank import LocalRank, RankCommand
from .peeragent import PeerAgent
from .setend import SetEnd
from .setoutput import SetOutput
from .settasks import SetTasks
from .shared import SharedMemory
from .upward import Upward

_FAULTS, _FAULTS_WITHIN = 10, 60.0
"""So many faults of the controller in so many seconds are the end: it would go wrong again and again."""


class Agent:
    """Routes commands down and answers up.

    Args:
        host: the name of this node.
        mpi: description of the set's MPI, for the controller.
        expected: how many agents are right below.
        log: called with lines for the log.
        on_stop: called once, when this node is to end, with the reason and whether the agent above is gone.
        joined: whether the ranks share a communicator.
        leaders: for each rank, the lowest rank on its node.

    Attributes:
        local: the ranks of this node that have said who they are, by rank.
        children: the agents below.
        above: the way up: the session with the controller, or the link to the agent above.
        has_failed: whether this node ends because something in its agent went wrong.
        is_dismissed: whether a client or the controller has told the whole set to end.
    """

    def __init__(
        self,
        loop: Loop,
        host: str,
        mpi: str,
        python: str,
        expected: int,
        log: Callable[[str], None],
        on_stop: Callable[[str, bool], None],
        *,
        joined: bool = False,
        leaders: Sequence[int] = (),
    ) -> None:
        self.loop = loop
        self.host = host
        self._mpi = mpi
        self._python = python
        self._joined = joined
        self._expected = expected
        self._log = log
        self._on_stop = on_stop
        self.above: Endpoint | None = None
        self._ids: dict[int, int] = {}
        self._offered: list[m.EngineInfo] = []
        self._ended: set[int] = set()
        """Ranks whose engine was ended, and whose process stays until the set ends."""
        self.local: dict[int, LocalRank] = {}
        self.children: list[PeerAgent] = []
        self._route: dict[int, PeerAgent] = {}
        self._numbers = itertools.count(1)
        """Of commands to ranks of this node."""
        self.output = SetOutput(loop, self.send_up)
        self._answers = Upward(loop, self._answer)
        self.transfers = Transfers()
        self._deliveries = Deliveries(host, self._run_shared, self._not_run)
        self._too_late = False
        self._stopped = False
        self._faults: list[float] = []
        self.has_failed = False
        self.is_dismissed = False
        self._tasks = SetTasks(self, joined, leaders)
        self.end = SetEnd(self, self._tasks.job_ends, log)
        self.on_complete: Callable[[], None] = lambda: None
        """Called when all agents below have reported."""
        self.on_ids: Callable[[Mapping[int, int]], None] = lambda ids: None
        """Called with the ids of all ranks of this node and those below, when they are known."""

    # --- building the set ----------------------------------------------------------------------------------

    def add_rank(self, local: LocalRank) -> None:
        """A rank of this node has said who it is."""
        local.join(self, self._tasks)
        self.local[local.rank] = local

    def add_child(self, pipe: Pipe) -> PeerAgent:
        """An agent below has connected."""
        child = PeerAgent(pipe, Connection(FROM_BELOW, resumable=False))

        def event(happened: Event) -> None:
            self._from_below(child, happened)

        def closed(reason: str, orderly: bool, error: KernelError | None) -> None:
            if error is not None:
                reason = str(error)
            self._child_lost(child, child.silent_end() if orderly else f"its link broke: {reason}")

        child.start(self.loop, event, closed)
        self.children.append(child)
        return child

    @property
    def is_complete(self) -> bool:
        """Whether all agents below have said which ranks they have."""
        return sum(1 for child in self.children if child.engines) >= self._expected

    def wait_no_longer(self) -> None:
        """Go on without the agents below that have not reported; one that does so later is told to end."""
        if not self.is_complete:
            there = sum(1 for child in self.children if child.engines)
            self._log(
                f"{self._expected - there} of {self._expected} nodes have not reported; going on without them"
            )
            self._expected = there
            self._too_late = True
            self.on_complete()

    @property
    def engines(self) -> list[m.EngineInfo]:
        """The ranks of this node and those below, by rank."""
        own = [local.info for local in self.local.values()]
        found = [*own, *(engine for child in self.children for engine in child.engines)]
        return sorted(found, key=lambda engine: engine.rank)

    def ask_for(self, ids: Mapping[int, int]) -> None:
        """Ask for these ids, by rank, as if the set had had them."""
        self._ids.update(ids)

    def register(self) -> None:
        """Tell the agent or controller above who is here; with the old ids if there were some."""
        self._offered = self._alive
        ids = [self._ids[engine.rank] for engine in self._offered if engine.rank in self._ids]
        for part in parts(m.Register(self._offered, self._mpi, self._python, ids)):
            self.send_up(part)
        if self.is_root:
            self._tasks.registered([engine.rank for engine in self._offered])
            self.end.registered()

    @property
    def _alive(self) -> list[m.EngineInfo]:
        return [engine for engine in self.engines if engine.rank not in self._ended]

    @property
    def is_root(self) -> bool:
        """Whether this agent speaks with the controller."""
        return not isinstance(self.above, PeerAgent)

    def forget_controller(self) -> None:
        """The controller began anew: what was on its way from the old one will not come to its end."""
        if self.above is not None:
            self.transfers.endpoint_lost(self.above)
        self._tasks.forget_controller()

    def send_up(self, message: m.AnyMessage, body: Sequence[Buffer] = ()) -> None:
        """Send to the agent or controller above."""
        if self.above is not None:
            self.above.connection.send(message, body)
            self.above.wake()

    def _answer(self, message: m.Result, body: Sequence[Buffer] = ()) -> None:
        """Send an answer up, after what its ranks have printed."""
        self.output.flush(message.id)
        self.send_up(message, body)

    # --- from above ----------------------------------------------------------------------------------------

    def from_above(self, event: Event) -> None:
        """Handle what the agent or controller above says."""
        if not isinstance(event, MessageReceived):
            assert self.above is not None
            self.transfers.handle(self.above, event)
            return
        message = event.message
        if isinstance(message, m.Dispatch):
            self.dispatch(message, event.body, event.stream)
        elif isinstance(message, m.InterruptRanks):
            self._deliveries.interrupt(message.ranks)
            self._split(message.ranks, LocalRank.interrupt, m.InterruptRanks)
        elif isinstance(message, m.StopRanks):
            self._stop_ranks(message.ranks)
        elif isinstance(message, m.Registered):
            self._registered(message)
        elif isinstance(message, m.Goodbye):
            if not (message.fault and self.is_root and self._may_go_on(message.reason)):
                self.is_dismissed = True
                self._stop_all(
                    f"the controller said goodbye: {message.reason}" if self.is_root else message.reason
                )
        else:
            self._tasks.from_above(event)

    def _may_go_on(self, reason: str) -> bool:
        """Whether a new session is worth a try, now that something has gone wrong at the controller."""
        now = self.loop.now()
        self._faults = [now, *(when for when in self._faults if now - when < _FAULTS_WITHIN)]
        self._log(f"the controller has ended this session: {reason}. It is asked for a new one")
        return len(self._faults) < _FAULTS

    def _split(
        self, ranks: list[int], own: Callable[[LocalRank], object], make: Callable[[list[int]], m.AnyMessage]
    ) -> None:
        """Do something with those ranks that are here, and pass it on to the agents of the others."""
        for local in self._here(ranks):
            own(local)
        for child, theirs in self.by_child(ranks):
            child.connection.send(make(theirs))
            child.wake()

    def _here(self, ranks: Sequence[int]) -> list[LocalRank]:
        """Those of these ranks that are on this node."""
        return [local for rank in ranks if (local := self.local.get(rank)) is not None]

    def by_child(self, ranks: Sequence[int]) -> list[tuple[PeerAgent, list[int]]]:
        """The ranks below, by the agent through which they are reached."""
        found: dict[PeerAgent, list[int]] = {}
        for rank in ranks:
            child = self._route.get(rank)
            if child is not None:
                found.setdefault(child, []).append(rank)
        return list(found.items())

    def _registered(self, message: m.Registered) -> None:
        # The controller answers what it was told. An agent above names ranks: some may have been lost meanwhile.
        ranks = message.ranks or [engine.rank for engine in self._offered]
        if len(message.ids) != len(ranks):
            self.stop(f"the controller gave {len(message.ids)} ids to {len(ranks)} engines")
            return
        by_rank = dict(zip(ranks, message.ids, strict=True))
        self._ids.update(by_rank)
        self.on_ids(self._ids)
        for local in self._here(ranks):
            local.send(rm.NewEngineId(by_rank[local.rank]))
        for child in self.children:
            order = [rank for rank in sorted(child.ranks) if rank in by_rank]
            if order:
                child.connection.send(m.Registered([by_rank[rank] for rank in order], order))
                child.wake()

    # --- commands ------------------------------------------------------------------------------------------

    def dispatch(self, message: m.Dispatch, body: Sequence[Buffer] = (), stream: int = 0) -> None:
        """Give a command to the ranks here and below, whose body may come as a stream from above."""
        self._tasks.command_given(message.ranks)
        self.end.dispatched(message)
        self._answers.begin(message.id, message.ranks)
        here = [local.rank for local in self._here(message.ranks)]
        below = self.by_child(message.ranks)
        if not stream:
            for child, ranks in below:
                child.connection.send(for_ranks(message, ranks), body)
                child.wake()
            if here:
                self._run(for_ranks(message, here), body, ())
            return
        assert self.above is not None
        sinks: list[tuple[Any, Any]] = [
            (child, child.connection.send_streamed(for_ranks(message, ranks), sum(message.sizes)))
            for child, ranks in below
        ]
        if here:
            receiver = self._deliveries.expect(for_ranks(message, here))
            if receiver is not None:
                sinks.append((receiver, receiver))
        self.transfers.start(self.above, stream, sinks)

    def _run_shared(self, message: m.Dispatch, memory: SharedMemory) -> None:
        self._run(message, (), (memory.descriptor,))

    def _run(self, message: m.Dispatch, body: Sequence[Buffer], files: tuple[int, ...]) -> None:
        """Give a command to ranks of this node."""
        number = next(self._numbers)
        command = RankCommand(message.id, message.method)
        run = rm.RunCommand(number, message.method, message.operation, message.sizes, bool(files))
        packet = rm.encode(run, body)
        gone = []
        for rank in message.ranks:
            local = self.local.get(rank)
            if local is None or local.is_stopping:
                gone.append(rank)
            else:
                local.run(number, packet, command, files)
        if gone:  # meanwhile: RanksLost has been or will be said, which answers it
            self._answers.leave_out(message.id, gone)

    def _not_run(self, message: m.Dispatch, ok: bool, outcome: bytes) -> None:
        """These ranks will not run a command, and answer so."""
        result = m.Result(message.id, message.ranks, ok, outcome)
        self._tasks.command_answered(message.ranks)
        self._answers.leave_out(message.id, message.ranks)
        self.send_up(result)

    def rank_answered(
        self,
        local: LocalRank,
        command: RankCommand,
        message: rm.CommandDone,
        body: Sequence[Buffer],
        large: LargeAnswer | None,
    ) -> None:
        """A rank of this node has ended a command."""
        if not command.id:  # nobody waits for it
            if large is not None:
                large.drop()
            return
        ranks = [local.rank]
        self._tasks.command_answered(ranks)
        result = m.Result(command.id, ranks, message.ok, message.outcome, message.sizes)
        if large is None:
            self._answers.add(result, body)
            return
        self._answers.leave_out(command.id, ranks)
        if self.above is None:
            large.drop()
        else:
            self.output.flush(command.id)
            large.begin(self.above, result, self.send_up)

    # --- from below ----------------------------------------------------------------------------------------

    def _from_below(self, child: PeerAgent, event: Event) -> None:
        if not isinstance(event, MessageReceived):
            self.transfers.handle(child, event)
            return
        message = event.message
        if isinstance(message, m.Result):
            self._tasks.command_answered(message.engines)
            if event.stream:
                self.output.flush(message.id)
                self._answers.leave_out(message.id, message.engines)
                self.pass_up(child, message, event.stream)
            else:
                self._answers.add(message, event.body)
        elif isinstance(message, m.Output):
            self.output.from_below(message)
        elif isinstance(message, m.Register) and self._too_late and not child.engines:
            child.connection.send(m.Goodbye("the set went on without this node, which has reported too late"))
            child.wake()
        elif isinstance(message, m.Register):
            if child.registers(message):
                self._route.update(dict.fromkeys(child.ranks, child))
                if self.is_complete:
                    self.on_complete()
        elif isinstance(message, m.RanksLost):
            self._below_lost(child, message.ranks, message.reason, message.ordered)
        elif isinstance(message, m.EndIsNear):
            self.end.warned()
        elif isinstance(message, m.AnswerStuck):
            self.send_up(message)
        elif isinstance(message, m.Goodbye):
            child.farewell = f"it said goodbye: {message.reason}"
            child.fault = message.fault
        else:
            self._tasks.from_below(child, event)

    def pass_up(self, child: PeerAgent, message: m.Result | m.LargeTaskResult, stream: int) -> None:
        """Relay a message of a rank below with its stream."""
        if self.above is None:
            return
        out = self.above.connection.send_streamed(message, sum(message.sizes))
        self.transfers.start(child, stream, [(self.above, out)])

    def properties_changed(self, local: LocalRank) -> None:
        """The properties of an engine of this node were set or deleted."""
        self._tasks.report(m.PropertiesChanged([local.rank]), ())

    # --- ends ----------------------------------------------------------------------------------------------

    def _child_lost(self, child: PeerAgent, reason: str) -> None:
        self.transfers.endpoint_lost(child)
        if child in self.children:
            self.children.remove(child)
        if not child.has_registered and not self._stopped:
            # It ended before it had said who it was. The others need not wait for it.
            self._log(f"a node was lost before it had registered: {reason}")
            self._expected -= 1
            if self.is_complete:
                self.on_complete()
            self._stop_if_ended("")
            return
        if not self._stopped:
            self._below_lost(
                child, child.ranks, child.farewell or reason, bool(child.farewell) and not child.fault
            )

    def _below_lost(self, child: PeerAgent, ranks: list[int], reason: str, ordered: bool) -> None:
        child.engines = [engine for engine in child.engines if engine.rank not in ranks]
        for rank in ranks:
            self._route.pop(rank, None)
        self._lost(ranks, reason, ordered)

    def rank_lost(self, local: LocalRank, reason: str, ordered: bool) -> None:
        """The process of a rank of this node has ended."""
        if self.local.pop(local.rank, None) is not None:
            local.gone()
            if not self._stopped:
                self._lost([local.rank], reason, ordered)

    def _lost(self, ranks: list[int], reason: str, ordered: bool) -> None:
        if ranks:
            self._log(f"lost rank(s) {ranks}: {reason}")
            self._answers.leave_out(None, ranks)
            self.output.flush_all()
            self.send_up(m.RanksLost(ranks, reason, ordered))
            self._tasks.ranks_gone(ranks, died=True, ordered=ordered)
        self._stop_if_ended(reason if ordered else "")

    def _stop_ranks(self, ranks: list[int]) -> None:
        self._ended.update(ranks)
        self._tasks.ranks_gone(ranks, died=False)
        self.is_dismissed = not self._alive
        if not self._stop_if_ended("ended on request"):
            self._split(ranks, self._retire, m.StopRanks)

    def _stop_if_ended(self, reason: str) -> bool:
        """Only the root sees whether an engine of the set is left; others end with their last rank."""
        gone = not self._alive if self.is_root else not self.local and not self.children
        if gone and not self._stopped:
            self._stop_all(reason or "no rank is left")
        return gone

    def _stop_all(self, reason: str) -> None:
        """End all ranks of the set in order, so that they leave MPI together."""
        for child in self.children:
            child.connection.send(m.Goodbye(reason))
            child.wake()
        self.stop(reason)

    def _retire(self, local: LocalRank) -> None:
        """This engine ends, its set does not."""
        local.tasks.retire()
        local.parts.retire()
        if not self._joined:
            local.farewell = "ended on request"
            local.stop(rm.Stop("this engine was ended"))
            return
        # MPI ends all ranks together, so the process stays and sleeps.
        self._log(f"engine of rank {local.rank} was ended; its process stays until its set ends, as MPI demands")
        local.interrupt_all()
        number, reset = next(self._numbers), operations.encode(operations.Reset())
        local.run(number, rm.encode(rm.RunCommand(number, "reset", reset)), RankCommand(0, "reset"))

    def fail(self, error: BaseException) -> None:
        """Something in this process has raised that should not: end this node, and say why.

        Nobody knows which answers are lost with it. So whoever waits for them is told that the engines are lost.
        """
        self.loop.report(error)
        self.has_failed = True
        self.stop(str(internal_error(error, f"in the node agent on {self.host}")))

    def leave(self, local: LocalRank, reason: str) -> None:
        """A rank of this node was told to end, by a signal."""
        if not local.is_stopping and not self._stopped:
            local.farewell = reason
            # First, so that the interrupt does not become the outcome of the task that runs there.
            self.rank_lost(local, reason, True)
            if not local.is_stopping:
                local.stop(rm.Stop(reason))

    def stop(self, reason: str, *, orphaned: bool = False) -> None:
        """End this node, and with it those below; at once if the agent above is gone."""
        if not self._stopped:
            self._stopped = True
            if isinstance(self.above, PeerAgent) and not orphaned:
                self.above.leave(reason, self.has_failed)
            self._on_stop(reason, orphaned)
