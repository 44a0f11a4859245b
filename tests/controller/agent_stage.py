"""Engine sets in the network simulation: the real agent, in its own process, and its ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipmpi.engine.agent.agent import Agent
from ipmpi.protocol import messages as m
from ipmpi.protocol.connection import Event
from tests.controller.rank_stage import StageRank
from tests.controller.stage_loop import StageLoop

if TYPE_CHECKING:
    from tests.controller.network_lines import Line
    from tests.controller.network_stage import NetworkStage

IDS = 10
"""Engines of set ``n`` have ids from ``IDS * n`` on: no two have the same."""


class StageSet:
    """A set of engines that do not share a communicator, as with ``--mpi none``: they die one by one.

    ``died``: the step in which its agent has ended. ``farewell``: what it has said then; "" if it was killed.
    """

    def __init__(self, stage: NetworkStage, line: Line, number: int, ranks: int, on_loss: str) -> None:
        self.stage = stage
        self.line = line
        self.number = number
        self.key = 0
        self.loop: Any = StageLoop()
        self.agent = Agent(self.loop, f"host{number}", "MPI", "3", 0, stage.log.append, self._stopped)
        self.agent.on_loss, self.agent.launch = on_loss, f"launch-{number}"
        self.ranks = [StageRank(self, rank, IDS * number + rank) for rank in range(ranks)]
        for rank in self.ranks:
            self.agent.add_rank(rank)  # type: ignore[arg-type]
        self.on_loss = on_loss
        self.ids: list[int] = []
        self.died: int | None = None
        self.farewell = ""
        self.begun: set[int] = set()
        """The steps in which it has gone on with another controller."""
        self.is_written = False
        """Whether it was in the journal."""
        self.unknown_to: list[int] = []
        """The steps in which a controller was killed that had not written that it had joined."""
        self._ends_at = 0.0

    # --- its link to the controller --------------------------------------------------------------------------

    @property
    def connection(self) -> Any:
        return self.line.near

    def wake(self) -> None:
        pass

    def welcomed(self, again: bool) -> None:
        """A session begins; ``again``: it goes on, and the controller is another one."""
        if self.farewell:
            return
        self.begun.add(self.stage.steps)
        self.agent.forget_controller(again, True)
        self.agent.above = self
        self.agent.register()

    def event(self, event: Event) -> None:
        if not self.farewell:
            self.agent.from_above(event)
        message = getattr(event, "message", None)
        if isinstance(message, m.Registered):
            self.ids = [rank.engine for rank in self.ranks]

    # --- its processes ---------------------------------------------------------------------------------------

    @property
    def is_gone(self) -> bool:
        return self.died is not None

    @property
    def is_ending(self) -> bool:
        return self.is_gone or bool(self.farewell)

    @property
    def living(self) -> list[StageRank]:
        return [rank for rank in self.ranks if rank.died is None]

    def was_stranger(self, since: int, until: int) -> bool:
        """Return whether a controller did not know what it had been given before, and ran in the first step."""
        return any(
            killed <= until and since <= min((step for step in self.begun if step > killed), default=since)
            for killed in self.unknown_to
        )

    def turn(self) -> None:
        """Its processes go on."""
        if self.farewell:
            said = not self.line.near.said and self.line.state == "up"
            if said or self.loop.now() >= self._ends_at:
                self.died = self.stage.steps
            return
        for rank in self.living:
            if self.stage.random.random() < 0.4:
                rank.act()
        self.loop.turn()

    def _stopped(self, reason: str, orphaned: bool) -> None:
        """The agent ends: its ranks do so, and the controller is told, if it can be reached."""
        del orphaned
        for rank in self.living:
            rank.dies(alone=False)
        self.farewell = reason
        self._ends_at = self.loop.now() + 2.0
        if self.agent.above is not None:
            self.line.near.send(m.Goodbye(reason))

    def is_killed(self) -> None:
        """All its processes are killed at once."""
        for rank in self.living:
            rank.dies(alone=False)
        self.died = self.stage.steps
