"""Tasks in the agent thread: their messages up and down the tree of ranks, and the set's farm (layer L4).

At rank 0 all that is said about tasks goes through the :class:`~ipmpi.engine.farm.Farm`, which decides who runs
what; its own rank is one of those that it gives tasks to. Other ranks pass on what is not for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from ..protocol import messages as m, packed
from ..protocol.connection import MessageReceived
from ..protocol.frames import Buffer
from ..transport.assembly import Assembly, PrivateMemory
from ..transport.loop import Loop, Timer
from ..transport.transfers import Endpoint, Transfers
from .child import Child
from .departures import Departures
from .farm import Down, Farm
from .parts import Parts
from .rank import Rank
from .taskagent import TaskAgent

Routed = m.GiveTasks | m.TakeBackTasks | m.CancelTasks | m.RunTogether | m.LeaveTogether | m.DeliverTogether
_ROUTED = (m.GiveTasks, m.TakeBackTasks, m.CancelTasks, m.RunTogether, m.LeaveTogether, m.DeliverTogether)

_REPORTS = (m.PropertiesChanged, m.TaskResults, m.TasksReturned, m.WantTaskBody, m.TogetherEnded)


class Tree(Protocol):
    """This rank's place in the set: see :class:`ipmpi.engine.proxy.Proxy`."""

    loop: Loop
    rank: Rank
    own: m.EngineInfo
    above: Endpoint | None
    children: list[Child]
    transfers: Transfers

    @property
    def is_root(self) -> bool:
        """Whether this rank speaks with the controller."""

    def by_child(self, ranks: Sequence[int]) -> list[tuple[Child, list[int]]]:
        """The ranks below, by the child through which they are reached."""

    def send_up(self, message: m.AnyMessage, body: Sequence[Buffer] = ()) -> None:
        """Send to the rank or controller above."""

    def pass_up(self, child: Child, message: Any, stream: int) -> None:
        """Relay a message with its stream."""

    def keep_interrupting(self) -> None:
        """An interrupt was sent: see to it that it is heard."""


