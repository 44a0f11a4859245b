"""The agent thread of an engine: all traffic of one rank, and of the ranks below it (layer L4).

Every rank runs one. What makes rank 0 the proxy of its set is only its place in the tree: the link above it is
the set's TLS link to the controller, for other ranks it is a Unix socket or MPI to the rank above. Commands come
from above with a list of ranks and are passed on to those below or to this process's main thread; answers are
folded on their way up.

If the rank above is gone, so is the set, and this process ends at once: nobody may stay behind in an allocation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from .. import limits
from ..errors import KernelError, internal_error
from ..protocol import messages as m, operations
from ..protocol.connection import Connection, Event, MessageReceived
from ..protocol.frames import Buffer, size_of
from ..protocol.registration import parts
from ..protocol.states import FROM_BELOW
from ..transport.loop import Loop
from ..transport.pipes import Pipe, UnixPipe
from ..transport.transfers import Endpoint, Transfers
from .child import Child
from .deliveries import Deliveries, for_ranks, writable
from .namespace import Answer
from .rank import Job, Rank
from .setend import SetEnd
from .shared import SharedMemory, map_shared
from .tasking import SetTasks
from .upward import Upward

_FAULTS, _FAULTS_WITHIN = 10, 60.0
"""So many faults of the controller in so many seconds are the end: it would go wrong again and again."""

_INTERRUPT_AGAIN = 0.05
"""Seconds after which an interrupt that was not raised is sent again; then twice that, up to a second."""


class Proxy:
    """Routes commands down and answers up.

    Args:
        own: this process's entry in the set.
        mpi: description of the set's MPI, for the controller.
        expected: how many ranks are right below.
        log: called with lines for the log.
        on_stop: called once, when this process is to end, with the reason and whether the rank above is gone.
        joined: whether the ranks share a communicator.
        leaders: for each rank, the lowest rank on its node.
    """

    def __init__(
        self,
        loop: Loop,
        rank: Rank,
        own: m.EngineInfo,
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
        self.rank = rank
        self.own = own
        self._mpi = mpi
        self._python = python
        self._expected = expected
        self._log = log
        self._on_stop = on_stop
        self.above: Endpoint | None = None
        """The way up: the session with the controller, or the link to the rank above."""
        self._ids: dict[int, int] = {}
        self._offered: list[m.EngineInfo] = []
        self._ended: set[int] = set()
        """Ranks whose engine was ended, and whose process stays until the set ends."""
        self.children: list[Child] = []
        self._route: dict[int, Child] = {}
        self._answers = Upward(loop, self.send_up)
        self.transfers = Transfers()
        self._shared: dict[int, list[Buffer] | str] = {}
        """Bodies that the rank above put into memory, or why there is none."""
        self._deliveries = Deliveries(own, self._start, self._not_run)
        self._retired = False
        self._too_late = False
        self._stopped = False
        self._faults: list[float] = []
        self.has_failed = False
        """Whether this process ends because something in its agent thread went wrong."""
        self._tasks = SetTasks(self, joined, leaders)
        self.end = SetEnd(self, self._tasks.job_ends, log)
        self.on_complete: Callable[[], None] = lambda: None
        """Called when all ranks below have reported."""

    # --- building the set ----------------------------------------------------------------------------------

    def accept(self, pipe: Pipe) -> None:
        """A rank of this node has connected."""
        self.add_child(pipe)

    def add_child(self, pipe: Pipe) -> Child:
        """A rank below has connected."""
        child = Child(pipe, Connection(FROM_BELOW, resumable=False))

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
        """Whether all ranks below have said who they are."""
        return sum(1 for child in self.children if child.engines) >= self._expected

    def wait_no_longer(self) -> None:
        """Go on without the ranks below that have not said who they are; one that does so later is told to end."""
        if not self.is_complete:
            there = sum(1 for child in self.children if child.engines)
            self._log(
                f"{self._expected - there} of {self._expected} ranks have not reported; going on without them"
            )
            self._expected = there
            self._too_late = True
            self.on_complete()

    @property
    def engines(self) -> list[m.EngineInfo]:
        """This rank and those below, by rank."""
        found = [self.own, *(engine for child in self.children for engine in child.engines)]
        return sorted(found, key=lambda engine: engine.rank)

    def register(self) -> None:
        """Tell the rank or controller above who is here; with the old ids if there were some."""
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
        """Whether this rank speaks with the controller."""
        return not isinstance(self.above, Child)

    def forget_controller(self) -> None:
        """The controller began anew: what was on its way from the old one will not come to its end."""
        if self.above is not None:
            self.transfers.endpoint_lost(self.above)
        self._tasks.forget_controller()

    def send_up(self, message: m.AnyMessage, body: Sequence[Buffer] = ()) -> None:
        """Send to the rank or controller above."""
        if self.above is not None:
            self.above.connection.send(message, body)
            self.above.wake()

    # --- from above ----------------------------------------------------------------------------------------

    def from_above(self, event: Event) -> None:
        """Handle what the rank or controller above says."""
        if not isinstance(event, MessageReceived):
            assert self.above is not None
            self.transfers.handle(self.above, event)
            return
        message = event.message
        if isinstance(message, m.Dispatch):
            self.dispatch(message, event.body, event.stream)
        elif isinstance(message, m.SharedBody):
            self._take_shared(message)
        elif isinstance(message, m.InterruptRanks):
            self._deliveries.interrupt(message.ranks)
            self._interrupt_ranks(message.ranks)
        elif isinstance(message, m.StopRanks):
            self._stop_ranks(message.ranks)
        elif isinstance(message, m.Registered):
            self._registered(message)
        elif isinstance(message, m.Goodbye):
            if not (message.fault and self.is_root and self._may_go_on(message.reason)):
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

    def _interrupt_ranks(self, ranks: list[int]) -> None:
        # Not before a command that came with it: that one is handed over at the end of the turn.
        self._split(ranks, lambda: self.loop.call_at_turn_end(self._interrupt), m.InterruptRanks)

    def _interrupt(self) -> None:
        self.rank.interrupt()
        self.keep_interrupting()

    def keep_interrupting(self) -> None:
        """An interrupt was sent: see to it that it is heard."""
        self.loop.call_later(_INTERRUPT_AGAIN, lambda: self._interrupt_again(_INTERRUPT_AGAIN))

    def _interrupt_again(self, delay: float) -> None:
        if self.rank.interrupts.send_again():
            delay = min(2 * delay, 1.0)
            self.loop.call_later(delay, lambda: self._interrupt_again(delay))

    def _split(self, ranks: list[int], own: Callable[[], None], make: Callable[[list[int]], m.AnyMessage]) -> None:
        """Do something here if this rank is meant, and pass it on to those below."""
        if self.own.rank in ranks:
            own()
        for child, theirs in self.by_child(ranks):
            child.connection.send(make(theirs))
            child.wake()

    def by_child(self, ranks: Sequence[int]) -> list[tuple[Child, list[int]]]:
        """The ranks below, by the child through which they are reached."""
        found: dict[Child, list[int]] = {}
        for rank in ranks:
            child = self._route.get(rank)
            if child is not None:
                found.setdefault(child, []).append(rank)
        return list(found.items())

    def _registered(self, message: m.Registered) -> None:
        # The controller answers what it was told. A rank above names ranks: some may have been lost meanwhile.
        ranks = message.ranks or [engine.rank for engine in self._offered]
        if len(message.ids) != len(ranks):
            self.stop(f"the controller gave {len(message.ids)} ids to {len(ranks)} engines")
            return
        by_rank = dict(zip(ranks, message.ids, strict=True))
        self._ids.update(by_rank)
        if self.own.rank in by_rank:
            self.rank.namespace.engine_id = by_rank[self.own.rank]
            self._log(f"engine registration succeeded, got id: {by_rank[self.own.rank]}")
        for child in self.children:
            order = [rank for rank in sorted(child.ranks) if rank in by_rank]
            if order:
                child.connection.send(m.Registered([by_rank[rank] for rank in order], order))
                child.wake()

    def dispatch(self, message: m.Dispatch, body: Sequence[Buffer] = (), stream: int = 0) -> None:
        """Give a command to the ranks here and below, whose body may come as a stream from above."""
        self._tasks.command_given(message.ranks)
        self.end.dispatched(message)
        self._answers.begin(message.id, message.ranks)
        if not stream:
            shared = self._shared.pop(message.id, None)
            if isinstance(shared, str):
                self._deliveries.failed(message, shared, False)
                return
            self._start(message, shared if shared is not None else body, None)
            return
        assert self.above is not None
        below = self.by_child(message.ranks)
        remote = [(child, ranks) for child, ranks in below if not child.shares_memory]
        nearby = [(child, ranks) for child, ranks in below if child.shares_memory]
        sinks: list[tuple[Any, Any]] = []
        for child, ranks in remote:
            out = child.connection.send_streamed(for_ranks(message, ranks), sum(message.sizes))
            sinks.append((child, out))
        own = [self.own.rank] if self.own.rank in message.ranks else []
        if own or nearby:
            here = for_ranks(message, own + [rank for _, ranks in nearby for rank in ranks])
            assembly = self._deliveries.expect(here, is_shared=bool(nearby))
            if assembly is not None:
                sinks.append((assembly, assembly))
        self.transfers.start(self.above, stream, sinks)

    def _start(self, message: m.Dispatch, body: Sequence[Buffer], shared: SharedMemory | None) -> None:
        """Give a command to the ranks here and below, with its body in hand or in shared memory."""
        for child, ranks in self.by_child(message.ranks):
            if shared is not None:
                if not isinstance(child.pipe, UnixPipe):
                    continue  # on another node: its share was relayed
                child.connection.send(m.SharedBody(message.id, message.sizes))
                child.pipe.send_file(shared.descriptor)
                child.connection.send(m.Dispatch(message.id, ranks, message.method, message.operation))
            else:
                child.connection.send(for_ranks(message, ranks), body)
            child.wake()
        if self.own.rank in message.ranks:
            if self._retired:
                self._answer(message.id, _RETIRED)
                return
            number = message.id

            def done(answer: Answer) -> None:
                self.loop.call_now(lambda: self._answer(number, answer))

            job = Job(message.method, message.operation, writable(body), done)
            # After the others' share has been sent: once user code runs here, it also has the GIL.
            self.loop.call_at_turn_end(lambda: self.rank.submit(job))

    def _take_shared(self, message: m.SharedBody) -> None:
        pipe = self.above.link.pipe if isinstance(self.above, Child) and self.above.link is not None else None
        if not isinstance(pipe, UnixPipe) or not pipe.files:
            self.stop("shared memory was announced and did not come")
            return
        descriptor = pipe.files.popleft()
        try:
            self._shared[message.id] = map_shared(descriptor, message.lengths)
        except (OSError, ValueError, MemoryError) as error:
            self._shared[message.id] = self._deliveries.no_memory(error)
        finally:
            os.close(descriptor)

    def _not_run(self, message: m.Dispatch, ok: bool, outcome: bytes) -> None:
        """These ranks will not run a command, and answer so."""
        result = m.Result(message.id, message.ranks, ok, outcome)
        self._tasks.command_answered(message.ranks)
        self._answers.leave_out(message.id, message.ranks)
        self.send_up(result)

    # --- from below ----------------------------------------------------------------------------------------

    def _from_below(self, child: Child, event: Event) -> None:
        if not isinstance(event, MessageReceived):
            self.transfers.handle(child, event)
            return
        message = event.message
        if isinstance(message, m.Result):
            self._tasks.command_answered(message.engines)
            if event.stream:
                self._answers.leave_out(message.id, message.engines)
                self.pass_up(child, message, event.stream)
            else:
                self._answers.add(message, event.body)
        elif isinstance(message, m.Register) and self._too_late and not child.engines:
            child.connection.send(m.Goodbye("the set went on without this rank, which has reported too late"))
            child.wake()
        elif isinstance(message, m.Register):
            if child.registers(message):
                self._route.update(dict.fromkeys(child.ranks, child))
                if self.is_complete:
                    self.on_complete()
        elif isinstance(message, m.RanksLost):
            self._ranks_lost(child, message.ranks, message.reason, message.ordered)
        elif isinstance(message, m.EndIsNear):
            self.end.warned()
        elif isinstance(message, m.AnswerStuck):
            self.send_up(message)
        elif isinstance(message, m.Goodbye):
            child.farewell = f"it said goodbye: {message.reason}"
            child.fault = message.fault
        else:
            self._tasks.from_below(child, event)

    def pass_up(self, child: Child, message: m.Result | m.TaskResult, stream: int) -> None:
        """Relay a message of a rank below with its stream."""
        if self.above is None:
            return
        out = self.above.connection.send_streamed(message, sum(message.sizes))
        self.transfers.start(child, stream, [(self.above, out)])

    def _answer(self, number: int, answer: Answer) -> None:
        """This rank's own main thread has finished."""
        self._tasks.command_answered([self.own.rank])
        sizes = [size_of([buffer]) for buffer in answer.body]
        message = m.Result(number, [self.own.rank], answer.ok, answer.outcome, sizes)
        if sum(sizes) > limits.INLINE_BODY:
            self._answers.leave_out(number, [self.own.rank])
            out = None if self.above is None else self.above.connection.send(message, answer.body)
            if self.above is not None:
                self.above.wake()
            stuck = m.AnswerStuck(self.own.rank, number)
            self._tasks.departures.add(self.above, out, stuck, self.rank.items.release)
        else:
            self._answers.add(message, answer.body)

    # --- ends ----------------------------------------------------------------------------------------------

    def _child_lost(self, child: Child, reason: str) -> None:
        self.transfers.endpoint_lost(child)
        if child in self.children:
            self.children.remove(child)
        if not child.engines and not self._stopped:
            # It ended before it had said who it was. The others need not wait for it.
            self._log(f"a rank ended before it had registered: {reason}")
            self._expected -= 1
            if self.is_complete:
                self.on_complete()
            return
        if not self._stopped:
            self._ranks_lost(
                child, child.ranks, child.farewell or reason, bool(child.farewell) and not child.fault
            )

    def _ranks_lost(self, child: Child, ranks: list[int], reason: str, ordered: bool) -> None:
        child.engines = [engine for engine in child.engines if engine.rank not in ranks]
        for rank in ranks:
            self._route.pop(rank, None)
        if ranks:
            self._log(f"lost rank(s) {ranks}: {reason}")
            self._answers.leave_out(None, ranks)
            self.send_up(m.RanksLost(ranks, reason, ordered))
            self._tasks.ranks_gone(ranks, died=True)
        self._stop_if_ended()

    def _stop_ranks(self, ranks: list[int]) -> None:
        self._ended.update(ranks)
        self._tasks.ranks_gone(ranks, died=False)
        if not self._stop_if_ended():
            self._split(ranks, self._retire, m.StopRanks)

    def _stop_if_ended(self) -> bool:
        """Only the root sees the whole set, and whether an engine of it is left."""
        if self.is_root and not self._alive:
            self._stop_all("ended on request")
            return True
        return False

    def _stop_all(self, reason: str) -> None:
        """End all ranks of the set in order, so that they leave MPI together."""
        for child in self.children:
            child.connection.send(m.Goodbye(reason))
            child.wake()
        self.stop(reason)

    def _retire(self) -> None:
        """This engine ends, its set does not: MPI ends all ranks together, so the process stays and sleeps."""
        self._retired = True
        self._log("this engine was ended; its process stays until its set ends, as MPI demands")
        self._tasks.retire()
        self.rank.interrupt_all()
        self.rank.submit(Job("reset", operations.encode(operations.Reset()), (), lambda _answer: None))

    def fail(self, error: BaseException) -> None:
        """Something in this thread has raised that should not: end this rank, and say why.

        Nobody knows which answers are lost with it. So whoever waits for them is told that the engine is lost.
        """
        self.loop.report(error)
        self.has_failed = True
        where = f"in the agent thread of rank {self.own.rank} on {self.own.host}"
        self.stop(str(internal_error(error, where)))

    def leave(self, reason: str) -> None:
        """This process was told to end, by a signal."""
        if not self._stopped:
            self._tasks.leave()
        self.stop(reason)

    def stop(self, reason: str, *, orphaned: bool = False) -> None:
        """End this process, and with it the ranks below; at once if the rank above is gone."""
        if not self._stopped:
            self._stopped = True
            self._log(f"stopping: {reason}")
            if isinstance(self.above, Child) and not orphaned:
                self.above.leave(reason, self.has_failed)
            self._on_stop(reason, orphaned)


_RETIRED = Answer(False, operations.encode(operations.Failed("EngineLost", "this engine was ended", "")), [])
