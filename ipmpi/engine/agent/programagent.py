"""The agent of one node of a program that is steered: an :class:`Agent` whose ranks run a loop of their own.

It never ends its ranks: whatever ends it, they are told that steering is over, and go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...protocol import messages as m, rankmessages as rm
from ...protocol.connection import Event, MessageReceived
from ...protocol.frames import Buffer
from .agent import Agent
from .largestreams import LargeAnswer
from .localrank import LocalRank, RankCommand
from .peeragent import PeerAgent
from .programsteps import ProgramSteps
from .watches import Watches

_DOWN = (m.HoldRanks, m.StopAt, m.GoOn)
_UP = (m.CanStopAt, m.AllHold, m.CannotHold)


class ProgramAgent(Agent):
    """Routes commands down, once all ranks hold at one step, and replies up.

    Args:
        args, options: see :class:`Agent`.
        program: what the program is called.
        patience: seconds that ranks hold for one that does not come.

    Attributes:
        watches: what clients watch.
        on_farewell: called when the controller ends the session, with its reason.
    """

    def __init__(self, *args: Any, program: str, patience: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self.program = program
        self._steps: ProgramSteps | None = None
        self._patience = patience
        self.on_farewell: Callable[[str], None] = lambda reason: None
        self.watches = Watches(self)

    @property
    def steps(self) -> ProgramSteps:
        """At which step commands are performed."""
        if self._steps is None:
            self._steps = ProgramSteps(self, self.is_root, self._patience, self._log)
        return self._steps

    def from_above(self, event: Event) -> None:
        """See :meth:`Agent.from_above`."""
        message = event.message if isinstance(event, MessageReceived) else None
        if isinstance(message, _DOWN):
            self.steps.from_above(message)
        elif isinstance(message, m.Unwatch):
            self.watches.unwatch(message)
        elif isinstance(message, m.BeginWatch):
            self.watches.begin(message)
        elif isinstance(message, m.Goodbye) and self.is_root:
            self.on_farewell(message.reason)
        elif isinstance(message, m.Dispatch) and self.is_root and isinstance(event, MessageReceived):
            self.steps.command(message, event.body, event.stream)
        else:
            if isinstance(message, m.InterruptRanks) and self.is_root:
                self.steps.withdraw("KeyboardInterrupt", "it was interrupted before it began", message.ranks)
            super().from_above(event)

    def give(self, message: m.Dispatch, body: Sequence[Buffer], stream: int) -> None:
        """All ranks hold: pass a command down."""
        self._leaving.give(message, lambda given: super(ProgramAgent, self).dispatch(given, body, stream))

    def dispatch(self, message: m.Dispatch, body: Sequence[Buffer] = (), stream: int = 0) -> None:
        """Pass a command down; at the root it waits for the ranks to hold."""
        if self.is_root:
            self.steps.command(message, body, stream)
        else:
            super().dispatch(message, body, stream)

    def refuse(self, message: m.Dispatch, stream: int, outcome: bytes) -> None:
        """Answer a command that no rank has got."""
        if stream and self.above is not None:
            self.above.connection.refuse(stream)
            self.above.wake()
        if self.watches.is_own(message.id):
            self.watches.answered(message.id, False, outcome)
        else:
            self.send_up(m.Result(message.id, message.ranks, False, outcome))

    def _answer(self, message: m.Result, body: Sequence[Buffer] = ()) -> None:
        if self.is_root and self.watches.is_own(message.id):
            self.watches.answered(message.id, message.ok, message.outcome)
        else:
            super()._answer(message, body)

    def rank_answered(
        self,
        local: LocalRank,
        command: RankCommand,
        message: rm.CommandDone,
        body: Sequence[Buffer],
        large: LargeAnswer | None,
    ) -> None:
        """See :meth:`Agent.rank_answered`."""
        super().rank_answered(local, command, message, body, large)
        self.steps.answered(command.id, [local.rank])

    def _not_run(self, message: m.Dispatch, ok: bool, outcome: bytes) -> None:
        super()._not_run(message, ok, outcome)
        self.steps.answered(message.id, message.ranks)

    def _from_below(self, peer: PeerAgent, event: Event) -> None:
        message = event.message if isinstance(event, MessageReceived) else None
        if isinstance(message, _UP):
            self.steps.from_below(peer, message)
            return
        super()._from_below(peer, event)
        if isinstance(message, m.Result):
            self.steps.answered(message.id, message.engines)

    def _lost(self, lost: m.RanksLost) -> None:
        super()._lost(lost)
        self.steps.lost(lost.ranks)

    def _peer_lost(self, peer: PeerAgent, reason: str) -> None:
        super()._peer_lost(peer, reason)
        self.steps.peer_gone(peer)

    def _retire(self, local: LocalRank) -> None:
        """The engine of a rank was ended by a client: its program goes on."""
        local.farewell = "ended on request"
        local.stop(rm.Stop("it was ended on request (kill)"))