class SetTasks:
    """Routes what is said about tasks.

    Args:
        tree: where this rank is.
        joined: whether the ranks of the set share a communicator.
        leaders: the leader of the node of each rank, by rank.

    Attributes:
        departures: large answers of this rank.
    """

    def __init__(self, tree: Tree, joined: bool, leaders: Sequence[int]) -> None:
        self._tree = tree
        self._loop = tree.loop
        self._number = tree.own.rank
        self._leaders = leaders
        self._farm = Farm(self._number, joined)
        self._known: set[int] = set()
        """Ranks that the farm has been told of; none but at the root."""
        self._farm_timer: Timer | None = None
        self._changed: set[int] = set()
        rank = tree.rank
        neighbours = leaders.count(self._node(self._number)) or 1
        self.departures = Departures(tree.loop, rank, lambda stuck: tree.send_up(stuck), neighbours)
        self._agent = TaskAgent(tree.loop, rank, self._number, self, tree.keep_interrupting)
        self._parts = Parts(tree.loop, rank, self._number, self, self._agent, tree.keep_interrupting)

    # --- the set -------------------------------------------------------------------------------------------

    def registered(self, ranks: Sequence[int]) -> None:
        """The root offers these ranks to the controller."""
        new = {rank: self._node(rank) for rank in ranks if rank not in self._known}
        if new:
            self._known.update(new)
            self._farm.add_ranks(new)
        self._decide_soon()

    def job_ends(self, ends_at: float) -> None:
        """The job ends at that time."""
        self._farm.job_ends(ends_at)

    def _node(self, rank: int) -> int:
        return self._leaders[rank] if rank < len(self._leaders) else rank

    def ranks_gone(self, ranks: Sequence[int], *, died: bool) -> None:
        """Ranks are lost, or their engines were ended and their processes stay."""
        if self._tree.is_root and self._known.intersection(ranks):
            self._known.difference_update(ranks)
            self._farm.remove_ranks(ranks, self._loop.now(), died=died)
            self._decide_soon()

    def command_given(self, ranks: Sequence[int]) -> None:
        """Ranks are sent a command."""
        if self._tree.is_root:
            self._farm.command_given(ranks)
            self._decide_soon()

    def command_answered(self, ranks: Sequence[int]) -> None:
        """Ranks have answered a command."""
        if self._number in ranks:
            self._agent.command_answered()
        if self._tree.is_root:
            self._farm.command_answered(ranks, self._loop.now())
            self._decide_soon()

    def forget_controller(self) -> None:
        """The controller began anew."""
        self.departures.forget()
        self._farm.reset()
        self._decide_soon()

    def retire(self) -> None:
        """This rank's engine was ended."""
        self._agent.retire()
        self._parts.retire()

    # --- from above ----------------------------------------------------------------------------------------

    def from_above(self, event: MessageReceived) -> bool:
        """Handle a message of the controller or of the rank above; False if it is not about tasks."""
        message, body = event.message, event.body
        if self._tree.is_root and self._to_farm(message, body):
            self._decide_soon()
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
            self._farm.give(message, body, now)
        elif isinstance(message, m.TakeBackTasks):
            self._farm.take_back(message, now)
        elif isinstance(message, m.CancelTasks):
            self._farm.cancel(message, now)
        elif isinstance(message, m.ReserveRanks):
            self._farm.reserve(message.ranks, message.on, now)
        else:
            return False
        return True

    def _functions(self, message: m.DefineFunction | m.ForgetFunctions, body: Sequence[Buffer]) -> None:
        """Functions go to all ranks below at once."""
        for child in self._tree.children:
            child.connection.send(message, body)
            child.wake()
        if isinstance(message, m.DefineFunction):
            self._tree.rank.runner.define(message, b"".join(body))
        else:
            self._tree.rank.runner.forget(message.keys)

    def _pass_down(self, ranks: Sequence[int], message: Routed, body: Sequence[Buffer]) -> None:
        for child, theirs in self._tree.by_child(ranks):
            child.connection.send(_addressed(message, theirs), body)
            child.wake()
        if self._number in ranks:
            self._here(message, body)

    def _here(self, message: Routed, body: Sequence[Buffer]) -> None:
        """A message for this rank."""
        if isinstance(message, m.GiveTasks):
            self._agent.give(message, body)
        elif isinstance(message, m.TakeBackTasks):
            self._agent.take_back(message.count)
        elif isinstance(message, m.CancelTasks):
            indices = set(packed.unpack(message.indices))
            self._parts.cancel(message.group, indices, interrupt=message.interrupt)
            self._agent.cancel(message.group, indices, interrupt=message.interrupt)
        elif isinstance(message, m.RunTogether):
            self._parts.run(message, body)
        elif isinstance(message, m.LeaveTogether):
            self._parts.leave(message)
        else:
            self._parts.deliver(message)

    # --- large arguments -----------------------------------------------------------------------------------

    def _take_body(self, message: m.TaskBody, body: Sequence[Buffer], stream: int) -> None:
        below = self._tree.by_child(message.ranks)
        number = message.group, message.index
        wanted = self._number in message.ranks and (
            self._agent.waits_for(*number) or self._parts.waits_for(*number)
        )
        if not stream:
            for child, ranks in below:
                child.connection.send(m.TaskBody(*number, ranks, message.sizes), body)
                child.wake()
            if wanted:
                self._arrived(number, [bytearray(segment) for segment in body])
            return
        total = sum(message.sizes)
        sinks: list[tuple[Any, Any]] = [
            (child, child.connection.send_streamed(m.TaskBody(*number, ranks, message.sizes), total))
            for child, ranks in below
        ]
        if wanted:
            try:
                memory = PrivateMemory(total)
            except (OSError, ValueError, OverflowError):
                self._broken(number)
            else:
                assembly = Assembly(
                    message.sizes, memory, lambda done: self._arrived(number, done.segments()),
                    lambda: self._broken(number),
                )  # fmt: skip
                sinks.append((assembly, assembly))
        assert self._tree.above is not None
        self._tree.transfers.start(self._tree.above, stream, sinks)

    def _arrived(self, number: tuple[int, int], body: list[Buffer]) -> None:
        self._agent.body_arrived(*number, body)
        self._parts.body_arrived(*number, body)

    def _broken(self, number: tuple[int, int]) -> None:
        self._agent.body_broken(*number)
        self._parts.body_broken(*number)

    # --- from below, and from this rank ----------------------------------------------------------------------

    def from_below(self, child: Child, event: MessageReceived) -> bool:
        """Handle a message of a rank below; False if it is not about tasks."""
        message = event.message
        if isinstance(message, m.TaskResult):
            self._learn(message)
            if event.stream:
                self._tree.pass_up(child, message, event.stream)
            else:
                self._tree.send_up(message, event.body)
        elif isinstance(message, _REPORTS):
            self.report(message, event.body)
        else:
            return False
        return True

    def _learn(self, message: m.TaskResult) -> None:
        if self._tree.is_root:
            self._farm.result(message, self._loop.now())
            self._decide_soon()

    def report(self, message: m.AnyMessage, body: Sequence[Buffer]) -> None:
        """A message of this rank, or of one below, on its way to the controller."""
        if isinstance(message, m.PropertiesChanged):
            self._changed.update(message.ranks)
            self._loop.call_at_turn_end(self._tell_changes)
            return
        if not self._tree.is_root:
            self._tree.send_up(message, body)
            return
        now = self._loop.now()
        if isinstance(message, m.TaskResults):
            self._farm.results(message, body, now)
        elif isinstance(message, m.TasksReturned):
            self._farm.returned(message, now)
        elif isinstance(message, m.WantTaskBody):
            self._farm.want_body(message, now)
        elif isinstance(message, m.TogetherEnded):
            self._farm.together_ended(message, body, now)
        self._decide_soon()

    def _tell_changes(self) -> None:
        ranks = sorted(self._changed)
        self._changed.clear()
        if ranks:
            self._tree.send_up(m.PropertiesChanged(ranks))

    def report_large(self, message: m.TaskResult, body: Sequence[Buffer], sent: Callable[[], None]) -> None:
        """Send a large result of this rank; ``sent`` is called when its buffers are not needed any more."""
        self._learn(message)
        above = self._tree.above
        stream = None if above is None else above.connection.send(message, body)
        if above is not None:
            above.wake()
        stuck = m.AnswerStuck(self._number, 0, message.group, message.index)
        self.departures.add(above, stream, stuck, sent)

    # --- the farm --------------------------------------------------------------------------------------------

    def _decide_soon(self) -> None:
        if self._tree.is_root:
            self._loop.call_at_turn_end(self._decide)

    def _decide(self) -> None:
        now = self._loop.now()
        for effect in self._farm.decide(now):
            if isinstance(effect, Down):
                assert isinstance(effect.message, _ROUTED)
                self._pass_down(effect.ranks, effect.message, effect.body)
            else:
                self._tree.send_up(effect.message, effect.body)
        deadline = self._farm.next_deadline()
        timer = self._farm_timer
        if deadline is not None and (timer is None or timer.when > deadline):
            if timer is not None:
                timer.cancel()
            self._farm_timer = self._loop.call_later(max(0.0, deadline - now), self._deadline)

    def _deadline(self) -> None:
        self._farm_timer = None
        self._decide()


def _addressed(message: Routed, ranks: list[int]) -> Routed:
    """The message, as it goes to some of its ranks."""
    field = "for_ranks" if isinstance(message, m.RunTogether) else "ranks"
    return message if getattr(message, field) == ranks else msgspec.structs.replace(message, **{field: ranks})
