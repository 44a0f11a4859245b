"""Tasks at a node agent: their messages up and down the tree of agents, and the set's scheduler.

At the root all messages about tasks go through the :class:`~ipmpi.engine.farm.scheduler.SetScheduler`, which
decides which rank runs what. Other agents forward what is not for their own ranks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from ...ids import Ids
from ...protocol import messages as m, packed
from ...protocol.connection import MessageReceived
from ...protocol.frames import Buffer
from ...transport.bodyreceiver import BodyReceiver
from ...transport.loop import Loop, Timer
from ...transport.transfers import Endpoint, Transfers
from ..farm.scheduler import Down, SetScheduler, Up
from .largestreams import LargeAnswer
from .localrank import LocalRank
from .peeragent import PeerAgent
from .shared import SharedMemory, why_not_stored
from .unrecorded import UnrecordedResults

Routed = m.GiveTasks | m.TakeBackTasks | m.CancelTasks | m.RunTogether | m.LeaveTogether | m.DeliverTogether
_ROUTED = (m.GiveTasks, m.TakeBackTasks, m.CancelTasks, m.RunTogether, m.LeaveTogether, m.DeliverTogether)

_REPORTS = (m.PropertiesChanged, m.TaskResults, m.TasksReturned, m.WantTaskBody, m.TogetherEnded, m.TaskHolds)


class TaskTree(Protocol):
    """The part of :class:`ipmpi.engine.agent.agent.Agent` that this module uses."""

    loop: Loop
    host: str
    above: Endpoint | None
    children: list[PeerAgent]
    local: dict[int, LocalRank]
    transfers: Transfers

    @property
    def is_root(self) -> bool:
        """Whether this agent has the link to the controller."""

    def by_peer(self, ranks: Sequence[int]) -> list[tuple[PeerAgent, Ids]]:
        """The ranks below, by the agent through which they are reached."""

    def send_up(self, message: m.AnyMessage, body: Sequence[Buffer] = ()) -> None:
        """Send to the agent or controller above."""

    def pass_up(self, peer: PeerAgent, message: Any, stream: int) -> None:
        """Relay a message with its stream."""


class SetTasks:
    """Routes messages about tasks.

    Args:
        tree: the agent.
        joined: whether the ranks of the set share a communicator.
        leaders: the lowest rank on the node of each rank, by rank.
        mpi: what the ranks say of their MPI library.
    """

    def __init__(self, tree: TaskTree, joined: bool, leaders: Sequence[int], mpi: str = "") -> None:
        self._tree = tree
        self._loop = tree.loop
        self._leaders = leaders
        self._scheduler = SetScheduler(joined, _survives(mpi))
        self._known: set[int] = set()
        """Ranks that the scheduler has; empty except at the root."""
        self._farm_timer: Timer | None = None
        self._changed: set[int] = set()
        self._answered: list[int] = []
        """Ranks that have replied to a command, not yet reported to the scheduler."""
        self._unrecorded = UnrecordedResults()

    # --- the set -------------------------------------------------------------------------------------------

    def registered(self, ranks: Sequence[int]) -> None:
        """The root offers these ranks to the controller."""
        new = {rank: self._node(rank) for rank in ranks if rank not in self._known}
        if new:
            self._known.update(new)
            self._scheduler.add_ranks(new)
        for message, body in self._unrecorded.after_registration(self._known):
            self._tree.send_up(message, body)
        self._decide_soon()

    def job_ends(self, ends_at: float) -> None:
        """Set the end of the job."""
        self._scheduler.job_ends(ends_at)

    def _node(self, rank: int) -> int:
        return self._leaders[rank] if rank < len(self._leaders) else rank

    def ranks_gone(self, ranks: Sequence[int], *, died: bool, ordered: bool = False) -> None:
        """Ranks are lost, or their engines were ended while their processes stay.

        ``ordered``: they were told to end, so their tasks are not suspected.
        """
        if self._tree.is_root and self._known.intersection(ranks):
            self._known.difference_update(ranks)
            self._scheduler.remove_ranks(ranks, self._loop.now(), died=died, ordered=ordered)
            self._decide_soon()

    def command_given(self, ranks: Sequence[int]) -> None:
        """Ranks are sent a command."""
        if self._tree.is_root:
            self._tell_answered()
            self._scheduler.command_given(ranks, self._loop.now())
            if self._scheduler.awaits_ranks:
                self._decide_soon()
            else:  # without tasks nothing is to be decided, unless it takes long
                self._set_timer()

    def command_answered(self, ranks: Sequence[int]) -> None:
        """Ranks have answered a command; at the root only."""
        self._answered += ranks
        if self._scheduler.awaits_ranks:  # else with the next event
            self._decide_soon()

    def _tell_answered(self) -> None:
        if self._answered:
            ranks, self._answered = self._answered, []
            self._scheduler.command_answered(ranks, self._loop.now())

    def forget_controller(self, had_journal: bool, has_journal: bool) -> None:
        """The controller was restarted, and a new one will be told of the ranks."""
        if had_journal:
            self._unrecorded.note(self._effects())
            self._unrecorded.hold(self._scheduler.reset(keep=True))
        else:
            self._scheduler.reset()
        self._unrecorded.is_on = has_journal
        self._decide_soon()

    # --- from above ----------------------------------------------------------------------------------------

    def from_above(self, event: MessageReceived) -> bool:
        """Handle a message of the controller or of the agent above; False if it is not about tasks."""
        message, body = event.message, event.body
        if self._tree.is_root and self._to_farm(message, body):
            self._decide_soon()
        elif isinstance(message, m.ResultsRecorded):
            self._unrecorded.recorded(message.results)
        elif isinstance(message, _ROUTED):
            ranks = message.for_ranks if isinstance(message, m.RunTogether) else message.ranks
            self._pass_down(ranks, message, body)
        elif isinstance(message, m.TaskBody):
            self._take_body(message, body, event.stream)
        elif isinstance(message, m.DefineFunction | m.ForgetFunctions):
            self._functions(message, body)
        else:
            return False
        return True

    def _to_farm(self, message: m.AnyMessage, body: Sequence[Buffer]) -> bool:
        now = self._loop.now()
        if isinstance(message, m.GiveTasks):
            self._scheduler.give(message, body, now)
        elif isinstance(message, m.TakeBackTasks):
            self._scheduler.take_back(message, now)
        elif isinstance(message, m.CancelTasks):
            self._scheduler.cancel(message, now)
        elif isinstance(message, m.ReserveRanks):
            self._scheduler.reserve(message.ranks, message.on, now)
        else:
            return False
        return True

    def _functions(self, message: m.DefineFunction | m.ForgetFunctions, body: Sequence[Buffer]) -> None:
        """Pass functions on to all ranks."""
        for peer in self._tree.children:
            peer.connection.send(message, body)
            peer.wake()
        for local in self._tree.local.values():
            local.send(message, body)

    def _pass_down(self, ranks: Sequence[int], message: Routed, body: Sequence[Buffer]) -> None:
        for peer, theirs in self._tree.by_peer(ranks):
            peer.connection.send(_addressed(message, theirs), body)
            peer.wake()
        for rank in ranks:
            local = self._tree.local.get(rank)
            if local is not None:
                _give(local, message, body)

    # --- large arguments -----------------------------------------------------------------------------------

    def _take_body(self, message: m.TaskBody, body: Sequence[Buffer], stream: int) -> None:
        below = self._tree.by_peer(message.ranks)
        here = [
            local
            for rank in message.ranks
            if (local := self._tree.local.get(rank)) is not None
            and (local.tasks.waits_for(message.group, message.index)
                 or local.parts.waits_for(message.group, message.index))
        ]  # fmt: skip
        number, sizes, total = (message.group, message.index), message.sizes, sum(message.sizes)
        memory = self._memory(here, number, total)
        if not stream:
            for peer, ranks in below:
                peer.connection.send(m.TaskBody(*number, ranks, sizes), body)
                peer.wake()
            if memory is not None:
                try:
                    memory.write(0, memoryview(b"".join(body)))
                except OSError as error:
                    memory.close()
                    self._not_stored(here, number, error)
                else:
                    _arrived(here, number, sizes, memory)
            return
        sinks: list[tuple[Any, Any]] = [
            (peer, peer.connection.send_streamed(m.TaskBody(*number, ranks, sizes), total))
            for peer, ranks in below
        ]
        if memory is not None:
            receiver = BodyReceiver(
                sizes, memory, lambda _done: _arrived(here, number, sizes, memory),
                lambda: _broken(here, number, "their sender has disconnected"),
                lambda error: self._not_stored(here, number, error),
            )  # fmt: skip
            sinks.append((receiver, receiver))
        assert self._tree.above is not None
        self._tree.transfers.start(self._tree.above, stream, sinks)

    def _memory(self, here: list[LocalRank], number: tuple[int, int], total: int) -> SharedMemory | None:
        if here:
            try:
                return SharedMemory(total, self._tree.transfers.pool)
            except (OSError, ValueError, OverflowError) as error:
                self._not_stored(here, number, error)
        return None

    def _not_stored(self, here: list[LocalRank], number: tuple[int, int], error: Exception) -> None:
        _broken(here, number, why_not_stored(error, self._tree.host))

    # --- from below, and from ranks of this node ---------------------------------------------------------------

    def from_below(self, peer: PeerAgent, event: MessageReceived) -> bool:
        """Handle a message of an agent below; False if it is not about tasks."""
        message = event.message
        if isinstance(message, m.LargeTaskResult):
            self._learn(message)
            if event.stream:
                self._tree.pass_up(peer, message, event.stream)
            else:
                self._tree.send_up(message, event.body)
        elif isinstance(message, _REPORTS):
            self.report(message, event.body)
        else:
            return False
        return True

    def _learn(self, message: m.LargeTaskResult) -> None:
        if self._tree.is_root:
            self._scheduler.result(message, self._loop.now())
            self._decide_soon()

    def report(self, message: m.AnyMessage, body: Sequence[Buffer]) -> None:
        """Pass up a message of a rank of this node, or from below."""
        if isinstance(message, m.PropertiesChanged):
            self._changed.update(message.ranks)
            self._loop.call_at_turn_end(self._tell_changes)
            return
        if not self._tree.is_root:
            self._tree.send_up(message, body)
            return
        now = self._loop.now()
        if isinstance(message, m.TaskResults):
            self._scheduler.results(message, body, now)
        elif isinstance(message, m.TasksReturned):
            self._scheduler.returned(message, now)
        elif isinstance(message, m.WantTaskBody):
            self._scheduler.want_body(message, now)
        elif isinstance(message, m.TaskHolds):
            self._scheduler.held(message, now)
        elif isinstance(message, m.TogetherEnded):
            self._scheduler.together_ended(message, body, now)
        self._decide_soon()

    def _tell_changes(self) -> None:
        ranks = sorted(self._changed)
        self._changed.clear()
        if ranks:
            self._tree.send_up(m.PropertiesChanged(ranks))

    def report_large(self, message: m.LargeTaskResult, answer: LargeAnswer) -> None:
        """Send a large result of a rank of this node."""
        self._learn(message)
        above = self._tree.above
        if above is None:
            answer.drop()
        else:
            answer.begin(above, message, self._tree.send_up)

    # --- the farm --------------------------------------------------------------------------------------------

    def _decide_soon(self) -> None:
        if self._tree.is_root:
            self._loop.call_at_turn_end(self._decide)

    def _effects(self) -> list[Up]:
        """Let the scheduler decide, send its messages to ranks, and return those to the controller."""
        self._tell_answered()
        up: list[Up] = []
        for effect in self._scheduler.decide(self._loop.now()):
            if isinstance(effect, Down):
                assert isinstance(effect.message, _ROUTED)
                self._pass_down(effect.ranks, effect.message, effect.body)
            else:
                up.append(effect)
        return up

    def _decide(self) -> None:
        effects = self._effects()
        self._unrecorded.note(effects)
        for effect in effects:
            self._tree.send_up(effect.message, effect.body)
        self._set_timer()

    def _set_timer(self) -> None:
        deadline = self._scheduler.next_deadline()
        timer = self._farm_timer
        if deadline is not None and (timer is None or timer.when > deadline):
            if timer is not None:
                timer.cancel()
            self._farm_timer = self._loop.call_at(deadline, self._deadline)

    def _deadline(self) -> None:
        self._farm_timer = None
        self._decide()


def _survives(mpi: str) -> bool:
    """Return whether this MPI makes communicators for the others when a rank has died."""
    found = re.match(r"Open MPI v(\d+)", mpi)
    return found is not None and int(found[1]) >= 5


def _give(local: LocalRank, message: Routed, body: Sequence[Buffer]) -> None:
    """Pass a message to a rank of this node."""
    if isinstance(message, m.GiveTasks):
        local.tasks.give(message, body)
    elif isinstance(message, m.TakeBackTasks):
        local.tasks.take_back(message.count)
    elif isinstance(message, m.CancelTasks):
        indices = set(packed.unpack(message.indices))
        local.parts.cancel(message.group, indices, interrupt=message.interrupt)
        local.tasks.cancel(message.group, indices, interrupt=message.interrupt)
    elif isinstance(message, m.RunTogether):
        local.parts.run(message, body)
    elif isinstance(message, m.LeaveTogether):
        local.parts.leave(message)
    else:
        local.parts.deliver(message)


def _arrived(here: list[LocalRank], number: tuple[int, int], sizes: list[int], memory: SharedMemory) -> None:
    for local in here:
        local.tasks.body_arrived(*number, sizes, memory.descriptor)
        local.parts.body_arrived(*number, sizes, memory.descriptor)
    memory.close()


def _broken(here: list[LocalRank], number: tuple[int, int], why: str) -> None:
    for local in here:
        local.tasks.body_broken(*number, why)
        local.parts.body_broken(*number, why)


def _addressed(message: Routed, ranks: Sequence[int]) -> Routed:
    """Return the message addressed to some of its ranks."""
    field = "for_ranks" if isinstance(message, m.RunTogether) else "ranks"
    return message if getattr(message, field) == ranks else msgspec.structs.replace(message, **{field: ranks})
