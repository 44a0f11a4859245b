"""Commands of a program are performed at one step by all its ranks: the part of an agent that sees to that."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from ...protocol import messages as m, operations
from ...protocol.frames import Buffer
from ...ranges import ranks_named
from ...transport.loop import Loop, Timer
from ..rank.controlblock import LABEL, PAUSED, STEP
from . import programranks
from .agreement import Agreement, Stage
from .deliveries import for_ranks
from .localrank import LocalRank
from .peeragent import PeerAgent

_LOOK = 0.25
"""Seconds between two looks whether ranks get on that others hold for."""
_JOINS = 0.2
"""Seconds for which ranks that hold are given commands that come; later ones wait until all have made a step."""
_GIVEN_AFTER = 2.0
"""Seconds after which these are given all the same: one that runs may wait for them, as a receive for its send."""
_BETWEEN, _GOES_ON_WITHIN = 0.001, 0.05
"""Seconds between two looks whether ranks have gone on since the last commands, and for how long to look."""


class Waiting(NamedTuple):
    """A command that was not given to ranks yet."""

    message: m.Dispatch
    body: Sequence[Buffer]
    stream: int


class ProgramTree(Protocol):
    """The part of :class:`ipmpi.engine.agent.programagent.ProgramAgent` that this module uses."""

    loop: Loop
    children: list[PeerAgent]
    local: dict[int, LocalRank]

    @property
    def is_root(self) -> bool:
        """Whether this agent has the link to the controller."""

    def send_up(self, message: m.AnyMessage, body: Sequence[Buffer] = ()) -> None:
        """Send to the agent or controller above."""

    def give(self, message: m.Dispatch, body: Sequence[Buffer], stream: int) -> None:
        """Give ranks a command."""

    def refuse(self, message: m.Dispatch, stream: int, outcome: bytes) -> None:
        """Answer a command that no rank has got."""


class ProgramSteps:
    """Holds the ranks of a program while there are commands for any of them.

    Args:
        tree: the agent.
        is_root: whether it has the link to the controller.
        patience: seconds that ranks hold for one that does not get on.
        log: called with lines for the log.
    """

    def __init__(self, tree: ProgramTree, is_root: bool, patience: float, log: Callable[[str], None]) -> None:
        self._tree = tree
        self._patience = patience
        self._log = log
        self._agreement = Agreement(self, is_root)
        self._waiting: list[Waiting] = []
        self._outstanding: dict[int, set[int]] = {}
        """Ranks that have not answered a command, by its number."""
        self._timer: Timer | None = None
        self._next: Timer | None = None
        self._held_since = self._let_go_at = 0.0
        self._last: tuple[dict[int, int], float] = ({}, 0.0)
        """Where the ranks were that are waited for, and when one of them got on last."""

    # --- commands, at the root -------------------------------------------------------------------------------

    def command(self, message: m.Dispatch, body: Sequence[Buffer], stream: int) -> None:
        """Hold all ranks, and give some of them this command."""
        waiting = Waiting(message, [bytes(buffer) for buffer in body], stream)
        self._waiting.append(waiting)
        if self._agreement.stage is Stage.FREE:
            self._begin()
        elif self._agreement.stage is Stage.HOLDING and len(self._waiting) == 1:
            if self._tree.loop.now() - self._held_since < _JOINS:
                self._give_all()
            else:  # so that clients without a pause between their commands do not hold the program for ever
                round_ = self._agreement.round
                self._tree.loop.call_later(_GIVEN_AFTER, lambda: self._give_late(round_))

    def _begin(self) -> None:
        """Find a step for what waits; ranks that are not paused make one in between."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if not self._waiting or self._agreement.stage is not Stage.FREE:
            return
        now = self._tree.loop.now()
        if now - self._let_go_at < _GOES_ON_WITHIN and self._have_not_gone_on():
            self._next = self._tree.loop.call_later(_BETWEEN, self._begin)
            return
        self._agreement.begin()
        self._watch()

    def _have_not_gone_on(self) -> bool:
        held = 2 * self._agreement.step + 1
        at = [programranks.words(local) for local in self._here]
        return bool(at) and all(words[STEP] == held and not words[PAUSED] for words in at)

    def _give_late(self, round_: int) -> None:
        if self._agreement.stage is Stage.HOLDING and self._agreement.round == round_:
            self._give_all()

    def _give_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:  # all of them first: if nobody is there any more for one, the round is not over
            self._outstanding.setdefault(each.message.id, set()).update(each.message.ranks)
        for each in waiting:
            self._give(each)
        self._look_whether_done()

    def _give(self, waiting: Waiting) -> None:
        """Give a command to all ranks that it is for, or to none: they may wait for each other in it."""
        message = waiting.message
        there = set(self.ranks())
        there.update(rank for peer in self._tree.children for rank in peer.ranks)
        gone = [rank for rank in message.ranks if rank not in there]
        left = [rank for rank in message.ranks if rank in there]
        if gone and left:
            text = f"{ranks_named(gone)} left the program before this began, so no rank has performed it"
            outcome = operations.encode(operations.Failed("EngineLost", text, f"EngineLost: {text}\n"))
            self._tree.refuse(for_ranks(message, left), waiting.stream, outcome)
            self.answered(message.id, message.ranks)
            return
        self._tree.give(*waiting)
        self.answered(message.id, gone)

    def all_hold(self) -> None:
        """See :class:`~ipmpi.engine.agent.agreement.Neighbours`."""
        self._held_since = self._tree.loop.now()
        self._give_all()

    def answered(self, number: int, ranks: Iterable[int]) -> None:
        """Ranks have answered a command."""
        left = self._outstanding.get(number)
        if left is not None:
            left.difference_update(ranks)
            if not left:
                del self._outstanding[number]
            self._look_whether_done()

    def lost(self, ranks: Sequence[int]) -> None:
        """Ranks are gone."""
        for number in list(self._outstanding):
            self.answered(number, ranks)
        for rank in ranks:
            self._agreement.gone(rank)

    def peer_gone(self, peer: PeerAgent) -> None:
        """An agent below is gone."""
        self._agreement.gone(peer)

    def _look_whether_done(self) -> None:
        if self._agreement.stage is Stage.HOLDING and not self._outstanding:
            self._agreement.go_on()
            self._let_go_at = self._tree.loop.now()
            self._begin()

    def withdraw(self, error: str, text: str, ranks: Sequence[int] | None = None) -> None:
        """Give up commands that no rank has got yet (with ``ranks``: those for any of them)."""
        gone = [each for each in self._waiting if ranks is None or set(ranks) & set(each.message.ranks)]
        self._waiting = [each for each in self._waiting if each not in gone]
        outcome = operations.encode(operations.Failed(error, text, f"{error}: {text}\n"))
        for each in gone:
            self._tree.refuse(each.message, each.stream, outcome)
        if gone and not self._waiting and self._agreement.stage is not Stage.FREE and not self._outstanding:
            self._agreement.go_on()

    def let_all_go(self, words: str) -> None:
        """Nobody is there to give commands: drop those that wait, and let also a paused program go on."""
        self._log(words)
        self._waiting.clear()
        self._agreement.go_on(True, words)

    # --- messages between agents -----------------------------------------------------------------------------

    def from_above(self, message: m.HoldRanks | m.StopAt | m.GoOn) -> None:
        """The agent above has said something."""
        self._agreement.from_above(message)
        self._watch()

    def from_below(self, peer: PeerAgent, message: m.CanStopAt | m.AllHold | m.CannotHold) -> None:
        """An agent below has reported."""
        if not isinstance(message, m.CannotHold):
            self._agreement.from_below(peer, message)
        elif message.round == self._agreement.round:
            self._cannot_hold(message.words)

    def rank_holds(self, local: LocalRank, message: Any) -> None:
        """A rank of this node holds where it was told to."""
        self._agreement.rank_holds(local.rank, message.round)

    # --- ranks that do not come ------------------------------------------------------------------------------

    def _watch(self) -> None:
        self._last = ({}, self._tree.loop.now())
        if self._timer is None:
            self._timer = self._tree.loop.call_later(_LOOK, self._look_at_ranks)

    def _look_at_ranks(self) -> None:
        self._timer = None
        stage, now = self._agreement.stage, self._tree.loop.now()
        if stage not in (Stage.ASKING, Stage.PROPOSED, Stage.AGREED):
            return
        awaited = [self._tree.local[who] for who in self._agreement.waits_for if who in self._tree.local]
        at = {local.rank: programranks.words(local)[STEP] for local in awaited}
        if at != self._last[0]:
            self._last = at, now
        elif at and now - self._last[1] >= self._patience:
            self._cannot_hold(self._story(awaited))
            return
        self._timer = self._tree.loop.call_later(_LOOK, self._look_at_ranks)

    def _story(self, awaited: list[LocalRank]) -> str:
        first = min(awaited, key=lambda local: programranks.words(local)[STEP])
        words = programranks.words(first)
        step, behind = self._agreement.step + words[LABEL], self._agreement.step - (words[STEP] >> 1)
        late = ranks_named([local.rank for local in awaited])
        return (
            f"the program was not stopped: all ranks were to stop at step {step}, and {late} did not come there. "
            f"Rank {first.rank} is {behind} steps before it, and has not ended its step for {self._patience:g} s. "
            "It may be in a long step (attach(patience=) says how long others wait for it), or ranks do not tick "
            "equally often; where() shows what they do. Nothing was changed, and all ranks go on"
        )

    def _cannot_hold(self, words: str) -> None:
        if self._tree.is_root:
            self._log(words)
            self.withdraw("CommandTimeout", words)
        else:
            self._tree.send_up(m.CannotHold(self._agreement.round, words))

    # --- for the agreement -----------------------------------------------------------------------------------

    def below(self) -> list[Hashable]:
        """See :class:`~ipmpi.engine.agent.agreement.Neighbours`; so are the others here."""
        return [peer for peer in self._tree.children if peer.engines]

    def ranks(self) -> list[int]:
        """Those that are in their loop."""
        return [local.rank for local in self._here]

    @property
    def _here(self) -> list[LocalRank]:
        return [local for local in self._tree.local.values() if not local.is_stopping]

    def tell(self, peer: Hashable, message: m.AnyMessage) -> None:
        """Send an agent below a message."""
        assert isinstance(peer, PeerAgent)
        peer.connection.send(message)
        peer.wake()

    def tell_above(self, message: m.AnyMessage) -> None:
        """Send the agent above a message."""
        self._tree.send_up(message)

    def hold_ranks(self, round_: int) -> int | None:
        """Send the packet to each rank first, and read then where they are."""
        here = self._here
        return max((programranks.hold_at_tick(local, round_) for local in here), default=None)

    def stop_ranks_at(self, round_: int, step: int) -> None:
        """Tell the ranks here."""
        for local in self._here:
            programranks.stop_at_tick(local, round_, step)

    def let_go(self, message: m.GoOn) -> None:
        """Tell the ranks here; one of them says why."""
        for local in self._here:
            words = message.words if local.rank == 0 else ""
            programranks.let_go(local, message.round, message.resume, words)
