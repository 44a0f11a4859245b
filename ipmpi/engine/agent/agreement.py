"""At which step all ranks of a program stop: what one node agent knows and says of that (no I/O).

The ranks of a program cannot be stopped anywhere: each of them hears its agent only at its *ticks*, once in each
step. All of them perform a command at the same tick. Nobody may wait for a rank to arrive before it is known
where: a rank that holds may be needed by another one that is still in an earlier step.

So nobody does. Each agent sends its ranks a packet, and then reads in shared memory where they are. A rank that
holds at tick n can stop at n; any other one, in step n, hears the packet at tick n + 1 at the latest. The largest
of these numbers, S, is found by one pass up the tree of agents; it is at or ahead of every rank. One pass down
tells it, and lets ranks that hold before S go on to it. What a rank needs of others to get to tick S, it needs of
what they do before their tick S, so it comes. See decision 0028.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable
from typing import Final, Protocol

from ...protocol import messages as m


class Stage(enum.Enum):
    """How far a round of the agreement is at one agent."""

    FREE = enum.auto()
    """No round: ranks run, or are paused."""
    ASKING = enum.auto()
    """Agents below have not all said where their ranks can stop."""
    PROPOSED = enum.auto()
    """The agent above has heard where the ranks of this branch can stop, and has not told the step yet."""
    AGREED = enum.auto()
    """The step is known; ranks or agents below have not all reported that they are there."""
    HOLDING = enum.auto()
    """All ranks of this branch hold at that step."""


class Neighbours(Protocol):
    """What the agreement needs of its agent."""

    def below(self) -> Iterable[Hashable]:
        """The agents below that have ranks."""

    def ranks(self) -> Iterable[int]:
        """The ranks of this node that are in the program."""

    def tell(self, peer: Hashable, message: m.AnyMessage) -> None:
        """Send an agent below a message."""

    def tell_above(self, message: m.AnyMessage) -> None:
        """Send the agent above a message."""

    def hold_ranks(self, round_: int) -> int | None:
        """Tell the ranks of this node to hold; return the tick at which all of them can stop, None without any."""

    def stop_ranks_at(self, round_: int, step: int) -> None:
        """Let the ranks of this node go on to this tick."""

    def let_go(self, message: m.GoOn) -> None:
        """Let the ranks of this node go on."""

    def all_hold(self) -> None:
        """At the root: all ranks of the set hold."""


_AWAITED: Final = {m.CanStopAt: Stage.ASKING, m.AllHold: Stage.AGREED}
"""The stage in which each report counts."""


class Agreement:
    """One agent's part.

    Args:
        neighbours: its ranks, the agents below, and the one above.
        is_root: whether it has none above: it begins and ends rounds.

    Attributes:
        stage: how far the round is.
        round: its number.
        step: the tick that was agreed; before that, the largest that has been reported.
        waits_for: ranks of this node, and agents below, that have not reported.
    """

    def __init__(self, neighbours: Neighbours, is_root: bool) -> None:
        self._neighbours = neighbours
        self._is_root = is_root
        self.stage = Stage.FREE
        self.round = 0
        self.step = -1
        self.waits_for: set[Hashable] = set()

    def begin(self) -> None:
        """At the root: find a step."""
        assert self._is_root
        assert self.stage is Stage.FREE
        self._ask(self.round + 1)

    def _ask(self, round_: int) -> None:
        self.stage, self.round = Stage.ASKING, round_
        self.waits_for = set(self._neighbours.below())
        for peer in list(self.waits_for):
            self._neighbours.tell(peer, m.HoldRanks(round_))
        own = self._neighbours.hold_ranks(round_)
        self.step = -1 if own is None else own
        self._look()

    def _agree(self, step: int) -> None:
        self.stage, self.step = Stage.AGREED, step
        peers = list(self._neighbours.below())
        self.waits_for = {*peers, *self._neighbours.ranks()}
        for peer in peers:
            self._neighbours.tell(peer, m.StopAt(self.round, step))
        self._neighbours.stop_ranks_at(self.round, step)
        self._look()

    def _look(self) -> None:
        """Go on if nobody is waited for any more."""
        if self.waits_for:
            return
        if self.stage is Stage.ASKING and self._is_root:
            self._agree(self.step)
        elif self.stage is Stage.ASKING:
            self.stage = Stage.PROPOSED
            self._neighbours.tell_above(m.CanStopAt(self.round, self.step))
        elif self.stage is Stage.AGREED:
            self.stage = Stage.HOLDING
            if self._is_root:
                self._neighbours.all_hold()
            else:
                self._neighbours.tell_above(m.AllHold(self.round))

    def go_on(self, resume: bool = False, words: str = "") -> None:
        """At the root: end the round, whatever its stage is; see :class:`~ipmpi.protocol.steering.GoOn`."""
        self._pass_on(m.GoOn(self.round, resume, words))

    def _pass_on(self, message: m.GoOn) -> None:
        self.stage = Stage.FREE
        self.waits_for = set()
        for peer in self._neighbours.below():
            self._neighbours.tell(peer, message)
        self._neighbours.let_go(message)

    def from_above(self, message: m.HoldRanks | m.StopAt | m.GoOn) -> None:
        """The agent above has said something; links keep the order, so it is always about the latest round."""
        if isinstance(message, m.HoldRanks):
            self._ask(message.round)
        elif isinstance(message, m.GoOn):
            self._pass_on(message)
        elif self.stage is Stage.PROPOSED and message.round == self.round:
            self._agree(message.step)

    def from_below(self, peer: Hashable, message: m.CanStopAt | m.AllHold) -> None:
        """An agent below has reported."""
        if message.round != self.round or self.stage is not _AWAITED[type(message)]:
            return
        if isinstance(message, m.CanStopAt):
            self.step = max(self.step, message.step)
        self.gone(peer)

    def rank_holds(self, rank: int, round_: int) -> None:
        """A rank of this node holds at the step of a round."""
        if round_ == self.round and self.stage is Stage.AGREED:
            self.gone(rank)

    def gone(self, who: Hashable) -> None:
        """Wait for this rank or agent no longer: it has reported, or ended."""
        if who in self.waits_for:
            self.waits_for.discard(who)
            self._look()
